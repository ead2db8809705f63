// Sending: whom a target reaches, in what shape and order, what is refused and how, what is kept
// for whom, and what confirms it.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { Peer, eventually, isMessage, sleep } from './mesh.mjs';
import { GRACE_MS, holdfast, member, run, session, throwaway } from './scenario.mjs';

const MESSAGE_ID = /^[0-9A-Za-z]{32}$/;
const ISO_MS = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
const NOBODY = 'no connected peer for target (not online, or targetSpec is your own key without another session)';
/** Long enough for a push that must not come to have come. */
const QUIET_MS = 250;

const shape = (frame) => Object.keys(frame).toSorted();

async function direct(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const sibling = await session(mesh, 'bob', { name: 'bob-2' }).attach();
  const bob = await session(mesh, 'bob').attach();
  const ack = await alice.message(bob.pubkey, 'hello bob', { request_fingerprint: 'ab'.repeat(32) });
  assert.deepEqual(shape(ack), ['id', 'messageId', 'queued', 'type']);
  assert.match(ack.messageId, MESSAGE_ID);
  const push = await bob.untilText('hello bob');
  assert.match(push.createdAt, ISO_MS);
  const { createdAt: _, senderMemberId, senderMemberPubkey, ...rest } = push;
  assert.deepEqual(rest, {
    type: 'push', messageId: ack.messageId, meshId: mesh.meshId, senderPubkey: alice.pubkey, senderName: 'alice-s',
    priority: 'now', nonce: 'bm9uY2U=', ciphertext: Buffer.from('hello bob').toString('base64'),
    client_message_id: ack.id, request_fingerprint: 'ab'.repeat(32),
  });
  assert.ok([undefined, mesh.members.alice.memberId].includes(senderMemberId));
  assert.ok([undefined, mesh.members.alice.pubkey].includes(senderMemberPubkey));
  await sleep(QUIET_MS);
  assert.deepEqual([alice.texts, sibling.texts], [[], []], 'nobody else hears it');

  await bob.rst();
  await alice.message(bob.pubkey, 'kept');
  const back = await bob.identity.attach();
  assert.equal((await back.untilText('kept')).senderName, 'alice-s', 'also a drained message names its sender');
}

/** A member key reaches exactly one of the member's sessions. */
async function byMemberKey(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const older = await session(mesh, 'bob', { name: 'bob-older' }).attach();
  const newer = await session(mesh, 'bob', { name: 'bob-newer' }).attach();
  const key = mesh.members.bob.pubkey;
  await alice.message(key, 'latest session');
  await newer.untilText('latest session');
  const plane = await member(mesh, 'bob').attach();
  await alice.message(key, 'control plane first');
  await plane.untilText('control plane first');
  await older.message(key, 'among ourselves');
  await newer.untilText('among ourselves');
  await sleep(QUIET_MS);
  assert.deepEqual([older.texts, newer.texts, plane.texts],
    [[], ['latest session', 'among ourselves'], ['control plane first']]);
  assert.deepEqual(shape(plane.frames.find(isMessage)).includes('senderMemberPubkey') &&
    plane.frames.find(isMessage).senderMemberPubkey === key, false, 'a daemon drops what claims to be its own');

  for (const peer of [newer, plane]) peer.write({ type: 'client_ack', brokerMessageId: peer.frames.findLast(isMessage).messageId });
  for (const peer of [older, newer, plane]) await peer.rst();
  assert.equal((await alice.message(key, 'whoever comes first')).queued, true);
  const first = await older.identity.attach();
  await first.untilText('whoever comes first');
}

async function refusals(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const bob = await session(mesh, 'bob').attach();
  const refused = (id, error) => ({ type: 'ack', id, messageId: '', queued: false, error });
  for (const target of ['f'.repeat(64), 'nobody', 'bob-s', bob.pubkey.slice(0, 12), alice.pubkey, mesh.members.alice.pubkey, bob.pubkey.toUpperCase()]) {
    assert.deepEqual(await alice.message(target, 'x', { id: `to-${target}` }), refused(`to-${target}`, NOBODY));
  }
  const nonce = 'bm9uY2U=';
  const over = 65_536 - nonce.length - bob.pubkey.length + 1;
  const big = (size, id) => alice.message(bob.pubkey, '', { id, ciphertext: 'A'.repeat(size) });
  assert.deepEqual(await big(over, 'big'), refused('big', 'payload too large: 65537 bytes > MAX_MESSAGE_BYTES=65536'));
  assert.equal((await big(over - 1, 'fits')).queued, true);

  const bad = { type: 'send', nonce, ciphertext: 'QQ==' };
  for (const [id, frame] of Object.entries({
    'no priority': { ...bad, targetSpec: bob.pubkey },
    'bad priority': { ...bad, targetSpec: bob.pubkey, priority: 'urgent' },
    'no target': { ...bad, priority: 'now' },
    'target not text': { ...bad, priority: 'now', targetSpec: 7 },
  })) {
    alice.write({ ...frame, id });
    const ack = await alice.until((f) => f.type === 'ack' && f.id === id, `ack of ${id}`);
    assert.deepEqual([ack.queued, ack.messageId, typeof ack.error], [false, '', 'string'], id);
  }
  await sleep(QUIET_MS);
  assert.equal(bob.frames.filter(isMessage).length, 1, 'only what fitted');
}

