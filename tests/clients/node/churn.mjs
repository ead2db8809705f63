// Reconnects, kicks and dedups by the thousand: counters equal a recount and memory stays flat (B1).
// The mesh holds few sessions, so that one counter leaked per round would soon refuse everybody.

import assert from 'node:assert/strict';
import { eventually, isPresence } from './mesh.mjs';
import { ask, member, metric, peersOf, run, session, throwaway } from './scenario.mjs';

const RECONNECTS = 10_000;
const EVICTIONS = 1000;
/** Allowed between the first fifth and the end: about 500 bytes per reconnect would exceed it. */
const GROWTH_KIB = 4096;

async function recount(mesh, observer, expected) {
  await eventually(async () => (await observer.peers()).length === expected, `${expected} peers listed`);
  assert.equal(peersOf(mesh).length, expected, 'holdfast peers');
  assert.equal(await metric('broker_connections_active'), expected, 'broker_connections_active');
}

async function reconnects(mesh) {
  const bob = await session(mesh, 'bob').attach();
  const alice = session(mesh, 'alice');
  let peer = await alice.attach();
  const presenceId = peer.ack.presenceId;
  let early = 0;
  for (let round = 1; round <= RECONNECTS; round++) {
    await (round % 10 ? peer.rst() : peer.close());
    peer = await alice.attach();
    assert.equal(peer.ack.presenceId, presenceId);
    if (round === RECONNECTS / 5) early = Number(await ask('rss'));
  }
  const late = Number(await ask('rss'));
  assert.ok(late - early <= GROWTH_KIB, `resident memory went from ${early} to ${late} KiB`);
  assert.deepEqual(bob.events, ['peer_joined alice-s']);
  await recount(mesh, bob, 2);
  await peer.close();
  await bob.close();
  return `${RECONNECTS} reconnects, ${early} to ${late} KiB`;
}

async function evictions(mesh) {
  const admin = await session(mesh, 'alice').attach();
  const bob = session(mesh, 'bob');
  for (let round = 0; round < EVICTIONS; round++) {
    const peer = await bob.attach();
    const reply = await admin.request({ type: 'kick', target: 'bob-s' });
    assert.deepEqual(reply.affected, ['bob-s']);
    assert.deepEqual(await peer.closed, { code: 4001, reason: 'kicked' });
  }
  let last = null;
  for (let round = 0; round < EVICTIONS; round++) {
    const peer = await throwaway(mesh, 'carol', { sessionId: 'same' }).attach();
    if (last) assert.deepEqual(await last.closed, { code: 1000, reason: 'session_replaced' });
    last = peer;
  }
  await recount(mesh, admin, 2);
  await last.close();
  await recount(mesh, admin, 1);
  const count = (event) => admin.frames.filter((f) => isPresence(f) && f.event === event).length;
  assert.equal(count('peer_joined'), 2 * EVICTIONS);
  assert.equal(count('peer_left'), 2 * EVICTIONS, 'every join has its leave');
  assert.equal((await member(mesh, 'bob').attach()).end, undefined, 'and there is room');
}

// One at a time, by name: the gauge they check is the whole broker's.
await run({ reconnects, evictions });
