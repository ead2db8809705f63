// Members read and changed over HTTP: who may, how it is signed, and whom it reaches.

import assert from 'node:assert/strict';
import { createHash, sign } from 'node:crypto';
import { keyPair } from './mesh.mjs';
import { holdfast, run, session, world } from './scenario.mjs';

const TOKEN = 'only for this test, not a secret';

let last = 0;

/** What a member signs: method, path, hash of the body, time. */
function signature(member, method, path, body, timestamp) {
  const hash = createHash('sha256').update(body).digest('hex');
  const text = ['holdfast-http', method, path, hash, timestamp].join('|');
  return `${timestamp}:${sign(null, Buffer.from(text), keyPair(member.secretKey).key).toString('hex')}`;
}

async function call(method, path, { headers = {}, body = '' } = {}) {
  const init = { method, headers: { 'Content-Type': 'application/json', ...headers } };
  const response = await fetch(world.http + path, method === 'GET' ? init : { ...init, body });
  return { status: response.status, body: await response.json() };
}

/** A request signed by a member. */
function signed(member, method, path, fields, change = {}) {
  const body = fields === undefined ? '' : JSON.stringify(fields);
  last = Math.max(Date.now(), last + 1);
  const headers = {
    'X-Member-Id': member.memberId,
    'X-Member-Signature': signature(member, method, path, body, last),
  };
  return call(method, path, { headers, body, ...change });
}

const refusal = (status, error) => ({ status, body: { ok: false, error } });
const members = (mesh) => `/mesh/${mesh.meshId}/members`;
const path = (mesh, name) => `/mesh/${mesh.meshId}/member/${mesh.members[name].memberId}`;

async function lists_to_members(mesh) {
  const { alice, bob } = mesh.members;
  await session(mesh, 'bob').attach();
  assert.deepEqual(await call('GET', members(mesh)), refusal(401, 'X-Member-Id header required'));
  const unsigned = await call('GET', members(mesh), { headers: { 'X-Member-Id': alice.memberId } });
  assert.deepEqual(unsigned, refusal(401, 'signature required: X-Member-Signature'));
  const { status, body } = await signed(alice, 'GET', members(mesh));
  assert.equal(status, 200);
  const listed = body.members.find((m) => m.id === bob.memberId);
  assert.deepEqual([listed.displayName, listed.permission, listed.online, listed.sessionCount],
    ['bob', 'member', true, 1]);
  assert.deepEqual([listed.roleTag, listed.groups, listed.messageMode, listed.dashboardUserId],
    [null, [], 'push', null]);
  assert.ok(listed.joinedAt && listed.lastSeenAt);
  assert.equal(body.members.find((m) => m.id === alice.memberId).online, false);
  const operator = { headers: { Authorization: `Bearer ${TOKEN}` } };
  assert.equal((await call('GET', members(mesh), operator)).status, 200);
  const wrong = { headers: { Authorization: 'Bearer wrong' } };
  assert.deepEqual(await call('GET', members(mesh), wrong), refusal(401, 'unauthorized'));
  assert.deepEqual(await signed(alice, 'GET', '/mesh/nowhere/members'), refusal(400, 'mesh not found'));
}

async function edits_itself(mesh) {
  const { alice, bob } = mesh.members;
  const [peer, other] = [await session(mesh, 'bob').attach(), await session(mesh, 'alice').attach()];
  const fields = { displayName: 'bobby', roleTag: 'qa', groups: [{ name: 'dev', role: 'lead' }], messageMode: 'inbox' };
  const done = await signed(bob, 'PATCH', path(mesh, 'bob'), fields);
  assert.equal(done.status, 200, JSON.stringify(done.body));
  assert.deepEqual(done.body.changes, fields);
  assert.deepEqual([done.body.member.displayName, done.body.member.messageMode], ['bobby', 'inbox']);
  const push = await peer.until((f) => f.event === 'profile_updated', 'profile_updated');
  assert.deepEqual([push.subtype, push.eventData], ['system', { memberId: bob.memberId, changes: fields }]);
  const audit = await other.request({ type: 'audit_query', eventType: 'member_updated' });
  assert.deepEqual(audit.entries.map((e) => [e.actor, e.payload.memberId]), [['bobby', bob.memberId]]);
  assert.ok(!other.frames.some((f) => f.event === 'profile_updated'));
  const again = await session(mesh, 'bob').attach();
  assert.deepEqual(again.ack.memberProfile, { roleTag: 'qa', groups: fields.groups, messageMode: 'inbox' });

  const nobody = 'not authorized — only admins or self can edit';
  assert.deepEqual(await signed(bob, 'PATCH', path(mesh, 'alice'), fields), refusal(400, nobody));
  assert.deepEqual(await signed(bob, 'PATCH', path(mesh, 'bob'), { permission: 'admin' }),
    refusal(400, 'admin-managed fields: permission'));
  assert.deepEqual(await signed(bob, 'PATCH', path(mesh, 'bob'), {}), refusal(400, 'no fields to update'));
  const settings = `/mesh/${mesh.meshId}/settings`;
  assert.deepEqual(await signed(bob, 'PATCH', settings, { selfEditable: { roleTag: false } }),
    refusal(400, 'admin access required'));
  assert.deepEqual(await signed(alice, 'PATCH', settings, {}), refusal(400, 'no settings to update'));
  const set = await signed(alice, 'PATCH', settings, { selfEditable: { roleTag: false } });
  assert.deepEqual([set.status, set.body.ok], [200, true]);
  assert.deepEqual(await signed(bob, 'PATCH', path(mesh, 'bob'), { roleTag: 'x', displayName: 'y' }),
    refusal(400, 'admin-managed fields: roleTag'));
  const promoted = await signed(alice, 'PATCH', path(mesh, 'bob'), { permission: 'admin', roleTag: null });
  assert.deepEqual([promoted.body.member.permission, promoted.body.member.roleTag], ['admin', null]);
  const listed = JSON.parse(holdfast('member', 'list', mesh.slug, '--json'));
  const row = listed.find((m) => m.memberId === bob.memberId);
  assert.deepEqual([row.name, row.role], ['bobby', 'admin']);
}

