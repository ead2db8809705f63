// Connections that say `hello`: a member's control plane, throw-away commands, and impostors who
// claim what is another's.

import assert from 'node:assert/strict';
import { Identity, Peer, eventually, isMessage, sleep } from './mesh.mjs';
import { GRACE_MS, member, run, session, throwaway } from './scenario.mjs';

const PAST_GRACE_MS = GRACE_MS + 700;
const IN_ORDER = ['one', 'two', 'three', 'four', 'five'];

async function returnsInTime(mesh, leave) {
  const bob = await session(mesh, 'bob').attach();
  const alice = member(mesh, 'alice');
  const first = await alice.attach();
  await bob.until((f) => f.event === 'peer_joined', 'join of alice');
  await leave(first);
  for (const text of IN_ORDER) assert.equal((await bob.message(alice.pubkey, text)).queued, true);
  await sleep(GRACE_MS / 4);
  const back = await alice.attach();
  assert.equal(back.frames[0].type, 'hello_ack');
  assert.equal(back.ack.presenceId, first.ack.presenceId);
  assert.equal(back.ack.reattached, true);
  assert.equal(back.ack.restored, undefined, 'a reattach restores nothing: nothing was lost');
  await back.untilCount(isMessage, IN_ORDER.length, 'message kept');
  assert.deepEqual(back.texts, IN_ORDER);
  const last = back.frames.findLastIndex(isMessage);
  assert.ok(back.times[last] - back.times[0] <= 50, `took ${back.times[last] - back.times[0]} ms`);
  await sleep(PAST_GRACE_MS);
  assert.deepEqual(bob.events, ['peer_joined alice']);
}

async function takenOver(mesh) {
  const bob = await session(mesh, 'bob').attach();
  const alice = member(mesh, 'alice');
  const first = await alice.attach();
  const second = await alice.attach();
  assert.equal(second.ack.presenceId, first.ack.presenceId);
  assert.deepEqual(await first.closed, { code: 1000, reason: 'session_replaced' });
  await sleep(PAST_GRACE_MS);
  assert.deepEqual(bob.events, ['peer_joined alice']);
  await bob.message(alice.pubkey, 'still there');
  await second.untilText('still there');
}

async function returnsLate(mesh) {
  const bob = await session(mesh, 'bob').attach();
  const sibling = await session(mesh, 'alice').attach();
  const alice = member(mesh, 'alice');
  await (await alice.attach()).rst();
  await bob.until((f) => f.event === 'peer_left', 'peer_left', PAST_GRACE_MS + 1000);
  const back = await alice.attach();
  assert.ok(!back.ack.reattached);
  assert.equal(back.ack.restored, true, 'its saved state is announced');
  await sleep(300);
  assert.deepEqual(bob.events.filter((e) => e.endsWith(' alice')),
    ['peer_joined alice', 'peer_left alice', 'peer_returned alice']);
  assert.deepEqual(sibling.events, [], 'its own member is told neither join nor leave of a control plane');
}

/** B3: a hello may claim any session key, and gets nothing by it. */
async function impostor(mesh) {
  const bob = await session(mesh, 'bob').attach();
  const alice = session(mesh, 'alice');
  const claim = () => claimed(mesh, alice);

  const early = await claim();
  const first = await alice.attach();
  if (early) assert.notEqual(early.ack.presenceId, first.ack.presenceId, 'claimed before its owner came');
  await bob.message(alice.pubkey, 'while online');
  await first.untilText('while online');
  first.write({ type: 'client_ack', brokerMessageId: first.frames.find(isMessage).messageId });

  await first.rst();
  await bob.message(alice.pubkey, 'while away');
  const late = await claim();
  await bob.message(alice.pubkey, 'while claimed');
  await sleep(300);
  const back = await alice.attach();
  assert.equal(back.ack.presenceId, first.ack.presenceId, 'the owner is back in its own lease');
  assert.equal(back.ack.reattached, true);
  await back.untilText('while claimed');
  await bob.message(alice.pubkey, 'afterwards');
  await back.untilText('afterwards');
  assert.deepEqual(back.texts, ['while away', 'while claimed', 'afterwards']);
  for (const thief of [early, late].filter(Boolean)) {
    assert.notEqual(thief.ack.presenceId, first.ack.presenceId);
    assert.deepEqual(thief.texts, [], 'nothing of hers reaches an impostor');
  }
  await sleep(PAST_GRACE_MS);
  assert.ok((await bob.peers()).some((p) => p.pubkey === alice.pubkey && p.lease === 'online' && p.peerRole === 'session'));
}

