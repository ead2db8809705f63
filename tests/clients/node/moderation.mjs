// kick, disconnect, ban, unban, list_bans: who may, whom it hits, how it ends, and one leave each.

import assert from 'node:assert/strict';
import { Peer, eventually, isPresence, sleep } from './mesh.mjs';
import { GRACE_MS, holdfast, member, run, session, throwaway } from './scenario.mjs';

const error = (reply) => [reply.type, reply.code, reply.message];
const leaves = (peer, pubkey) => peer.frames.filter((f) => isPresence(f) && f.event === 'peer_left' && f.eventData.pubkey === pubkey).length;

async function forbidden(mesh) {
  const bob = await session(mesh, 'bob').attach();
  const alice = await session(mesh, 'alice').attach();
  for (const [type, text] of [['kick', 'kicked'], ['disconnect', 'disconnected'], ['ban', 'ban'], ['unban', 'unban']]) {
    const reply = await bob.request({ type, target: 'alice-s' });
    assert.deepEqual(error(reply), ['error', 'forbidden', `only owner or admin can ${text}`]);
  }
  assert.equal(alice.end, undefined);
  assert.deepEqual((await bob.request({ type: 'list_bans' })).bans, [], 'anybody may ask');
}

async function kick(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const bob = await session(mesh, 'bob').attach();
  const plane = await member(mesh, 'bob').attach();
  const carol = await session(mesh, 'carol').attach();
  const gone = await session(mesh, 'carol', { name: 'in grace' }).attach();
  const reply = await alice.request({ type: 'kick', target: 'carol-s' });
  assert.deepEqual(reply, { type: 'kick_ack', kicked: ['carol-s'], affected: ['carol-s'], _reqId: reply._reqId });
  assert.deepEqual(await carol.closed, { code: 4001, reason: 'kicked' });
  for (const peer of [alice, bob, plane]) {
    await peer.until((f) => f.event === 'peer_left' && f.eventData.pubkey === carol.pubkey, 'peer_left', 1000);
  }
  const back = await carol.identity.attach();
  assert.notEqual(back.ack.presenceId, carol.ack.presenceId, 'a kick ends the lease');
  assert.ok(!back.ack.reattached);

  assert.deepEqual((await alice.request({ type: 'kick', target: 'bob' })).skipped_control_plane, ['bob']);
  await gone.rst();
  assert.deepEqual((await alice.request({ type: 'kick', target: 'in grace' })).affected, ['in grace'], 'also without a socket');
  assert.deepEqual((await alice.request({ type: 'kick', stale: 600_000 })).affected, []);
  assert.deepEqual((await alice.request({ type: 'kick' })).affected, []);
  assert.deepEqual((await alice.request({ type: 'kick', target: mesh.members.carol.pubkey.slice(0, 12) })).affected, ['carol-s'], 'by prefix');
  const all = await alice.request({ type: 'kick', all: true, target: 'nobody' });
  assert.deepEqual([all.affected, all.skipped_control_plane], [['bob-s'], ['bob']]);
  assert.deepEqual(await bob.closed, { code: 4001, reason: 'kicked' });
  assert.deepEqual((await alice.peers()).map((p) => p.displayName), ['alice-s', 'bob']);
  await sleep(GRACE_MS + 700);
  assert.deepEqual([leaves(alice, carol.pubkey), leaves(alice, bob.pubkey), leaves(alice, gone.pubkey)], [2, 1, 1]);
}

async function disconnect(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const bob = await session(mesh, 'bob').attach();
  const plane = await member(mesh, 'bob').attach();
  const reply = await alice.request({ type: 'disconnect', target: mesh.members.bob.pubkey });
  assert.deepEqual([reply.type, reply.affected.toSorted()], ['disconnect_ack', ['bob', 'bob-s']], 'control plane included');
  assert.deepEqual(await bob.closed, { code: 1000, reason: 'disconnected' });
  assert.deepEqual(await plane.closed, { code: 1000, reason: 'disconnected' });
  const idle = await session(mesh, 'carol').attach();
  await sleep(100);
  const stale = await alice.request({ type: 'disconnect', stale: 50 });
  assert.deepEqual(stale.affected, ['carol-s']);
  assert.deepEqual(await idle.closed, { code: 1000, reason: 'disconnected_stale' });
}

async function ban(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const bob = await session(mesh, 'bob').attach();
  const plane = await member(mesh, 'bob').attach();
  assert.deepEqual(error(await alice.request({ type: 'ban', target: 'nobody' })), ['error', 'not_found', 'peer "nobody" not found']);
  assert.deepEqual(error(await alice.request({ type: 'ban', target: 'alice' })), ['error', 'invalid', 'cannot ban yourself']);
  assert.deepEqual(error(await alice.request({ type: 'ban' })), ['error', 'invalid', 'target required']);
  const reply = await alice.request({ type: 'ban', target: 'bob' });
  assert.deepEqual(reply, { type: 'ban_ack', banned: 'bob', _reqId: reply._reqId });
  for (const peer of [bob, plane]) assert.deepEqual(await peer.closed, { code: 4002, reason: 'banned' });
  await eventually(async () => (await alice.peers()).length === 1, 'bob is gone');
  const { bans } = await alice.request({ type: 'list_bans' });
  assert.deepEqual(bans.map(({ name, pubkey }) => [name, pubkey]), [['bob', mesh.members.bob.pubkey]]);
  assert.match(bans[0].revokedAt, /Z$/);

  for (const identity of [bob.identity, plane.identity, throwaway(mesh, 'bob')]) {
    const socket = await Peer.open(mesh.url, identity);
    socket.write(identity.hello());
    assert.deepEqual(await socket.closed, { code: 4002, reason: 'banned' });
    assert.equal(socket.frames[0].code, 'revoked');
    assert.match(socket.frames[0].message, /^You've been removed from ".+"\. Contact the mesh owner to rejoin\.$/);
  }
  const again = await alice.request({ type: 'unban', target: 'bob' });
  assert.deepEqual(again, { type: 'unban_ack', unbanned: 'bob', _reqId: again._reqId });
  assert.deepEqual(error(await alice.request({ type: 'unban', target: 'bob' })), ['error', 'not_found', 'no banned peer "bob"']);
  assert.ok(!(await bob.identity.attach()).ack.reattached);
  await sleep(GRACE_MS + 700);
  assert.deepEqual([leaves(alice, bob.pubkey), leaves(alice, plane.pubkey)], [1, 1]);
}

/** Revoked from the command line: at once, also for those in grace. */
async function revoked(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const carol = await session(mesh, 'carol').attach();
  const away = await session(mesh, 'carol', { name: 'away' }).attach();
  await away.rst();
  holdfast('member', 'revoke', mesh.members.carol.memberId);
  assert.deepEqual(await carol.closed, { code: 4002, reason: 'banned' });
  await eventually(async () => (await alice.peers()).length === 1, 'both are gone', 1000);
  assert.deepEqual([leaves(alice, carol.pubkey), leaves(alice, away.pubkey)], [1, 1]);
}

await run({ forbidden, kick, disconnect, ban, revoked });
