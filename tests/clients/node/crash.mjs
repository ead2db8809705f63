// The broker dies at random moments under load and starts again, over and over. Nothing that was
// acknowledged is lost, order holds, nobody is told of those who come back in time, and the
// database is sound after every kill. The harness adds the verbs
//
//   @spawn    starts the broker and does not wait for it
//   @check    looks at a copy of the database of a broker that does not run
//   @audit    writes the audit log to a file, of which it tells the name
//   @ended    session keys of all presence rows that have ended
//   @lose messages, @lose leases, @swap messages, @break chain    what no broker may do

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Dice, Fleet, load } from './crash-fleet.mjs';
import { eventually, sleep } from './mesh.mjs';
import { GRACE_MS, answer, ask, member, run, session, stored, throwaway, world } from './scenario.mjs';

/** Longest time between a start and the next kill; the moment is random. */
const LIFE_MS = world.lifeMs;
/** Kills without waiting for everybody to be back: a lease is extended at three starts in a row. */
const HASTE_MAX = 2;
/** Longest time that one of them is away by itself; its mail is read back from the disk. */
const NAP_MS = 600;
/** A session that joined amid the kills stays this long. */
const STAY_MS = 1500;

/** Those who stay: they send, they receive, they watch. */
function crew(mesh, fleet) {
  const acks = { acks: true };
  const people = {
    acking: fleet.add(session(mesh, 'bob', { name: 'acking' }), acks),
    ponging: fleet.add(session(mesh, 'bob', { name: 'ponging' })),
    plane: fleet.add(member(mesh, 'carol', { name: 'plane' }), acks),
    sibling: fleet.add(session(mesh, 'carol', { name: 'sibling' })),
    alice: fleet.add(session(mesh, 'alice', { name: 'alice' }), acks),
    wobbly: fleet.add(session(mesh, 'alice', { name: 'wobbly' })),
    watcher: fleet.add(member(mesh, 'alice', { name: 'watcher' })),
    bystander: fleet.add(session(mesh, 'bob', { name: 'bystander' })),
  };
  const { acking, ponging, plane, sibling, alice, wobbly } = people;
  return {
    ...people,
    senders: [alice, sibling, ponging, acking],
    targets: [acking, ponging, sibling, wobbly, alice, { name: mesh.members.carol.pubkey, pubkey: mesh.members.carol.pubkey }],
    plane,
  };
}

/** A session that comes, stays a little and goes, or a command that comes and goes at once. */
async function comer(mesh, fleet, dice, within) {
  const command = dice.next() < 0.5;
  const [who, wait, stay] = [dice.pick(['alice', 'bob', 'carol']), dice.below(within), command ? dice.below(30) : STAY_MS];
  await sleep(wait);
  const identity = (command ? throwaway : session)(mesh, who, { name: `comer-${fleet.fleeting.size}` });
  fleet.fleeting.add(identity.pubkey);
  const actor = fleet.add(identity, { patient: !command });
  await eventually(() => actor.online || actor.end, 'a comer', 15_000);
  await sleep(stay);
  actor.retire(command);
  fleet.actors.splice(fleet.actors.indexOf(actor), 1);
}

/** One life of the broker: some load, then the end at a random moment. */
async function life(mesh, fleet, crewed, dice, state) {
  const hasty = state.haste < HASTE_MAX && dice.next() < 0.25;
  state.haste = hasty ? state.haste + 1 : 0;
  if (!hasty) {
    await answer('start');
    await fleet.attached();
  } else if (dice.next() < 0.5) {
    await answer('start');
  } else {
    await answer('spawn');
  }
  if (dice.next() < 0.3) crewed.wobbly.nap(sleep(dice.below(NAP_MS)));
  const span = dice.below(hasty ? 120 : LIFE_MS);
  for (let i = dice.below(4); i > 0; i--) state.guests.push(comer(mesh, fleet, dice, span));
  await sleep(span);
}

async function kills(mesh) {
  const dice = new Dice(world.seed);
  const fleet = new Fleet();
  const crewed = crew(mesh, fleet);
  await fleet.attached();
  await stored();
  await sleep(300); // the joins of those who stay are told
  fleet.settled = true;
  const stop = load(fleet, dice, crewed.senders, crewed.targets);
  const start = performance.now();
  const state = { haste: 0, guests: [] };
  let round = 0;
  while (round < world.rounds && performance.now() - start < world.budgetMs && fleet.faults.length === 0) {
    if (round > 0) await life(mesh, fleet, crewed, dice, state);
    else await sleep(dice.below(LIFE_MS));
    await answer('kill');
    fleet.kills.push(performance.now());
    await answer('check');
    round += 1;
    if (round % 25 === 0) {
      const rate = ((performance.now() - start) / round).toFixed(0);
      console.log(`round ${round} of ${world.rounds}, ${rate} ms each: ${fleet.sent} sent, ${fleet.acked.size} acknowledged`);
    }
  }
  await answer('start');
  await Promise.all(state.guests);
  await fleet.attached();
  await stop();
  await fleet.complete();
  await goneForGood(mesh, fleet, crewed);
  await nobodyForgotten(mesh, fleet, crewed);
  const sum = fleet.finish(world.seed);
  assert.ok(round >= world.roundsMin, `only ${round} rounds in ${world.budgetMs} ms`);
  return `${round} kills, seed ${world.seed}, ${sum}`;
}

