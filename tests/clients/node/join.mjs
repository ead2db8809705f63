// Joining by an invite: what the commands print, what POST /join answers, and that who has joined
// is let in at once and stays a member.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { keyPair } from './mesh.mjs';
import { answer, holdfast, member, run, session, world } from './scenario.mjs';

const PREFIX = 'ic://join/';

const invite = (mesh, ...flags) => JSON.parse(holdfast('invite', 'create', mesh.slug, '--json', ...flags));

/** As the command `claudemesh join` does it: the token's payload goes back beside the token. */
async function join(url, pubkey, change = {}) {
  assert.ok(url.startsWith(PREFIX));
  const token = url.slice(PREFIX.length);
  const payload = JSON.parse(Buffer.from(token, 'base64url').toString('utf8'));
  const body = { invite_token: token, invite_payload: payload, peer_pubkey: pubkey, display_name: 'dora', ...change };
  const response = await fetch(`${world.http}/join`, { method: 'POST', body: JSON.stringify(body) });
  return { status: response.status, body: await response.json() };
}

/** Keys that the newcomer makes for itself. */
function newcomer() {
  const secretKey = randomBytes(64).toString('hex');
  return { secretKey, pubkey: keyPair(secretKey).pubkey };
}

const refusal = (error) => ({ status: 400, body: { ok: false, error } });

/** The mesh with one more member, whose keys are these. */
function withNewcomer(mesh, memberId, keys) {
  const members = { ...mesh.members, dora: { memberId, ...keys } };
  return { ...mesh, members };
}

async function lets_in(mesh) {
  const plain = holdfast('invite', 'create', mesh.slug).trim();
  assert.match(plain, /^ic:\/\/join\/[A-Za-z0-9_-]+$/, 'one line, to be copied');
  const alice = await session(mesh, 'alice').attach();
  const keys = newcomer();
  const joined = await join(plain, keys.pubkey);
  assert.deepEqual([joined.status, joined.body.ok, joined.body.alreadyMember], [200, true, undefined]);
  const again = await join(plain, keys.pubkey);
  assert.deepEqual(again.body, { ok: true, memberId: joined.body.memberId, alreadyMember: true });
  assert.deepEqual(await join(plain, newcomer().pubkey), refusal('invite_exhausted'), 'asking again took no use');

  const wider = withNewcomer(mesh, joined.body.memberId, keys);
  const dora = await member(wider, 'dora').attach();
  await alice.message(keys.pubkey, 'welcome');
  await dora.untilText('welcome');
  const listed = JSON.parse(holdfast('member', 'list', mesh.slug, '--json'));
  const row = listed.find((m) => m.memberId === joined.body.memberId);
  assert.deepEqual([row.name, row.role, row.pubkey], ['dora', 'member', keys.pubkey]);
}

async function takes_as_many_as_it_says(mesh) {
  const made = invite(mesh, '--uses', '3', '--role', 'admin');
  const newcomers = Array.from({ length: 8 }, () => newcomer().pubkey);
  const answers = await Promise.all(newcomers.map((pubkey) => join(made.url, pubkey)));
  const taken = answers.filter((a) => a.status === 200);
  assert.equal(taken.length, 3, 'eight at once, three places');
  for (const a of answers.filter((a) => a.status !== 200)) assert.deepEqual(a, refusal('invite_exhausted'));
  const [listed] = JSON.parse(holdfast('invite', 'list', mesh.slug, '--json'));
  assert.deepEqual([listed.used, listed.uses], [3, 3]);
  const members = JSON.parse(holdfast('member', 'list', mesh.slug, '--json'));
  const admins = members.filter((m) => taken.some((a) => a.body.memberId === m.memberId && m.role === 'admin'));
  assert.equal(admins.length, 3);
}

async function refuses(mesh) {
  const { url, inviteId } = invite(mesh, '--uses', '9');
  const { pubkey } = newcomer();
  const payload = JSON.parse(Buffer.from(url.slice(PREFIX.length), 'base64url').toString('utf8'));
  const forged = { ...payload, role: 'admin' };
  assert.deepEqual(await join(url, pubkey, { invite_payload: forged }), refusal('invite_bad_signature'));
  assert.deepEqual(await join(url, pubkey, { invite_token: 'another' }), refusal('invite_not_found'));
  assert.deepEqual(await join(url, 'ab'), refusal('peer_pubkey must be 64 hex chars (32 bytes)'));
  const incomplete = 'invite_token, invite_payload, peer_pubkey, display_name required';
  assert.deepEqual(await join(url, pubkey, { display_name: '' }), refusal(incomplete));
  const named = await join(url, pubkey, { display_name: 'a\nb' });
  assert.deepEqual([named.status, named.body.ok], [400, false]);
  const short = invite(mesh, '--expires', '1s').url;
  holdfast('invite', 'revoke', inviteId);
  assert.deepEqual(await join(url, pubkey), refusal('invite_revoked'));
  await new Promise((resolve) => setTimeout(resolve, 1100));
  assert.deepEqual(await join(short, pubkey), refusal('invite_expired'));
  const big = await fetch(`${world.http}/join`, { method: 'POST', body: 'x'.repeat(70_000) });
  assert.deepEqual([big.status, await big.json()], [413, { ok: false, error: 'payload too large' }]);
  const members = JSON.parse(holdfast('member', 'list', mesh.slug, '--json'));
  assert.equal(members.length, 4, 'nobody got in');
}

/** kill -9 right after the answer: who was told that it is a member is one. */
async function survives_a_kill(mesh) {
  const keys = newcomer();
  const joined = await join(invite(mesh).url, keys.pubkey);
  await answer('kill');
  await answer('start');
  const dora = await member(withNewcomer(mesh, joined.body.memberId, keys), 'dora').attach();
  assert.equal(dora.ack.type, 'hello_ack');
}

await run({ lets_in, takes_as_many_as_it_says, refuses }, { survives_a_kill });