/** Carol says hello with Alice's session key: refused (null), or a presence of her own. */
async function claimed(mesh, victim) {
  const thief = new Identity(mesh, mesh.members.carol, 'throwaway', { name: 'thief', sessionKey: victim.sessionKey });
  const socket = await Peer.open(mesh.url, thief);
  socket.write(thief.hello());
  await socket.until((f) => f.type === 'hello_ack' || f.type === 'error', 'an answer to the claim');
  return socket.ack ? socket : null;
}

/** B2: a session id is nobody's property beyond one member, role and kind. */
async function sameSessionId(mesh) {
  const sessionId = 'one-for-all';
  const alice = session(mesh, 'alice', { sessionId });
  const first = await alice.attach();
  const others = [
    session(mesh, 'carol', { sessionId }), member(mesh, 'carol', { sessionId }), throwaway(mesh, 'carol', { sessionId }),
    member(mesh, 'alice', { sessionId }), throwaway(mesh, 'alice', { sessionId }),
  ];
  const peers = [];
  for (const other of others) peers.push(await other.attach());
  await sleep(200);
  assert.equal((await first.peers()).length, 6);
  for (const peer of [first, ...peers]) assert.equal(peer.end, undefined, 'nobody was evicted');
  await first.rst();
  const back = await alice.attach();
  assert.equal(back.ack.presenceId, first.ack.presenceId);
}

/** Within one member and kind, a session id taken up under a new key ends the old lease. */
async function rekeyed(mesh) {
  const bob = await session(mesh, 'bob').attach();
  const sessionId = 'resumed';
  const first = await session(mesh, 'alice', { sessionId }).attach();
  const second = await session(mesh, 'alice', { sessionId }).attach();
  assert.deepEqual(await first.closed, { code: 1000, reason: 'session_replaced' });
  assert.notEqual(second.ack.presenceId, first.ack.presenceId);
  await sleep(PAST_GRACE_MS);
  assert.deepEqual(bob.events.toSorted(), ['peer_joined alice-s', 'peer_joined alice-s', 'peer_left alice-s']);
  const left = bob.frames.find((f) => f.event === 'peer_left');
  assert.equal(left.eventData.pubkey, first.pubkey);
}

/** A one-shot command leaves no ghost, and what it said before it closed counts. */
async function throwawayCloses(mesh) {
  const bob = await session(mesh, 'bob').attach();
  const command = await throwaway(mesh, 'alice').attach();
  command.write({
    type: 'send', id: 'x', targetSpec: bob.pubkey, priority: 'now', nonce: '', ciphertext: 'bGFzdCB3b3Jkcw==',
  });
  const closing = performance.now();
  await command.close();
  const left = await bob.until((f) => f.event === 'peer_left', 'peer_left', 1000);
  assert.ok(bob.times[bob.frames.indexOf(left)] - closing < 500);
  await bob.untilText('last words');
  assert.deepEqual(bob.events, ['peer_joined alice-cli', 'peer_left alice-cli']);
  await sleep(PAST_GRACE_MS);
  assert.equal(bob.events.length, 2, 'exactly one leave');
}

/** The same connection, cut, has its grace like any other. */
async function throwawayCut(mesh) {
  const bob = await session(mesh, 'bob').attach();
  const alice = throwaway(mesh, 'alice');
  const first = await alice.attach();
  await first.rst();
  await eventually(async () => (await bob.peers()).some((p) => p.lease === 'grace'), 'grace');
  const back = await alice.attach();
  assert.equal(back.ack.presenceId, first.ack.presenceId);
  await back.rst();
  await bob.until((f) => f.event === 'peer_left', 'peer_left', PAST_GRACE_MS + 1000);
  assert.deepEqual(bob.events, ['peer_joined alice-cli', 'peer_left alice-cli']);
}

await run({
  'cut and back': (mesh) => returnsInTime(mesh, (peer) => peer.rst()),
  'closed and back': (mesh) => returnsInTime(mesh, (peer) => peer.close(1000)),
  'back too late': returnsLate,
  'taken over while online': takenOver,
  'impostor': impostor,
  'same session id': sameSessionId,
  'rekeyed': rekeyed,
  'throw-away closes': throwawayCloses,
  'throw-away cut': throwawayCut,
});
