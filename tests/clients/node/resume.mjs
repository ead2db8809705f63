// Resume tokens: one hello without a valid signature, once, by the session it was given to. All
// others go through the full handshake, and none opens a door that is closed.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { Peer, eventually, sleep } from './mesh.mjs';
import { ask, back, inGrace, member, metric, run, session, stored, throwaway } from './scenario.mjs';

/** A hello with a token and a signature that does not hold; a new one each time. */
function resuming(identity, resumeToken, changes = {}) {
  const hello = identity.hello({ resumeToken, ...changes });
  return { ...hello, signature: randomBytes(64).toString('hex') };
}

/** The same, its attestation not holding either. */
function unattested(identity, resumeToken) {
  const hello = resuming(identity, resumeToken);
  return { ...hello, parentAttestation: { ...hello.parentAttestation, signature: 'b'.repeat(128) } };
}

async function refused(identity, hello, code = 'bad_signature') {
  const peer = await Peer.open(identity.mesh.url, identity);
  peer.write(hello);
  const end = await peer.closed;
  assert.deepEqual([peer.frames.map((f) => f.code), end.code], [[code], code === 'revoked' ? 4002 : 1008]);
}

async function once(mesh) {
  const carol = await session(mesh, 'carol').attach();
  for (const identity of [session(mesh, 'bob'), member(mesh, 'bob'), throwaway(mesh, 'bob')]) {
    let peer = await identity.attach();
    const used = [];
    for (let round = 0; round < 3; round++) {
      const token = peer.ack.resumeToken;
      assert.match(token, /^[0-9a-f]{104}$/);
      assert.ok(!used.includes(token), 'a new one each time');
      used.push(token);
      if (round > 0) await peer.rst(); // else it takes over from its own socket
      const hello = resuming(identity, token);
      const next = await identity.attach(hello);
      assert.deepEqual([next.ack.presenceId, next.ack.reattached], [peer.ack.presenceId, true]);
      peer = next;
    }
    for (const token of used) await refused(identity, resuming(identity, token));
    assert.equal(peer.end, undefined, 'a refused hello touches nothing');
    await carol.message(identity.pubkey, 'for the holder');
    await peer.untilText('for the holder');
    // A used one is no reason to refuse who can sign.
    const signed = await identity.attach(identity.hello({ resumeToken: used[0] }));
    assert.equal(signed.ack.reattached, true);
    await signed.rst();
  }
  assert.equal(carol.events.filter((e) => e.startsWith('peer_left')).length, 0);
  const bob = session(mesh, 'bob', { name: 'attested once' });
  const first = await bob.attach();
  const second = await bob.attach(unattested(bob, first.ack.resumeToken));
  assert.equal(second.ack.reattached, true, 'its attestation was verified when the token was given');
  await refused(bob, unattested(bob, first.ack.resumeToken), 'bad_signature');
}

/** Forged, cut, foreign, of another kind, no token at all: none serves, and none is in the way. */
async function unfit(mesh) {
  const bob = session(mesh, 'bob');
  const command = throwaway(mesh, 'bob', { sessionKey: bob.sessionKey, sessionId: bob.fields.sessionId });
  const [first, carol, sibling, plane] = await Promise.all([bob, session(mesh, 'carol'), session(mesh, 'bob'), member(mesh, 'bob')].map((i) => i.attach()));
  const token = first.ack.resumeToken;
  const flipped = (at) => token.slice(0, at) + (token[at] === '0' ? '1' : '0') + token.slice(at + 1);
  const bad = [flipped(0), flipped(7), flipped(20), flipped(87), token.slice(0, 86), `${token}00`, token.slice(2),
    carol.ack.resumeToken, sibling.ack.resumeToken, plane.ack.resumeToken, 'no token', 'ü'.repeat(104), '0'.repeat(104), ''];
  for (const text of bad) await refused(bob, resuming(bob, text));
  for (const value of [7, null, {}, [token], true]) await refused(bob, resuming(bob, value));
  await refused(command, resuming(command, token));
  const before = await metric('holdfast_resume_tokens_total');
  let last = first;
  for (const text of bad) {
    const peer = await back(last, { attach: () => bob.attach(bob.hello({ resumeToken: text })) });
    await peer.rst();
    last = peer;
  }
  assert.equal((await metric('holdfast_resume_tokens_total')) - before, bad.length - 1, 'an empty one is none');
  // Other rules hold with a good token as well.
  const good = last.ack.resumeToken;
  await refused(bob, resuming(bob, good, { timestamp: Date.now() - 120_000 }), 'timestamp_skew');
  const resumed = await bob.attach(resuming(bob, good));
  assert.equal(resumed.ack.reattached, true, 'which did not use it up');
}

/** No lease, no token; and whoever was removed stays out. */
async function barred(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const bob = session(mesh, 'bob');
  const first = await bob.attach();
  first.write({ type: 'goodbye' });
  await first.closed;
  await refused(bob, resuming(bob, first.ack.resumeToken));
  const second = await bob.attach();
  await alice.request({ type: 'ban', target: 'bob' });
  assert.equal((await second.closed).code, 4002);
  await refused(bob, resuming(bob, second.ack.resumeToken), 'revoked');
  await alice.request({ type: 'unban', target: 'bob' });
  await refused(bob, resuming(bob, second.ack.resumeToken));
  assert.equal((await bob.attach()).ack.reattached, false);
}

/** A token of before the kill serves after it, once. */
async function killed(mesh) {
  const carol = await session(mesh, 'carol').attach();
  const [bob, plane] = [session(mesh, 'bob'), member(mesh, 'bob')];
  const [online, away] = [await bob.attach(), await plane.attach()];
  await away.rst();
  await inGrace(carol, plane.pubkey);
  const used = online.ack.resumeToken;
  const newer = await bob.attach(resuming(bob, used));
  await stored();
  await ask('kill');
  await ask('start');
  await refused(bob, resuming(bob, used));
  for (const [identity, before] of [[bob, newer], [plane, away]]) {
    const hello = resuming(identity, before.ack.resumeToken);
    const peer = await identity.attach(hello);
    assert.deepEqual([peer.ack.presenceId, peer.ack.reattached], [before.ack.presenceId, true]);
    await refused(identity, resuming(identity, before.ack.resumeToken));
  }
  await ask('term');
  await ask('start');
  const watching = await back(carol);
  await refused(bob, resuming(bob, newer.ack.resumeToken));
  await back(newer);
  await eventually(async () => (await watching.peers()).length === 3, 'all three');
  assert.deepEqual(watching.events, []);
}

// One at a time, by name: one counts what all hellos did, one stops the broker.
await run({ once, barred }, { unfit, killed });
