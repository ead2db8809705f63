// The broker dies or stops and starts again on the same database: sessions return silently, and
// nothing that was acknowledged is lost. Each case has a broker to itself.

import assert from 'node:assert/strict';
import { eventually, isMessage, sleep } from './mesh.mjs';
import { GRACE_MS, ask, back, member, peersOf, run, session, stored } from './scenario.mjs';

const unheard = (peers) => peers.map((p) => p.events);

/** kill -9 between ack and push: the recipient is in grace. */
async function killedBeforePush(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const watcher = await member(mesh, 'carol').attach();
  const bob = await session(mesh, 'bob').attach();
  await bob.rst();
  const acks = [];
  for (let i = 0; i < 20; i++) acks.push(await alice.message(bob.pubkey, `m${i}`));
  await ask('kill');
  await ask('start');
  const [watching, sender, recipient] = [await back(watcher), await back(alice), await back(bob)];
  await recipient.untilCount(isMessage, acks.length, 'message');
  assert.deepEqual(recipient.frames.filter(isMessage).map((f) => f.messageId), acks.map((a) => a.messageId));
  assert.equal(recipient.frames.find(isMessage).senderName, 'alice-s');
  await sleep(GRACE_MS + 700);
  assert.deepEqual(unheard([watching, sender, recipient]), [[], [], []], 'nobody left, nobody came');
}

/** kill -9 between push and client_ack: the same message again, and nothing that was confirmed. */
async function killedBeforeAck(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const bob = await session(mesh, 'bob').attach();
  const confirmed = await alice.message(bob.pubkey, 'confirmed');
  await bob.untilText('confirmed');
  bob.write({ type: 'client_ack', brokerMessageId: confirmed.messageId });
  await eventually(
    async () => (await alice.request({ type: 'message_status', messageId: confirmed.messageId })).delivered, 'confirmation');
  await stored();
  const ack = await alice.message(bob.pubkey, 'pushed, not confirmed');
  await bob.untilText('pushed, not confirmed');
  await ask('kill');
  await ask('start');
  const recipient = await back(bob);
  const push = await recipient.untilText('pushed, not confirmed');
  assert.equal(push.messageId, ack.messageId);
  await sleep(500);
  assert.deepEqual(recipient.texts, ['pushed, not confirmed']);
}

/** Sends race with the kill: whatever was acknowledged arrives, once. */
async function killedAmidSends(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const bob = await session(mesh, 'bob').attach();
  await bob.rst();
  for (let i = 0; i < 500; i++) {
    alice.write({ type: 'send', id: `m${i}`, targetSpec: bob.pubkey, priority: 'now', nonce: '', ciphertext: 'eA==' });
  }
  await alice.until((f) => f.type === 'ack', 'the first ack');
  await ask('kill');
  await alice.closed;
  const acked = alice.frames.filter((f) => f.type === 'ack' && f.queued).map((f) => f.messageId);
  await ask('start');
  const recipient = await back(bob);
  await recipient.untilCount(isMessage, acked.length, 'message');
  await sleep(300);
  const got = recipient.frames.filter(isMessage).map((f) => f.messageId);
  assert.deepEqual(got.slice(0, acked.length), acked, 'acknowledged ones, in order');
  assert.equal(new Set(got).size, got.length);
  return `${acked.length} acknowledged, ${got.length} arrived`;
}

/** A stop closes sockets 1001, exits 0, and is not noticed by those who return. */
async function stopped(mesh) {
  const watcher = await member(mesh, 'carol').attach();
  const alice = await session(mesh, 'alice').attach();
  const bob = await session(mesh, 'bob').attach();
  const missing = await session(mesh, 'bob', { name: 'missing' }).attach();
  const away = await session(mesh, 'alice', { name: 'away' }).attach();
  alice.write({ type: 'set_summary', summary: 'kept' });
  alice.write({ type: 'join_group', name: 'dev' });
  await away.rst();
  await bob.message(away.pubkey, 'over the restart');
  assert.equal(await ask('term'), '0', 'exit code');
  for (const peer of [watcher, alice, bob]) assert.deepEqual(await peer.closed, { code: 1001, reason: 'shutting down' });
  await ask('start');
  assert.equal(peersOf(mesh).length, 5, 'leases outlive the process');
  const started = performance.now();
  const peers = [await back(watcher), await back(alice), await back(bob), await back(away)];
  await peers[3].untilText('over the restart');
  const own = (await peers[2].peers()).find((p) => p.pubkey === alice.pubkey);
  assert.deepEqual([own.summary, own.groups], ['kept', [{ name: 'dev' }]]);
  for (const peer of peers.slice(0, 2)) {
    const left = await peer.until((f) => f.event === 'peer_left', 'leave of the missing', GRACE_MS + 2000);
    assert.equal(left.eventData.pubkey, missing.pubkey);
  }
  assert.ok(performance.now() - started > GRACE_MS - 1000, 'only after its grace');
  await sleep(500);
  assert.deepEqual(peers[0].events, ['peer_left missing'], 'exactly one leave');
}

/** The leave of a session that ran out of grace is told once, also if the broker dies about then. */
async function killedAtExpiry(mesh) {
  const watcher = await session(mesh, 'carol').attach();
  const alice = await session(mesh, 'alice').attach();
  await alice.rst();
  await watcher.until((f) => f.event === 'peer_left', 'peer_left', GRACE_MS + 2000);
  await stored();
  await ask('kill');
  await ask('start');
  const watching = await back(watcher);
  const again = await alice.identity.attach();
  assert.ok(!again.ack.reattached);
  await watching.until((f) => f.event === 'peer_joined', 'a new join');
  await sleep(500);
  assert.deepEqual(watching.events, ['peer_joined alice-s']);
}

// One at a time, by name: each stops the broker under all others.
await run({
  'killed before push': killedBeforePush,
  'killed before ack': killedBeforeAck,
  'killed amid sends': killedAmidSends,
  'killed at expiry': killedAtExpiry,
  stopped,
});
