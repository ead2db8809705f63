// A session outlives its socket: cut, closed, taken over, relaunched, back in time and too late.
// Every case watches as another member's session, as a member's control plane and as a sibling.

import assert from 'node:assert/strict';
import { Peer, eventually, isMessage, isPresence, sleep } from './mesh.mjs';
import { GRACE_MS, member, peersOf, run, session } from './scenario.mjs';

/** Past this, a lease that was cut now would have ended. */
const PAST_GRACE_MS = GRACE_MS + 700;
const IN_ORDER = Array.from({ length: 20 }, (_, i) => `message ${i}`);

async function scene(mesh) {
  const observers = {
    session: await session(mesh, 'bob').attach(),
    controlPlane: await member(mesh, 'carol').attach(),
    sibling: await session(mesh, 'alice', { name: 'alice-2' }).attach(),
  };
  const alice = session(mesh, 'alice');
  const first = await alice.attach();
  for (const observer of Object.values(observers)) {
    await observer.until((f) => f.event === 'peer_joined' && f.eventData.pubkey === alice.pubkey, 'join of alice');
  }
  return { alice, first, observers, bob: observers.session, marks: mark(observers) };
}

/** What each observer has been told so far, to tell later what is new. */
const mark = (observers) => Object.fromEntries(Object.entries(observers).map(([k, o]) => [k, o.events.length]));

function assertEvents(observers, marks, expected) {
  for (const [name, observer] of Object.entries(observers)) {
    assert.deepEqual(observer.events.slice(marks[name]), expected, `what the ${name} saw`);
  }
}

/** The ack's fields and the promptness and order of what was kept. */
async function assertReturned(first, back, texts) {
  assert.equal(back.frames[0].type, 'hello_ack', 'hello_ack comes first');
  assert.equal(back.ack.presenceId, first.ack.presenceId);
  assert.equal(back.ack.reattached, true);
  await back.untilCount(isMessage, texts.length, 'message kept');
  await sleep(150);
  assert.deepEqual(back.texts, texts, 'in order, once each');
  const last = back.frames.findLastIndex(isMessage);
  if (last > 0) {
    const took = back.times[last] - back.times[0];
    assert.ok(took <= 50, `the last of ${texts.length} came ${took.toFixed(1)} ms after hello_ack`);
  }
}

async function returnsInTime(mesh, leave) {
  const { alice, first, observers, bob, marks } = await scene(mesh);
  await leave(first);
  for (const text of IN_ORDER) {
    const ack = await bob.message(alice.pubkey, text);
    assert.equal(ack.queued, true, ack.error);
  }
  await sleep(GRACE_MS / 4);
  const back = await alice.attach();
  await assertReturned(first, back, IN_ORDER);
  await sleep(PAST_GRACE_MS);
  assertEvents(observers, marks, []);
  await bob.message(alice.pubkey, 'still there');
  await back.untilText('still there');
}

async function returnsLate(mesh) {
  const { alice, first, observers, bob, marks } = await scene(mesh);
  const cut = performance.now();
  await first.rst();
  const ack = await bob.message(alice.pubkey, 'kept beyond the lease');
  assert.equal(ack.queued, true, ack.error);
  for (const [name, observer] of Object.entries(observers)) {
    const left = await observer.until(
      (f) => f.event === 'peer_left', `peer_left at the ${name}`, PAST_GRACE_MS + 1000);
    assert.deepEqual(left.eventData, { name: 'alice-s', pubkey: alice.pubkey });
    const after = observer.times[observer.frames.indexOf(left)] - cut;
    assert.ok(after >= GRACE_MS && after < GRACE_MS + 500, `${name} told after ${after.toFixed(0)} ms`);
  }
  assert.ok(!(await bob.peers()).some((p) => p.pubkey === alice.pubkey), 'gone from the list');
  const back = await alice.attach();
  assert.ok(!back.ack.reattached, 'a new lease');
  await back.untilText('kept beyond the lease');
  await sleep(300);
  assertEvents(observers, marks, ['peer_left alice-s', 'peer_joined alice-s']);
}

/** A frozen incumbent: it goes on writing because it has not read that it was replaced. */
async function takenOver(mesh) {
  const { alice, first, observers, bob, marks } = await scene(mesh);
  first.ws.pause();
  const second = await alice.attach();
  await assertReturned(first, second, []);
  first.write({ type: 'set_summary', summary: 'from a stale socket' });
  first.write({ type: 'join_group', name: 'stale' });
  first.write({ type: 'send', id: 'stale', targetSpec: bob.pubkey, priority: 'now', nonce: '', ciphertext: 'c3RhbGU=' });
  await sleep(200);
  const seen = (await bob.peers()).filter((p) => p.pubkey === alice.pubkey);
  assert.equal(seen.length, 1);
  assert.equal(seen[0].summary, null, 'a stale socket writes nothing');
  assert.deepEqual(seen[0].groups, []);
  assert.deepEqual(bob.texts, [], 'a stale socket sends nothing');
  first.ws.resume();
  assert.deepEqual(await first.closed, { code: 1000, reason: 'session_replaced' });
  await sleep(PAST_GRACE_MS);
  await assertAlive(second, bob);
  assertEvents(observers, marks, []);
}

/** No zombie (B25): it is listed, is reached, and is answered. */
async function assertAlive(peer, bob) {
  const own = (await peer.peers()).find((p) => p.pubkey === peer.pubkey);
  assert.equal(own?.lease, 'online');
  await bob.message(peer.pubkey, 'are you there');
  await peer.untilText('are you there');
  const ack = await peer.message(bob.pubkey, 'I am');
  assert.equal(ack.queued, true, ack.error);
  await bob.untilText('I am');
}

