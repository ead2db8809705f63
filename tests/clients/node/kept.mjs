// Mail for those who are not there, and sends that are made again.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { eventually, isMessage, sleep } from './mesh.mjs';
import { GRACE_MS, ask, back, inGrace, member, metric, run, session } from './scenario.mjs';

/** Long enough for a push that must not come to have come. */
const QUIET_MS = 300;
/** Pairs of equal sends under way at once. */
const PAIRS = 100;
const NOBODY = /^no connected peer/;

const left = (peer, pubkey) => peer.until((f) => f.event === 'peer_left' && f.eventData.pubkey === pubkey, 'peer_left', GRACE_MS + 2000);
const pushes = (peer) => peer.frames.filter(isMessage);

/** For a session that left, for one that ran out of grace, for a member of whom nobody is there. */
async function deferred(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const [bob, carol] = [await session(mesh, 'bob').attach(), await session(mesh, 'carol').attach()];
  assert.match((await alice.message(session(mesh, 'bob').pubkey, 'to a key never seen')).error, NOBODY);
  bob.write({ type: 'goodbye' });
  await left(alice, bob.pubkey);
  await carol.rst();
  assert.equal((await alice.message(carol.pubkey, 'in grace')).deferred, undefined, 'it is still present');
  await left(alice, carol.pubkey);
  const acks = [];
  for (const [key, text] of [[bob.pubkey, 'one'], [mesh.members.bob.pubkey, 'two'], [carol.pubkey, 'three'], [bob.pubkey, 'four']]) {
    const ack = await alice.message(key, text);
    assert.deepEqual([ack.queued, ack.deferred], [true, true], text);
    acks.push(ack.messageId);
  }
  const { delivered } = await alice.request({ type: 'message_status', messageId: acks[0] });
  assert.equal(delivered, false);
  const again = await bob.identity.attach();
  assert.equal(again.frames[0].type, 'hello_ack');
  assert.equal(again.ack.reattached, false, 'its lease had ended');
  await again.untilText('four');
  assert.deepEqual(again.texts, ['one', 'two', 'four']);
  assert.deepEqual(pushes(again).map((f) => f.messageId), [acks[0], acks[1], acks[3]]);
  const other = await carol.identity.attach();
  await other.untilText('three');
  assert.deepEqual(other.texts, ['in grace', 'three']);
  await eventually(async () => (await alice.request({ type: 'message_status', messageId: acks[0] })).delivered, 'delivered', 4000);
  await again.rst();
  const third = await back(again);
  await sleep(QUIET_MS);
  assert.deepEqual(third.texts, [], 'once');
}

/** The control plane of a member gets what came for its member while nobody was there. */
async function deferredToAMember(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const ack = await alice.message(mesh.members.bob.pubkey, 'before it ever came');
  assert.deepEqual([ack.queued, ack.deferred], [true, true]);
  const own = await alice.message(mesh.members.alice.pubkey, 'to myself');
  assert.match(own.error, NOBODY);
  const plane = await member(mesh, 'bob').attach();
  assert.equal((await plane.untilText('before it ever came')).messageId, ack.messageId);
  const sessions = await session(mesh, 'bob').attach();
  await sleep(QUIET_MS);
  assert.deepEqual(sessions.texts, [], 'one of them');
}