async function believes_no_other_signature(mesh) {
  const { alice, bob } = mesh.members;
  const [target, body] = [path(mesh, 'bob'), JSON.stringify({ displayName: 'x' })];
  const send = (member, text, at = target, sent = body) =>
    call('PATCH', at, { headers: { 'X-Member-Id': member.memberId, 'X-Member-Signature': text }, body: sent });
  const unsigned = await call('PATCH', target, { headers: { 'X-Member-Id': alice.memberId }, body });
  assert.deepEqual(unsigned, refusal(401, 'signature required: X-Member-Signature'));
  const now = Date.now() + 1000;
  const good = signature(bob, 'PATCH', target, body, now);
  const bad = refusal(401, 'bad_signature');
  assert.deepEqual(await send(alice, good), bad, 'the key of another');
  assert.deepEqual(await send(bob, good, path(mesh, 'alice')), bad, 'another path');
  assert.deepEqual(await send(bob, good, target, '{"displayName":"y"}'), bad, 'another body');
  assert.deepEqual(await send(bob, signature(bob, 'POST', target, body, now)), bad, 'another method');
  assert.deepEqual(await send(bob, `${now + 1}${good.slice(good.indexOf(':'))}`), bad, 'another time');
  for (const off of [-61_000, 62_000]) {
    const late = signature(bob, 'PATCH', target, body, Date.now() + off);
    assert.deepEqual(await send(bob, late), refusal(401, 'timestamp_skew'));
  }
  const malformed = refusal(401, 'X-Member-Signature must be <timestamp in ms>:<128 hex digits>');
  assert.deepEqual(await send(bob, 'x'), malformed);
  const stranger = { ...bob, memberId: 'nobody' };
  assert.deepEqual(await send(stranger, good), refusal(400, 'caller not a member of this mesh'));
  assert.equal((await send(bob, good)).status, 200);
  assert.deepEqual(await send(bob, good), refusal(401, 'replayed'));
  const operator = { headers: { Authorization: `Bearer ${TOKEN}` }, body };
  assert.equal((await call('PATCH', target, operator)).status, 200);
  holdfast('member', 'revoke', bob.memberId);
  assert.deepEqual(await signed(bob, 'PATCH', target, { displayName: 'z' }),
    refusal(400, 'caller not a member of this mesh'));
  assert.deepEqual(await signed(alice, 'PATCH', target, { displayName: 'z' }), refusal(400, 'member not found'));
}

async function says_what_is_not_here() {
  const absent = [
    ['POST', '/upload'], ['GET', '/download/f?mesh=m'], ['POST', '/cli-sync'], ['POST', '/cli/device-code'],
    ['GET', '/cli/meshes'], ['DELETE', '/cli/mesh/team'], ['POST', '/tg/token'],
    ['POST', '/invites/abc/claim'],
  ];
  for (const [method, at] of absent) {
    const answer = await call(method, at);
    assert.equal(answer.status, 501, at);
    assert.match(answer.body.error, /^(unsupported|invite_v2_disabled)$/);
    assert.ok(answer.body.detail.length > 10);
  }
}

/** As existing clients ask, where the operator allows it. */
async function trusts_as_told(mesh) {
  const { alice, bob } = mesh.members;
  const { status, body } = await call('GET', members(mesh));
  assert.deepEqual([status, body.members.some((m) => m.id === bob.memberId)], [200, true]);
  const header = { 'X-Member-Id': bob.memberId };
  const own = await call('PATCH', path(mesh, 'bob'), { headers: header, body: '{"displayName":"bobby"}' });
  assert.equal(own.body.member.displayName, 'bobby');
  const other = await call('PATCH', path(mesh, 'alice'), { headers: header, body: '{"displayName":"x"}' });
  assert.equal(other.body.error, 'not authorized — only admins or self can edit');
  assert.deepEqual(await call('PATCH', path(mesh, 'bob'), { body: '{}' }), refusal(401, 'X-Member-Id header required'));
  assert.equal((await signed(alice, 'PATCH', path(mesh, 'bob'), { roleTag: 'qa' })).status, 200);
}

run({ lists_to_members, edits_itself, believes_no_other_signature, says_what_is_not_here }, { trusts_as_told });
