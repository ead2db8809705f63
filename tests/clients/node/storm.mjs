// All sessions are cut and come back at once, messages flowing: nobody is told, nothing is lost.
// The sessions are spread over all meshes given, so that with two loops both take part.

import assert from 'node:assert/strict';
import { Peer, eventually, isMessage, isPresence, sleep } from './mesh.mjs';
import { GRACE_MS, LONG, metric, session, world } from './scenario.mjs';

const SESSIONS = 1000;
const GAPS_MS = [0, 500, 2000];
/** Sockets opened at a time while the fleet is built; the storms themselves are not held back. */
const BUILD_BATCH = 50;
const WATCH_MS = GRACE_MS + (LONG ? 30_000 : 5000);

const names = ['alice', 'carol'];
const fleet = Array.from({ length: SESSIONS }, (_, i) => ({
  identity: session(world.meshes[i % world.meshes.length], names[i % names.length], { name: `s${i}` }),
  peer: null,
  received: new Map(),
  expected: new Set(),
}));
const watchers = [];
for (const mesh of world.meshes) watchers.push(await session(mesh, 'bob', { name: 'watcher' }).attach());
const senders = new Map();
for (const mesh of world.meshes) senders.set(mesh, await session(mesh, 'bob', { name: 'sender' }).attach());

/** Says the prepared hello and confirms every message, as the daemon does. */
async function attach(unit, hello = unit.identity.hello()) {
  const peer = new Peer(unit.identity.mesh.url, unit.identity);
  peer.ws.on('message', (data) => {
    const frame = JSON.parse(data);
    if (!isMessage(frame)) return;
    unit.received.set(frame.messageId, (unit.received.get(frame.messageId) ?? 0) + 1);
    peer.write({ type: 'client_ack', brokerMessageId: frame.messageId });
  });
  await peer.opened;
  peer.write(hello);
  await peer.until((f) => f.type === 'hello_ack' || f.type === 'error', `hello_ack of ${unit.identity.fields.displayName}`);
  assert.ok(peer.ack, `refused: ${JSON.stringify(peer.frames[0])}`);
  if (unit.presenceId) {
    assert.equal(peer.ack.presenceId, unit.presenceId);
    assert.equal(peer.ack.reattached, true);
  }
  unit.presenceId = peer.ack.presenceId;
  unit.peer = peer;
}

async function sendToAll(text) {
  await Promise.all(fleet.map(async (unit) => {
    const ack = await senders.get(unit.identity.mesh).message(unit.identity.pubkey, text);
    assert.equal(ack.queued, true, ack.error);
    unit.expected.add(ack.messageId);
  }));
}

async function storm(gapMs) {
  const hellos = fleet.map((unit) => unit.identity.hello());
  const cut = performance.now();
  for (const unit of fleet) unit.peer.rst();
  const sending = sendToAll(`gap ${gapMs}`);
  await sleep(Math.max(0, gapMs - (performance.now() - cut)));
  const back = performance.now();
  await Promise.all(fleet.map((unit, i) => attach(unit, hellos[i])));
  const took = performance.now() - back;
  await sending;
  await sleep(GRACE_MS + 500);
  console.log(`gap ${gapMs} ms: ${SESSIONS} back in ${took.toFixed(0)} ms`);
}

for (let i = 0; i < SESSIONS; i += BUILD_BATCH) {
  await Promise.all(fleet.slice(i, i + BUILD_BATCH).map((unit) => attach(unit)));
}
// Joins are told once their rows are on disk: the storms begin when everybody has heard of everybody.
for (const [i, watcher] of watchers.entries()) {
  const others = 1 + fleet.filter((unit) => unit.identity.mesh === world.meshes[i]).length;
  await eventually(() => watcher.events.length >= others, `${others} joins`);
}
const marks = watchers.map((w) => w.frames.filter(isPresence).length);
for (const gap of GAPS_MS) await storm(gap);
await sleep(WATCH_MS);

for (const [i, watcher] of watchers.entries()) {
  assert.equal(watcher.end, undefined, 'the watcher stayed');
  assert.deepEqual(watcher.events.slice(marks[i]), [], 'peer events during the storms');
}
for (const unit of fleet) {
  assert.equal(unit.expected.size, GAPS_MS.length);
  assert.deepEqual([...unit.received.keys()].toSorted(), [...unit.expected].toSorted(),
    `messages of ${unit.identity.fields.displayName}`);
  assert.ok([...unit.received.values()].every((n) => n === 1), 'each once');
}
assert.equal(await metric('broker_connections_active'), SESSIONS + 2 * world.meshes.length);
console.log(`ok storm of ${SESSIONS} sessions, ${GAPS_MS.length} times, ${SESSIONS * GAPS_MS.length} messages`);
process.exit(0);