/** A relaunch closes the old socket and opens the new one at the same time, in either order. */
async function relaunched(mesh) {
  const { alice, first, observers, bob, marks } = await scene(mesh);
  let current = first;
  for (let round = 0; round < 10; round++) {
    const old = current;
    const leave = () => (round % 4 < 2 ? old.rst() : old.close());
    const socket = new Peer(mesh.url, alice);
    await socket.opened;
    if (round % 2 === 0) leave();
    socket.write(alice.hello());
    if (round % 2 === 1) leave();
    await socket.until((f) => f.type === 'hello_ack', `hello_ack of round ${round}`);
    assert.equal(socket.ack.presenceId, first.ack.presenceId);
    current = socket;
    await old.closed;
  }
  await sleep(PAST_GRACE_MS);
  await assertAlive(current, bob);
  assertEvents(observers, marks, []);
}

/** Away and back again and again, for longer than one grace: no old timer fires. */
async function flickers(mesh) {
  const { alice, first, observers, bob, marks } = await scene(mesh);
  let current = first;
  for (let round = 0; round < 8; round++) {
    await (round % 2 ? current.rst() : current.close());
    await sleep(GRACE_MS / 6);
    current = await alice.attach();
    assert.equal(current.ack.presenceId, first.ack.presenceId);
  }
  await sleep(PAST_GRACE_MS);
  await assertAlive(current, bob);
  assertEvents(observers, marks, []);
}

/** B26: whoever is gone before hello_ack leaves nothing behind. */
async function goneDuringHello(mesh) {
  const bob = await session(mesh, 'bob').attach();
  const ghosts = Array.from({ length: 30 }, (_, i) => session(mesh, 'alice', { name: `ghost-${i}` }));
  for (const [i, ghost] of ghosts.entries()) {
    const socket = await Peer.open(mesh.url, ghost);
    socket.write(ghost.hello());
    if (i % 3 === 0) socket.rst();
    else if (i % 3 === 1) socket.ws.terminate();
    else socket.close();
  }
  await eventually(async () => (await bob.peers()).length === 1, 'only bob is left', PAST_GRACE_MS + 2000);
  assert.equal(peersOf(mesh).length, 1);
  // Told when the end is durable, which may be after the list has shown it.
  const told = () => {
    const events = {};
    for (const f of bob.frames.filter(isPresence)) (events[f.eventData.pubkey] ??= []).push(f.event);
    return Object.values(events);
  };
  await eventually(() => told().every((events) => events.length === 2), 'every leave is told');
  for (const events of told()) assert.deepEqual(events, ['peer_joined', 'peer_left']);
  const ack = await bob.message(ghosts[0].pubkey, 'anyone');
  assert.ok(ack.queued === false || ack.deferred === true, 'a ghost is not present');
}

/** Two hosts with one session key: after two takeovers in a row the one that answers stays. */
async function contested(mesh) {
  const { alice, first, observers, bob, marks } = await scene(mesh);
  const second = await alice.attach();
  const third = await alice.attach();
  for (const replaced of [first, second]) {
    assert.deepEqual(await replaced.closed, { code: 1000, reason: 'session_replaced' });
  }
  const rival = await Peer.open(mesh.url, alice);
  rival.write(alice.hello());
  assert.deepEqual(await rival.closed, { code: 1008, reason: 'session_conflict' });
  assert.equal(rival.frames[0].code, 'session_conflict');
  await assertAlive(third, bob);
  third.ws.pause();
  const fourth = await alice.attach();
  assert.equal(fourth.ack.presenceId, first.ack.presenceId, 'an incumbent that does not answer is replaced');
  assertEvents(observers, marks, []);
}

/** In grace a session is listed, with its lease, and keeps what it said of itself. */
async function listedInGrace(mesh) {
  const { alice, first, bob } = await scene(mesh);
  first.write({ type: 'set_summary', summary: 'thinking' });
  first.write({ type: 'join_group', name: 'dev', role: 'lead' });
  await first.request({ type: 'set_profile', title: 'builder' });
  await first.rst();
  const away = await eventually(
    async () => (await bob.peers()).find((p) => p.pubkey === alice.pubkey && p.lease === 'grace'), 'grace in the list');
  assert.equal(away.summary, 'thinking');
  assert.deepEqual(away.groups, [{ name: 'dev', role: 'lead' }]);
  const row = peersOf(mesh).find((p) => p.pubkey === alice.pubkey);
  assert.equal(row.lease, 'grace');
  assert.ok(row.graceLeftMs > 0 && row.graceLeftMs <= GRACE_MS, `grace left: ${row.graceLeftMs}`);
  const back = await alice.attach({ ...alice.hello({ displayName: 'alice-renamed', cwd: '/elsewhere' }) });
  const own = (await back.peers()).find((p) => p.pubkey === alice.pubkey);
  assert.deepEqual(
    [own.lease, own.summary, own.displayName, own.cwd, own.profile.title],
    ['online', 'thinking', 'alice-renamed', '/elsewhere', 'builder']);
}

await run({
  'cut and back': (mesh) => returnsInTime(mesh, (peer) => peer.rst()),
  'closed and back': (mesh) => returnsInTime(mesh, (peer) => peer.close(1000)),
  'back too late': returnsLate,
  'taken over while online': takenOver,
  'relaunched': relaunched,
  'flickering': flickers,
  'gone during hello': goneDuringHello,
  'contested': contested,
  'listed in grace': listedInGrace,
});