/** By (member, client_message_id): whatever else the repeat says. */
async function again(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const sibling = await session(mesh, 'alice', { name: 'sibling' }).attach();
  const [bob, carol] = [await session(mesh, 'bob').attach(), await session(mesh, 'carol').attach()];
  const named = (peer, target, text, changes) =>
    peer.message(target, text, { id: randomUUID(), client_message_id: 'first', ...changes });
  const before = await metric('holdfast_sends_repeated_total').catch(() => 0);
  const first = await named(alice, bob.pubkey, 'said once');
  for (const [peer, text] of [[alice, 'said once'], [alice, 'said otherwise'], [sibling, 'said by another session']]) {
    const ack = await named(peer, bob.pubkey, text);
    assert.deepEqual({ ...ack, id: first.id }, first, text);
  }
  const foreign = await named(carol, bob.pubkey, 'said by another member');
  assert.notEqual(foreign.messageId, first.messageId);
  const broadcast = await named(alice, '*', 'to all', { client_message_id: 'to all' });
  assert.equal((await named(alice, '*', 'to all', { client_message_id: 'to all' })).messageId, broadcast.messageId);
  // One that was refused may be made again.
  const nobody = session(mesh, 'bob', { name: 'later' });
  assert.match((await named(alice, nobody.pubkey, 'too early', { client_message_id: 'later' })).error, NOBODY);
  const later = await nobody.attach();
  assert.equal((await named(alice, nobody.pubkey, 'in time', { client_message_id: 'later' })).queued, true);
  await later.untilText('in time');
  await sleep(QUIET_MS);
  assert.deepEqual(bob.texts, ['said once', 'said by another member', 'to all']);
  assert.deepEqual(carol.texts, ['to all']);
  assert.ok((await metric('holdfast_sends_repeated_total')) >= before + 4);
}

/** The repeat is made before the first is answered; also by two sockets at once. */
async function atOnce(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const sibling = await session(mesh, 'alice', { name: 'sibling' }).attach();
  const bob = await session(mesh, 'bob').attach();
  const acks = [];
  for (let i = 0; i < PAIRS; i++) {
    for (const peer of [alice, i % 2 ? alice : sibling]) {
      acks.push(peer.message(bob.pubkey, `pair ${i}`, { id: randomUUID(), client_message_id: `pair ${i}` }));
    }
  }
  const answers = await Promise.all(acks);
  for (const ack of answers) assert.equal(ack.queued, true, ack.error);
  for (let i = 0; i < PAIRS; i++) assert.equal(answers[2 * i].messageId, answers[2 * i + 1].messageId, `pair ${i}`);
  await bob.untilCount(isMessage, PAIRS, 'push');
  await sleep(QUIET_MS);
  assert.equal(bob.texts.length, PAIRS, 'one push each');
}

/** kill -9: deferred mail is there, and a send made again is known. */
async function killed(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const [bob, carol] = [await session(mesh, 'bob').attach(), await session(mesh, 'carol').attach()];
  carol.write({ type: 'goodbye' });
  await left(alice, carol.pubkey);
  await bob.rst();
  await inGrace(alice, bob.pubkey);
  const say = (peer, name, key) => peer.message(key, name, { id: randomUUID(), client_message_id: name });
  const first = [await say(alice, 'to bob', bob.pubkey), await say(alice, 'to carol', carol.pubkey), await say(alice, 'to all', '*')];
  assert.deepEqual(first.map((ack) => ack.deferred), [undefined, true, undefined]);
  await ask('kill');
  await ask('start');
  const sender = await back(alice);
  const second = [await say(sender, 'to bob', bob.pubkey), await say(sender, 'to carol', carol.pubkey), await say(sender, 'to all', '*')];
  assert.deepEqual(second.map((ack) => ack.messageId), first.map((ack) => ack.messageId));
  assert.deepEqual(second.map((ack) => ack.queued), [true, true, true]);
  const late = await sender.message(carol.pubkey, 'after the restart');
  assert.deepEqual([late.queued, late.deferred], [true, true], 'the key is still known');
  const [bobs, carols] = [await back(bob), await carol.identity.attach()];
  await bobs.untilText('to all');
  await carols.untilText('after the restart');
  await sleep(QUIET_MS);
  assert.deepEqual(bobs.texts, ['to bob', 'to all']);
  assert.deepEqual(carols.texts, ['to carol', 'after the restart'], 'what was said to all before it came is not for it');
  const ids = pushes(bobs).map((f) => f.messageId);
  assert.deepEqual(ids, [first[0].messageId, first[2].messageId]);
}

await run(
  { deferred, 'to a member': deferredToAMember, again, 'at once': atOnce },
  { killed },
);
