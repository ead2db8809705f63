// The wall clock of the broker is stepped by a day, both ways, while the clients' stays true. Leases
// run on another clock: nobody leaves early or late, and only new hellos are refused, for as long as
// the clock is off. The harness adds the verb
//
//   @clock SECONDS    how far the broker's wall clock is off from now on

import assert from 'node:assert/strict';
import { Peer, eventually, isMessage, sleep } from './mesh.mjs';
import { GRACE_MS, ask, member, run, session, throwaway } from './scenario.mjs';

const DAY_S = 86_400;
/** Beyond grace: a tick, and a slow machine. */
const LATE_MS = 1500;

async function step(seconds) {
  assert.equal(await ask(`clock ${seconds}`), 'ok');
}

/** The error of a hello and how its socket is closed. */
async function refusal(identity) {
  const peer = await Peer.open(identity.mesh.url, identity);
  peer.write(identity.hello());
  const error = await peer.until((f) => f.type === 'error' || f.type === 'hello_ack', 'an answer');
  assert.equal(error.type, 'error', 'a hello was accepted while the clock was off');
  assert.equal((await peer.closed).code, 1008);
  return error.code;
}

async function back(peer) {
  const again = await peer.identity.attach();
  assert.deepEqual([again.ack.reattached, again.ack.presenceId], [true, peer.ack.presenceId]);
  return again;
}

async function stepped(mesh, seconds) {
  const carol = await member(mesh, 'carol').attach();
  const alice = await session(mesh, 'alice').attach();
  let bob = await session(mesh, 'bob').attach();
  const gone = await session(mesh, 'bob', { name: 'gone' }).attach();
  const away = await session(mesh, 'alice', { name: 'away' }).attach();
  const left = performance.now();
  await gone.rst();
  await step(seconds);
  try {
    const aways = performance.now();
    await away.rst();
    await bob.message(away.pubkey, 'while the clock is off');
    await alice.message(bob.pubkey, 'online all the same');
    await bob.untilText('online all the same');
    assert.equal(await refusal(throwaway(mesh, 'alice')), 'timestamp_skew');
    assert.equal(await refusal(member(mesh, 'bob')), 'timestamp_skew');
    // The attestation is judged first: it has expired, or lasts too long.
    assert.equal(await refusal(session(mesh, 'bob')), seconds > 0 ? 'expired' : 'ttl_too_long');
    assert.ok(['expired', 'ttl_too_long'].includes(await refusal(away.identity)));
    const lease = (await carol.peers()).filter((p) => p.lease === 'grace').map((p) => p.displayName);
    assert.deepEqual(lease.toSorted(), ['away', 'gone'], 'in grace');
    // The clock stays off for a good part of both graces.
    await sleep(Math.max(0, aways + GRACE_MS - 1500 - performance.now()));
  } finally {
    await step(0);
  }
  const returned = await back(away);
  await returned.untilText('while the clock is off');
  const leave = await carol.until((f) => f.event === 'peer_left', 'the leave of gone', GRACE_MS + LATE_MS);
  assert.equal(leave.eventData.pubkey, gone.pubkey);
  const took = carol.times[carol.frames.indexOf(leave)] - left;
  assert.ok(took > GRACE_MS && took < GRACE_MS + LATE_MS, `left after ${took.toFixed(0)} ms`);
  await bob.rst();
  bob = await back(bob);
  await sleep(GRACE_MS + LATE_MS);
  // Who speaks before its row is durable is announced first, so joins have no order of their own.
  const joins = ['peer_joined alice-s', 'peer_joined away', 'peer_joined bob-s', 'peer_joined gone'];
  assert.deepEqual(carol.events.slice(0, 4).toSorted(), joins);
  assert.deepEqual(carol.events.slice(4), ['peer_left gone']);
  assert.deepEqual(alice.events.filter((e) => e.startsWith('peer_left')), ['peer_left gone']);
  assert.deepEqual([carol.end, alice.end, bob.end], [undefined, undefined, undefined]);
  return `gone left after ${took.toFixed(0)} ms of ${GRACE_MS}`;
}

/** The broker dies, and starts with a clock that is off; it is put right before the grace ends. */
async function restarted(mesh, seconds) {
  const carol = await member(mesh, 'carol').attach();
  const alice = await session(mesh, 'alice').attach();
  const bob = await session(mesh, 'bob').attach();
  const gone = await session(mesh, 'bob', { name: 'gone' }).attach();
  await gone.rst();
  await bob.rst();
  await eventually(async () => (await alice.peers()).filter((p) => p.lease === 'grace').length === 2, 'both in grace');
  const { messageId } = await alice.message(bob.pubkey, 'kept');
  await ask('kill');
  await step(seconds);
  await ask('start');
  const started = performance.now();
  await step(0);
  const [watching, sending, receiving] = [await back(carol), await back(alice), await back(bob)];
  assert.equal((await receiving.until(isMessage, 'the message')).messageId, messageId);
  const leave = await watching.until((f) => f.event === 'peer_left', 'the leave of gone', GRACE_MS + LATE_MS);
  assert.equal(leave.eventData.pubkey, gone.pubkey);
  const took = performance.now() - started;
  assert.ok(took > GRACE_MS - 1000, `left after only ${took.toFixed(0)} ms`);
  await sleep(500);
  assert.deepEqual([watching.events, sending.events], [['peer_left gone'], ['peer_left gone']]);
}

await run({
  'stepped on': (mesh) => stepped(mesh, DAY_S),
  'stepped back': (mesh) => stepped(mesh, -DAY_S),
  'restarted later': (mesh) => restarted(mesh, DAY_S),
  'restarted earlier': (mesh) => restarted(mesh, -DAY_S),
});