async function broadcast(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const sibling = await session(mesh, 'alice', { name: 'alice-2' }).attach();
  const bob = await session(mesh, 'bob').attach();
  const carol = await session(mesh, 'carol').attach();
  const hidden = await session(mesh, 'carol', { name: 'hidden' }).attach();
  await hidden.request({ type: 'set_visible', visible: false });
  bob.write({ type: 'set_status', status: 'dnd' });
  for (const [target, text] of [['*', 'to everyone'], ['@all', 'to all']]) {
    const ack = await alice.message(target, text, { priority: 'low' });
    assert.deepEqual(shape(ack), ['id', 'messageId', 'queued', 'type']);
    const { createdAt, ...push } = await bob.untilText(text);
    assert.match(createdAt, ISO_MS);
    assert.deepEqual(push, {
      type: 'push', messageId: ack.messageId, meshId: mesh.meshId, senderPubkey: alice.pubkey,
      senderMemberPubkey: mesh.members.alice.pubkey, senderMemberId: mesh.members.alice.memberId, senderName: 'alice-s',
      priority: 'low', nonce: 'bm9uY2U=', ciphertext: Buffer.from(text).toString('base64'),
    });
    await carol.untilText(text);
  }
  await sleep(QUIET_MS);
  assert.deepEqual([alice.texts, sibling.texts, hidden.texts], [[], [], []], 'not to its own member, not to the invisible');
}

/** A member of a/b hears @a and @a/b; a member of a does not hear @a/b. */
async function groups(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const deep = await session(mesh, 'bob', { groups: [{ name: 'dev/core' }] }).attach();
  const shallow = await session(mesh, 'carol').attach();
  shallow.write({ type: 'join_group', name: 'dev', role: 'lead' });
  await eventually(async () => (await alice.peers()).some((p) => p.groups.some((g) => g.role === 'lead')), 'carol in dev');
  for (const target of ['@dev', '@dev/core', '@dev/core/io', '@de', '@']) await alice.message(target, target);
  shallow.write({ type: 'leave_group', name: 'dev' });
  await eventually(async () => (await alice.peers()).every((p) => p.groups.every((g) => g.role !== 'lead')), 'carol left dev');
  await alice.message('@dev', 'after leaving');
  await deep.untilText('after leaving');
  await sleep(QUIET_MS);
  assert.deepEqual(deep.texts, ['@dev', '@dev/core', 'after leaving']);
  assert.deepEqual(shallow.texts, ['@dev']);
  shallow.write({ type: 'join_group', name: "o'brien') OR 1=1 --" });
  await eventually(async () => (await alice.peers()).some((p) => p.groups.some((g) => g.name.startsWith("o'"))), 'a quoted group');
  await alice.message("@o'brien') OR 1=1 --", 'a name is a name');
  await shallow.untilText('a name is a name');
  assert.equal((await shallow.request({ type: 'join_group', name: 7 })).code, 'invalid_argument');
}

async function grants(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const bob = await session(mesh, 'bob').attach();
  const carol = await session(mesh, 'carol').attach();
  const allow = (caps) => holdfast('member', 'grants', mesh.members.bob.memberId, '--peer', mesh.members.alice.pubkey, '--caps', caps);
  allow('broadcast');
  const blocked = await alice.message(bob.pubkey, 'dm');
  assert.equal(blocked.error, 'blocked by recipient grants (sender lacks dm capability)');
  assert.deepEqual([blocked.queued, blocked.messageId], [false, '']);
  await alice.message('*', 'broadcast');
  await bob.untilText('broadcast');
  allow('dm');
  await alice.message('*', 'only carol');
  await carol.untilText('only carol');
  await alice.message(bob.pubkey, 'dm again');
  await bob.untilText('dm again');
  assert.deepEqual(bob.texts, ['broadcast', 'dm again']);
  assert.equal((await carol.message(bob.pubkey, 'grants are per sender')).queued, true);
}

