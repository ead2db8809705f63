// What a session says of itself: status and what it holds back, hooks, summary, stats, profile,
// visibility, groups, and how all of it shows in list_peers.

import assert from 'node:assert/strict';
import { eventually, isMessage, sleep } from './mesh.mjs';
import { member, run, session, world } from './scenario.mjs';

const QUIET_MS = 300;

async function hook(body) {
  const response = await fetch(`${world.http}/hook/set-status`, {
    method: 'POST', headers: { 'Content-Type': 'application/json' },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
  return { status: response.status, body: await response.json() };
}

const statusOf = async (peer, pubkey) => (await peer.peers()).find((p) => p.pubkey === pubkey)?.status;

async function untilStatus(peer, pubkey, wanted) {
  await eventually(async () => (await statusOf(peer, pubkey)) === wanted, `status ${wanted}`);
}

/** working and dnd hold next and low; becoming idle, by whatever way, releases them in order. */
async function holding(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const bob = await session(mesh, 'bob', { cwd: '/srv/held' }).attach();
  const busyThen = async (busy, release, tag) => {
    await busy();
    for (const priority of ['low', 'next', 'now']) await alice.message(bob.pubkey, `${tag} ${priority}`, { priority });
    await bob.untilText(`${tag} now`);
    await sleep(QUIET_MS);
    const held = bob.texts.filter((t) => t.startsWith(tag));
    assert.deepEqual(held, [`${tag} now`], 'held back');
    await release();
    await bob.untilText(`${tag} next`);
    await bob.untilText(`${tag} low`);
    const order = bob.texts.filter((t) => t.startsWith(tag));
    assert.deepEqual(order, [`${tag} now`, `${tag} low`, `${tag} next`], 'released in the order sent');
    for (const f of bob.frames.filter(isMessage)) bob.write({ type: 'client_ack', brokerMessageId: f.messageId });
  };
  const say = (status) => async () => {
    bob.write({ type: 'set_status', status });
    await untilStatus(alice, bob.pubkey, status);
  };
  const hooked = (status) => async () => {
    const answer = await hook({ cwd: '/srv/held', status, pid: 1 });
    assert.deepEqual([answer.status, answer.body], [200, { ok: true, presence_id: bob.ack.presenceId }]);
    await untilStatus(alice, bob.pubkey, status);
  };
  await busyThen(say('working'), say('idle'), 'working');
  await busyThen(say('dnd'), say('idle'), 'dnd');
  await busyThen(hooked('working'), hooked('idle'), 'hook');
  await say('dnd')();
  await hook({ cwd: '/srv/held', status: 'idle', pid: 1 });
  await sleep(QUIET_MS);
  assert.equal(await statusOf(alice, bob.pubkey), 'dnd', 'a hook never ends dnd');
}

async function hooks(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const refused = { status: 200, body: { ok: false, error: 'cwd and status required' } };
  assert.deepEqual(await hook({ cwd: '/srv/x' }), refused);
  assert.deepEqual(await hook({ status: 'idle' }), refused);
  const garbage = await hook('{nope');
  assert.deepEqual([garbage.status, garbage.body.ok], [500, false]);
  const cwd = `/srv/pending-${Date.now()}`;
  assert.deepEqual(await hook({ cwd, status: 'working', pid: 1 }), { status: 200, body: { ok: true, pending: true } });
  const bob = await session(mesh, 'bob', { cwd }).attach();
  assert.equal(await statusOf(alice, bob.pubkey), 'working', 'a pending status is taken up');
  const twin = await session(mesh, 'bob', { cwd }).attach();
  const answer = await hook({ cwd, status: 'dnd' });
  assert.equal(answer.body.presence_id, twin.ack.presenceId, 'without a pid the latest of that directory');
  const flood = `/srv/flood-${Date.now()}`;
  const answers = [];
  for (let i = 0; i < 35; i++) answers.push(await hook({ cwd: flood, status: 'idle', pid: 7 }));
  assert.equal(answers[29].status, 200);
  assert.deepEqual(answers.at(-1), { status: 429, body: { ok: false, error: 'rate limited' } });
}

async function listed(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const bob = await session(mesh, 'bob', { groups: [{ name: 'dev', role: 'lead' }] })
    .attach();
  const plane = await member(mesh, 'bob').attach();
  bob.write({ type: 'set_status', status: 'dnd' });
  bob.write({ type: 'set_summary', summary: 'reviewing' });
  bob.write({ type: 'set_stats', stats: { messagesIn: 1, uptime: 9 } });
  const ack = await bob.request({ type: 'set_profile', avatar: 'crab', title: 'rev', bio: 'bio', capabilities: ['rust'] });
  assert.deepEqual(ack, { type: 'ack', id: ack._reqId, messageId: '', queued: false, _reqId: ack._reqId });
  await bob.request({ type: 'set_profile', title: 'reviewer' });

  const peers = await alice.peers();
  assert.deepEqual(peers.map((p) => p.displayName), ['alice-s', 'bob-s', 'bob'], 'in order of arrival, caller included');
  const { connectedAt, lastSeenAt, ...own } = peers[1];
  assert.match(connectedAt, /Z$/);
  assert.match(lastSeenAt, /Z$/);
  assert.deepEqual(own, {
    pubkey: bob.pubkey, memberPubkey: mesh.members.bob.pubkey, displayName: 'bob-s', status: 'dnd', summary: 'reviewing',
    groups: [{ name: 'dev', role: 'lead' }], sessionId: bob.identity.fields.sessionId, cwd: '/srv/project', peerRole: 'session',
    hostname: 'lab', peerType: 'ai', channel: 'claudemesh-session', stats: { messagesIn: 1, uptime: 9 }, visible: true,
    profile: { avatar: 'crab', title: 'reviewer', bio: 'bio', capabilities: ['rust'] }, lease: 'online',
  });
  const control = peers[2];
  assert.deepEqual([control.pubkey, control.peerRole, control.channel, control.status, control.summary],
    [mesh.members.bob.pubkey, 'control-plane', 'claudemesh-daemon', 'idle', null], 'its own, not its sibling\'s');
  assert.equal(control.stats, undefined);
  assert.ok(plane);
}

async function hidden(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const plane = await member(mesh, 'bob').attach();
  const bob = await session(mesh, 'bob').attach();
  for (const [visible, event] of [[false, 'peer_hidden'], [true, 'peer_visible']]) {
    const ack = await bob.request({ type: 'set_visible', visible });
    assert.deepEqual(ack, { type: 'ack', id: ack._reqId, messageId: '', queued: false, _reqId: ack._reqId });
    for (const other of [alice, plane]) {
      const push = await other.until((f) => f.event === event, event);
      assert.deepEqual(push.eventData, { name: 'bob-s', pubkey: bob.pubkey });
      const { messageId, createdAt, eventData, ...rest } = push;
      assert.match(messageId, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
      assert.ok(createdAt && eventData);
      assert.deepEqual(rest, {
        type: 'push', subtype: 'system', event, meshId: mesh.meshId, senderPubkey: 'system', priority: 'low', nonce: '', ciphertext: '',
      });
    }
    const sees = async (peer) => (await peer.peers()).some((p) => p.pubkey === bob.pubkey);
    assert.deepEqual([await sees(alice), await sees(plane), await sees(bob)], [visible, true, true]);
  }
}

/** Saved state comes back to a key-less hello of the same member, under a new session id. */
async function restored(mesh) {
  const alice = member(mesh, 'alice');
  const first = await alice.attach();
  first.write({ type: 'set_summary', summary: 'before' });
  first.write({ type: 'set_stats', stats: { messagesIn: 3, messagesOut: 4, toolCalls: 5, errors: 1 } });
  first.write({ type: 'join_group', name: 'ops', role: 'lead' });
  await first.request({ type: 'set_profile', title: 'builder' });
  await first.close();
  const command = await session(mesh, 'alice').attach();
  await command.close();
  const second = await member(mesh, 'alice', { groups: [] }).attach();
  assert.notEqual(second.ack.presenceId, first.ack.presenceId);
  assert.deepEqual(
    [second.ack.restored, second.ack.lastSummary, second.ack.restoredGroups, second.ack.restoredStats],
    [true, 'before', [{ name: 'ops', role: 'lead' }], { messagesIn: 3, messagesOut: 4, toolCalls: 5, errors: 1 }]);
  assert.match(second.ack.lastSeenAt, /Z$/);
  const own = (await second.peers()).find((p) => p.sessionId === second.identity.fields.sessionId);
  assert.deepEqual([own.groups, own.profile.title], [[{ name: 'ops', role: 'lead' }], 'builder']);
  assert.ok((await session(mesh, 'alice').attach()).ack.restored === undefined, 'never to a session');
}

await run({ holding, hooks, listed, hidden, restored });
