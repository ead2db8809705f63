// A session is away and misses everything a mesh can say. Back, it is told all of it, in the order
// in which it was said, promptly and once; of those who came and went, the difference.

import assert from 'node:assert/strict';
import { Peer, isMessage, isPresence, sleep } from './mesh.mjs';
import { GRACE_MS, ask, back, inGrace, member, metric, run, session, stored, throwaway, world } from './scenario.mjs';

/** How long it is away. */
const AWAY_MS = 2000;
const DIRECT = 100;
/** From hello_ack to the last of what was missed; the issue asks for 100 ms on a quiet machine. */
const PROMPT_MS = 1000;
/** Its last message is confirmed by then: a watermark follows a burst within a second. */
const CONFIRMED_MS = 1500;
/** Long enough for a push that must not come to have come. */
const QUIET_MS = 400;

/** More mail than is kept in memory for one key. */
const BACKLOG = 2000;

const isNews = (frame) => isMessage(frame) || isPresence(frame);

/** Those who stay, and those of whom the one who is away will be told. */
async function scene(mesh, away) {
  const alice = await session(mesh, 'alice').attach();
  const carol = await session(mesh, 'carol').attach();
  const known = await session(mesh, 'carol', { name: 'known' }).attach();
  const shy = await session(mesh, 'alice', { name: 'shy' }).attach();
  const first = await away.attach();
  first.write({ type: 'join_group', name: 'dev' });
  await alice.until((f) => f.event === 'peer_joined' && f.eventData.pubkey === away.pubkey, 'its join');
  await first.peers(); // answered after the group was joined
  await sleep(CONFIRMED_MS);
  return { alice, carol, known, shy, first };
}

/** Says one thing after the other; gives what of it is news to whoever missed it all. */
async function sayEverything(mesh, away, { alice, carol, known, shy }) {
  const heard = [];
  const told = (event, name) => alice.until((f) => f.event === event && f.eventData.name === name, `${event} ${name}`);
  const direct = async (count) => {
    for (let i = 0; i < count; i++) {
      const sender = heard.length % 2 ? alice : carol;
      const text = `direct ${heard.length}`;
      const ack = await sender.message(away.pubkey, text);
      assert.equal(ack.queued, true, ack.error);
      heard.push(text);
    }
  };
  const said = async (sender, target, text) => {
    const ack = await sender.message(target, text);
    assert.equal(ack.queued, true, ack.error);
    return text;
  };
  await direct(DIRECT / 4);
  heard.push(await said(alice, '*', 'to all'));
  shy.write({ type: 'set_visible', visible: false });
  await told('peer_hidden', 'shy');
  const passing = await throwaway(mesh, 'alice', { name: 'passing' }).attach();
  await carol.until((f) => f.event === 'peer_joined' && f.eventData.name === 'passing', 'a join');
  await direct(DIRECT / 4);
  heard.push(await said(carol, '@dev', 'to the group'));
  await said(alice, '@ops', 'to another group');
  const stays = await session(mesh, 'carol', { name: 'stays' }).attach();
  await told('peer_joined', 'stays');
  heard.push('peer_joined stays');
  await direct(DIRECT / 4);
  await passing.close();
  await carol.until((f) => f.event === 'peer_left' && f.eventData.name === 'passing', 'a leave');
  shy.write({ type: 'set_visible', visible: true });
  await told('peer_visible', 'shy');
  heard.push('peer_visible shy');
  known.write({ type: 'goodbye' });
  await told('peer_left', 'known');
  heard.push('peer_left known');
  await direct(DIRECT / 4);
  heard.push(await said(carol, '*', 'to all again'));
  return { heard, stays };
}

/**
 * Messages are told in the order in which they were acknowledged, and what was said to all (messages
 * as well as news) in the order in which it was said. News do not wait for direct messages.
 */
function assertOrder(told, heard) {
  assert.deepEqual(told.toSorted(), heard.toSorted());
  const isEvent = (text) => text.startsWith('peer_');
  const isDirect = (text) => text.startsWith('direct');
  for (const apart of [isEvent, isDirect]) {
    assert.deepEqual(told.filter((text) => !apart(text)), heard.filter((text) => !apart(text)));
  }
}

/** It is told everything that was said, and then no more; gives how long that took. */
async function assertTold(peer, heard) {
  assert.equal(peer.frames[0].type, 'hello_ack');
  assert.equal(peer.ack.missed, undefined);
  await peer.untilCount(isNews, heard.length, 'what was missed');
  await sleep(QUIET_MS);
  assertOrder(peer.heard, heard);
  const ids = peer.frames.filter(isNews).map((f) => f.messageId);
  assert.equal(new Set(ids).size, ids.length, 'each under its own id');
  const took = peer.times[peer.frames.findLastIndex(isNews)] - peer.times[0];
  assert.ok(took < PROMPT_MS, `the last came ${took.toFixed(0)} ms after hello_ack`);
  return took;
}

async function missed(mesh, away) {
  const people = await scene(mesh, away);
  await people.first.rst();
  const cut = performance.now();
  const { heard } = await sayEverything(mesh, away, people);
  await sleep(Math.max(0, cut + AWAY_MS - performance.now()));
  const second = await back(people.first);
  const took = await assertTold(second, heard);
  await sleep(CONFIRMED_MS);
  await second.rst();
  const third = await back(second);
  await people.alice.message('*', 'live');
  await third.untilText('live');
  await sleep(QUIET_MS);
  assert.deepEqual(third.heard, ['live'], 'what was confirmed is not said again');
  await sleep(GRACE_MS + 700);
  const { alice, carol } = people;
  const ofAway = [alice, carol].flatMap((p) => p.events).filter((e) => e.endsWith(away.fields.displayName));
  assert.deepEqual(new Set(ofAway), new Set([`peer_joined ${away.fields.displayName}`]), 'nobody noticed');
  return `${heard.length} frames in ${took.toFixed(1)} ms`;
}

