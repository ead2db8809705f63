// How a session ends its lease, or says how long it is to last; and hellos that are played back.

import assert from 'node:assert/strict';
import { Peer, isPresence, sleep } from './mesh.mjs';
import { GRACE_MS, member, peersOf, run, session, throwaway, world } from './scenario.mjs';

/** "At once": far less than any grace, with a crowded machine in mind. */
const AT_ONCE_MS = 500;
/** Beyond a lease: a tick, a commit, and a crowded machine. */
const LATE_MS = 700;
const GOODBYE = { code: 1000, reason: 'goodbye' };

const ofLeave = (pubkey) => (f) => isPresence(f) && f.event === 'peer_left' && f.eventData.pubkey === pubkey;
const leaves = (peer, pubkey) => peer.frames.filter(ofLeave(pubkey)).length;

async function goodbye(mesh) {
  const carol = await session(mesh, 'carol').attach();
  const others = [session(mesh, 'bob'), member(mesh, 'bob'), throwaway(mesh, 'bob', { name: 'command' })];
  for (const identity of others) {
    const peer = await identity.attach();
    await carol.until((f) => f.event?.startsWith('peer_') && f.event !== 'peer_left' && f.eventData.pubkey === identity.pubkey, 'its join');
    const said = performance.now();
    peer.write({ type: 'goodbye' });
    assert.deepEqual(await peer.closed, GOODBYE);
    const leave = await carol.until(ofLeave(identity.pubkey), 'peer_left', AT_ONCE_MS);
    const took = carol.times[carol.frames.indexOf(leave)] - said;
    assert.ok(took < AT_ONCE_MS, `told after ${took.toFixed(0)} ms`);
    assert.ok(!(await carol.peers()).some((p) => p.pubkey === identity.pubkey), 'not listed');
  }
  const back = await others[0].attach();
  assert.equal(back.ack.reattached, false, 'a new lease');
  await sleep(GRACE_MS + LATE_MS);
  assert.deepEqual(others.map((identity) => leaves(carol, identity.pubkey)), [1, 1, 1], 'exactly one each');
  assert.equal(peersOf(mesh).length, 2);
}

/** Nothing comes after a goodbye: what is pipelined behind it is not done, what came before is. */
async function lastWords(mesh) {
  const carol = await session(mesh, 'carol').attach();
  const bob = await session(mesh, 'bob').attach();
  const say = (text) => bob.write({
    type: 'send', id: text, targetSpec: '*', priority: 'now', nonce: '', ciphertext: Buffer.from(text).toString('base64'),
  });
  say('before');
  bob.write({ type: 'goodbye' });
  say('behind');
  bob.write({ type: 'goodbye' });
  assert.deepEqual(await bob.closed, GOODBYE);
  await carol.until(ofLeave(bob.pubkey), 'peer_left', AT_ONCE_MS);
  await sleep(AT_ONCE_MS);
  assert.deepEqual(carol.texts, ['before']);
  assert.equal(leaves(carol, bob.pubkey), 1);
}

/** The socket it comes on was replaced, or has not said hello. */
async function stale(mesh) {
  const carol = await session(mesh, 'carol').attach();
  const bob = session(mesh, 'bob');
  const first = await bob.attach();
  first.ws.pause(); // it has not seen that it was replaced
  const second = await bob.attach();
  first.write({ type: 'goodbye' });
  const stranger = await Peer.open(mesh.url);
  stranger.write({ type: 'goodbye' });
  await stranger.until((f) => f.code === 'no_hello', 'no_hello');
  first.ws.resume();
  assert.deepEqual(await first.closed, { code: 1000, reason: 'session_replaced' });
  await carol.message(bob.pubkey, 'still there');
  await second.untilText('still there');
  await sleep(GRACE_MS + LATE_MS);
  assert.deepEqual([second.end, leaves(carol, bob.pubkey)], [undefined, 0]);
}

/** What is asked for, and what hello_ack says that is given. */
async function clamped(mesh) {
  const bob = session(mesh, 'bob');
  const asked = [[1500, 1500], [1000, 1000], [999, 1000], [0, 1000], [-5, 1000], [1e300, world.maxGraceMs],
    [world.maxGraceMs, world.maxGraceMs], [world.maxGraceMs + 1, world.maxGraceMs], [2500.9, 2500], [undefined, GRACE_MS]];
  for (const identity of [bob, member(mesh, 'carol')]) {
    for (const [leaseMs, given] of asked) {
      const peer = await identity.attach(identity.hello({ leaseMs }));
      assert.equal(peer.ack.leaseTtlMs, given, `leaseMs ${leaseMs}`);
      await peer.rst();
    }
  }
}

/** It lasts as long as hello_ack said, by the clock of somebody who watches. */
async function lasts(mesh) {
  const carol = await session(mesh, 'carol').attach();
  const wanted = [1500, undefined, GRACE_MS + 2000];
  const gone = await Promise.all(wanted.map(async (leaseMs) => {
    const identity = session(mesh, 'bob', { name: `for ${leaseMs}` });
    const peer = await identity.attach(identity.hello({ leaseMs }));
    const cut = performance.now();
    await peer.rst();
    const lease = leaseMs ?? GRACE_MS;
    const leave = await carol.until(ofLeave(identity.pubkey), 'peer_left', lease + 2 * LATE_MS);
    const after = carol.times[carol.frames.indexOf(leave)] - cut;
    assert.ok(after >= lease && after < lease + LATE_MS, `asked for ${leaseMs}, left after ${after.toFixed(0)} ms`);
    return after;
  }));
  // The last hello decides.
  const identity = session(mesh, 'bob', { name: 'changed its mind' });
  await (await identity.attach(identity.hello({ leaseMs: world.maxGraceMs }))).rst();
  const peer = await identity.attach(identity.hello({ leaseMs: 1000 }));
  assert.equal(peer.ack.reattached, true);
  await peer.rst();
  await carol.until(ofLeave(identity.pubkey), 'peer_left', 1000 + 2 * LATE_MS);
  return gone.map((ms) => ms.toFixed(0)).join(', ');
}

async function replayed(mesh) {
  const carol = await session(mesh, 'carol').attach();
  for (const identity of [session(mesh, 'bob'), member(mesh, 'bob'), throwaway(mesh, 'bob')]) {
    const hello = identity.hello();
    const first = await identity.attach(hello);
    await sleep(10);
    for (const left of [false, true]) {
      if (left) await first.rst();
      const thief = await Peer.open(mesh.url, identity);
      thief.write(hello);
      assert.deepEqual(await thief.closed, { code: 1008, reason: 'replayed' });
      const [{ type, code, message }] = thief.frames;
      assert.deepEqual([type, code, message], ['error', 'replayed', 'hello rejected: replayed']);
      assert.equal(thief.frames.length, 1);
      assert.equal(first.end === undefined, !left, 'the session is not touched');
    }
    assert.equal((await identity.attach()).ack.reattached, true);
  }
  assert.equal(carol.events.filter((e) => e.startsWith('peer_left')).length, 0);
}

await run({ goodbye, 'last words': lastWords, stale, clamped, lasts, replayed });