/** The hashes of the audit log of a dead broker, computed anew (protocol.md, section 17). */
async function chainsHold() {
  const rows = JSON.parse(readFileSync(await ask('audit'), 'utf8'));
  assert.ok(rows.length > 0, 'the audit log is empty');
  const last = new Map();
  for (const row of rows) {
    const before = last.get(row.mesh) ?? 'genesis';
    assert.equal(row.prev, before, `audit row ${row.id} does not follow the row before`);
    const text = [before, row.mesh, row.event, row.actor ?? 'null', row.payload, new Date(row.at).toISOString()];
    assert.equal(row.hash, createHash('sha256').update(text.join('|')).digest('hex'), `hash of audit row ${row.id}`);
    last.set(row.mesh, row.hash);
  }
}

/** Some stay away after the last kill: one peer_left each, not before their grace, for everybody. */
async function goneForGood(mesh, fleet, crewed) {
  const dead = ['bob', 'carol', 'alice'].map((who) => fleet.add(session(mesh, who, { name: `dead-${who}` })));
  for (const actor of dead) fleet.fleeting.add(actor.pubkey);
  await fleet.attached();
  await stored();
  await sleep(300);
  for (const actor of dead) actor.retire();
  await answer('kill');
  const left = new Map();
  const observers = [crewed.watcher, crewed.bystander, crewed.sibling, crewed.acking];
  const presence = fleet.presence.bind(fleet);
  fleet.presence = (actor, frame) => {
    const key = `${actor.name} ${frame.event} ${frame.eventData.pubkey}`;
    left.set(key, [...(left.get(key) ?? []), performance.now()]);
    presence(actor, frame);
  };
  const earliest = performance.now() + GRACE_MS;
  await answer('start');
  await fleet.attached();
  await sleep(GRACE_MS + 1500);
  for (const observer of observers) {
    for (const actor of dead) {
      const times = left.get(`${observer.name} peer_left ${actor.pubkey}`) ?? [];
      if (times.length !== 1) fleet.fault(`${observer.name} was told ${times.length} times that ${actor.name} left`);
      else if (times[0] < earliest) fleet.fault(`${actor.name} left ${earliest - times[0]} ms too early`);
    }
  }
}

/** What is there is what was told: no ghosts in the list, no join without a row that will end. */
async function nobodyForgotten(mesh, fleet, crewed) {
  const staying = fleet.actors.filter((a) => !a.retired).map((a) => a.pubkey);
  const listed = () => crewed.bystander.peers().then((peers) => peers.map((p) => p.pubkey).toSorted());
  await eventually(async () => (await listed()).length === staying.length, 'an end of all leases', 3 * GRACE_MS + 5000);
  assert.deepEqual(await listed(), staying.toSorted());
  await stored();
  await answer('kill');
  await chainsHold();
  const ended = new Set(JSON.parse(await ask('ended')));
  for (const key of fleet.present()) {
    if (!ended.has(key)) fleet.fault(`a join of ${key.slice(0, 8)} was told, and no row says that it ended`);
  }
}

/** What the broker grants a client to take its close frame. */
const CLOSE_WAIT_MS = 2000;

/** SIGTERM under load, several times: 1001, exit 0, soon; nothing is lost and nobody is told. */
async function terms(mesh) {
  const dice = new Dice(world.seed);
  const fleet = new Fleet();
  const crewed = crew(mesh, fleet);
  await fleet.attached();
  await stored();
  await sleep(300);
  fleet.settled = true;
  const stop = load(fleet, dice, crewed.senders, crewed.targets);
  let slowest = 0;
  for (let round = 0; round < world.terms; round++) {
    await sleep(100 + dice.below(300));
    const before = performance.now();
    const ends = fleet.actors.map((actor) => actor.ended().then((end) => ({ ...end, after: performance.now() - before })));
    await answer('term', '0');
    slowest = Math.max(slowest, performance.now() - before);
    for (const { after, ...end } of await Promise.all(ends)) {
      // A client on a crowded machine may read its close later than the broker waits for it.
      if (end.code === 1006 && after > CLOSE_WAIT_MS) continue;
      assert.deepEqual(end, { code: 1001, reason: 'shutting down' }, `after ${after.toFixed(0)} ms`);
    }
    await answer('check');
    await answer('start');
    await fleet.attached();
  }
  await stop();
  await fleet.complete();
  await answer('kill');
  await chainsHold();
  assert.ok(slowest < world.stopMs, `a stop took ${slowest.toFixed(0)} ms`);
  return `${world.terms} stops, the slowest took ${slowest.toFixed(0)} ms, ${fleet.finish(world.seed)}`;
}

/** Whatever a broker may lose, and what the checks above say of it. */
const LOSSES = {
  'lose messages': /acknowledged, but never arrived/,
  'lose leases': /its lease was gone/,
  'swap messages': /got alice's message \d+ after/,
};

/** The checks can fail. */
async function losses(mesh) {
  for (const [verb, wanted] of Object.entries(LOSSES)) {
    const fleet = new Fleet();
    fleet.quiet = true;
    const alice = fleet.add(session(mesh, 'alice', { name: 'alice' }));
    const bob = fleet.add(session(mesh, 'bob', { name: 'bob' }));
    await fleet.attached();
    let wake;
    bob.nap(new Promise((resolve) => { wake = resolve; }));
    for (let i = 0; i < 20; i++) alice.send(bob);
    await eventually(() => fleet.acked.size === 20, 'acks');
    await answer('kill');
    await answer('check');
    await answer(verb);
    await answer('start');
    wake();
    await fleet.attached();
    await fleet.complete(500);
    assert.ok(fleet.faults.some((fault) => wanted.test(fault)), `${verb} was not noticed: ${fleet.faults}`);
    for (const actor of fleet.actors) actor.retire();
  }
  await answer('kill');
  await answer('break chain');
  assert.match(await ask('check'), /do not follow/);
  await assert.rejects(chainsHold, /audit row/);
}

await run({ kills, terms, losses });