async function confirmed(mesh) {
  const alice = await session(mesh, 'alice').attach();
  let bob = await session(mesh, 'bob').attach();
  const send = async (text) => {
    const ack = await alice.message(bob.pubkey, text);
    assert.equal((await bob.untilText(text)).messageId, ack.messageId);
    return ack;
  };
  const again = async () => {
    await bob.rst();
    bob = await bob.identity.attach();
    await sleep(QUIET_MS);
    return bob.texts;
  };
  await send('never confirmed');
  assert.deepEqual(await again(), ['never confirmed'], 'redelivered');
  const first = bob.frames.find(isMessage);
  bob.write({ type: 'client_ack', brokerMessageId: first.messageId });
  const byClientId = await send('by client id');
  const unacked = await send('unconfirmed');
  bob.write({ type: 'client_ack', clientMessageId: byClientId.id });
  await eventually(async () => (await status(alice, byClientId.messageId)).delivered, 'confirmed');
  assert.deepEqual(await again(), ['unconfirmed']);
  assert.equal(bob.frames.find(isMessage).messageId, unacked.messageId, 'the same id');
  await sleep(QUIET_MS);
  assert.deepEqual(bob.texts, ['unconfirmed'], 'never pushed again to a live socket');
}

const status = (peer, messageId) => peer.request({ type: 'message_status', messageId });

/** A client that never confirms is trusted once its pong has passed the message by. */
async function watermark(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const bob = await session(mesh, 'bob').attach();
  const ack = await alice.message(bob.pubkey, 'taken in by the socket');
  await bob.untilText('taken in by the socket');
  await eventually(async () => (await status(alice, ack.messageId)).delivered, 'the pong counts', 4000);
  await bob.rst();
  const back = await bob.identity.attach();
  await sleep(QUIET_MS);
  assert.deepEqual(back.texts, []);
}

/** A stranger's client_ack confirms nothing. */
async function foreignAck(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const bob = await session(mesh, 'bob').attach();
  const carol = await session(mesh, 'carol').attach();
  await bob.rst();
  const ack = await alice.message(bob.pubkey, 'not for carol');
  carol.write({ type: 'client_ack', brokerMessageId: ack.messageId, clientMessageId: ack.id });
  await carol.peers();
  assert.equal((await status(alice, ack.messageId)).delivered, false);
  await (await bob.identity.attach()).untilText('not for carol');
}

async function messageStatus(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const bob = await session(mesh, 'bob').attach();
  const { messageId } = await alice.message(bob.pubkey, 'm');
  await bob.untilText('m');
  const entry = (state) => [{ name: 'bob-s', pubkey: bob.pubkey, status: state }];
  const held = await status(alice, messageId);
  assert.deepEqual([held.type, held.targetSpec, held.delivered, held.deliveredAt, held.recipients],
    ['message_status_result', bob.pubkey, false, null, entry('held')]);
  bob.write({ type: 'client_ack', brokerMessageId: messageId });
  await eventually(async () => (await status(alice, messageId)).delivered, 'delivered');
  const done = await status(alice, messageId.slice(0, 10));
  assert.equal(done.messageId, messageId.slice(0, 10));
  assert.match(done.deliveredAt, ISO_MS);
  assert.deepEqual(done.recipients, entry('delivered'));
  const short = await status(alice, 'short');
  assert.deepEqual([short.type, short.code, short.message], ['error', 'invalid_argument', 'messageId must be 8-32 base62 chars (got 5)']);
  const none = await status(alice, 'zzzzzzzzzzzz');
  assert.deepEqual([none.code, none.message], ['not_found', 'message not found']);
  const group = await alice.message('*', 'all');
  const all = await status(alice, group.messageId);
  assert.deepEqual(all.recipients.map((r) => r.name).toSorted(), ['alice-s', 'bob-s']);
}

/** Acks, pushes and frames behind a hello keep their order. */
async function ordered(mesh) {
  const bob = await session(mesh, 'bob').attach();
  const alice = session(mesh, 'alice');
  const socket = await Peer.open(mesh.url, alice);
  socket.write(alice.hello());
  const texts = Array.from({ length: 100 }, (_, i) => `n${i}`);
  for (const text of texts) {
    socket.write({ type: 'send', id: text, targetSpec: bob.pubkey, priority: 'now', nonce: '', ciphertext: Buffer.from(text).toString('base64') });
  }
  await bob.untilText(texts.at(-1));
  await socket.until((f) => f.id === texts.at(-1), 'the last ack');
  assert.equal(socket.frames[0].type, 'hello_ack', 'what is pipelined behind a hello waits for it');
  assert.deepEqual(socket.frames.filter((f) => f.type === 'ack').map((f) => f.id), texts);
  assert.deepEqual(bob.texts, texts);
}

await run({
  'direct': direct, 'by member key': byMemberKey, 'refusals': refusals,
  'broadcast': broadcast, 'groups': groups, 'grants': grants, 'confirmed': confirmed,
  'watermark': watermark, 'foreign ack': foreignAck, 'message status': messageStatus,
  'ordered': ordered,
});