/** Cut again and again while it is told: what it did not confirm comes again, under the same ids. */
async function cutAgain(mesh) {
  const away = session(mesh, 'bob', { name: 'away' });
  const people = await scene(mesh, away);
  await people.first.rst();
  const { heard } = await sayEverything(mesh, away, people);
  const ids = new Map();
  let repeated = 0;
  for (let bytes = 600; !heard.every((text) => ids.has(text)); bytes += 3500) {
    const peer = await Peer.open(mesh.url, away);
    peer.cutAfter(bytes);
    peer.write(away.hello());
    await Promise.race([peer.gone, sleep(QUIET_MS)]);
    const fresh = peer.heard.filter((text) => !ids.has(text));
    repeated += peer.heard.length - fresh.length;
    for (const [i, frame] of peer.frames.filter(isNews).entries()) {
      const text = peer.heard[i];
      assert.equal(ids.get(text) ?? frame.messageId, frame.messageId, `the id of ${text}`);
      ids.set(text, frame.messageId);
    }
    if (!peer.end) await peer.rst();
  }
  assertOrder([...ids.keys()], heard);
  return `${repeated} frames told again`;
}

/**
 * Mail piles up for a sibling that does not read: what a session missed does not wait for that. Nor
 * does the sibling, reading again, meet so many pings that it takes them for an attack.
 */
async function slowSibling(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const plane = await member(mesh, 'bob').attach();
  const first = await session(mesh, 'bob', { name: 'away' }).attach();
  plane.ws.pause();
  const acks = [];
  for (let i = 0; i < BACKLOG; i++) acks.push(alice.message(mesh.members.bob.pubkey, `for the plane ${i}`));
  for (const ack of await Promise.all(acks)) assert.equal(ack.queued, true, ack.error);
  await first.rst();
  await alice.message('*', 'to all');
  await alice.message(first.pubkey, 'to it');
  const second = await back(first);
  await second.untilText('to it', PROMPT_MS);
  assert.deepEqual(second.texts, ['to all', 'to it']);
  plane.ws.resume();
  await plane.untilCount(isMessage, BACKLOG, 'mail', 20_000);
}

/** More was said than the log holds: it is told so, and gets what there is, and all its mail. */
async function truncated(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const first = await session(mesh, 'bob', { name: 'away' }).attach();
  await sleep(CONFIRMED_MS);
  await first.rst();
  const texts = Array.from({ length: 3 * world.logEntries }, (_, i) => `to all ${i}`);
  for (const text of texts) {
    await alice.message('*', text);
    await alice.message(first.pubkey, `direct ${text}`);
  }
  const second = await back(first);
  assert.equal(second.ack.missed, 'truncated');
  await second.untilText(`direct ${texts.at(-1)}`);
  await sleep(QUIET_MS);
  const isDirect = (text) => text.startsWith('direct');
  assert.deepEqual(second.texts.filter((text) => !isDirect(text)), texts.slice(-world.logEntries));
  assert.deepEqual(second.texts.filter(isDirect), texts.map((text) => `direct ${text}`));
  assert.equal(await metric('holdfast_replays_truncated_total'), 1);
  await sleep(CONFIRMED_MS);
  await second.rst();
  const third = await back(second);
  await sleep(QUIET_MS);
  assert.deepEqual([third.ack.missed, third.texts], [undefined, []], 'told once');
}

/** The broker dies and starts again in between. */
async function overAKill(mesh) {
  const away = session(mesh, 'bob', { name: 'away' });
  const people = await scene(mesh, away);
  await people.first.rst();
  await inGrace(people.alice, away.pubkey);
  const { heard, stays } = await sayEverything(mesh, away, people);
  await sleep(CONFIRMED_MS);
  await stored();
  await ask('kill');
  await ask('start');
  const others = [];
  for (const peer of [people.alice, people.carol, people.shy, stays]) others.push(await back(peer));
  const second = await back(people.first);
  const took = await assertTold(second, heard);
  await sleep(CONFIRMED_MS);
  await second.rst();
  await inGrace(others[0], away.pubkey);
  await stored();
  await ask('kill');
  await ask('start');
  const third = await back(second);
  await sleep(QUIET_MS);
  assert.deepEqual(third.heard, [], 'its row knows what it confirmed');
  assert.deepEqual(others.flatMap((p) => p.events), [], 'who was online is told no news twice');
  for (const [i, peer] of others.entries()) {
    const known = new Set([people.alice, people.carol, people.shy, stays][i].frames.filter(isMessage).map((f) => f.messageId));
    for (const frame of peer.frames.filter(isMessage)) assert.ok(known.has(frame.messageId), 'a broadcast under another id');
  }
  return `${heard.length} frames in ${took.toFixed(1)} ms`;
}

await run({
  'a session': (mesh) => missed(mesh, session(mesh, 'bob', { name: 'away' })),
  'a control plane': (mesh) => missed(mesh, member(mesh, 'bob', { name: 'away' })),
  'cut again': cutAgain,
  'a slow sibling': slowSibling,
}, { 'over a kill': overAKill, truncated });
