// A thousand sessions under load, and a broker that is killed or stopped, and started again.
// Nobody is told of anybody who comes back, everything acknowledged arrives, and of those who stay
// away everybody hears once, after the restart grace. The harness adds the verb
//
//   @check    looks at a copy of the database of a broker that does not run

import assert from 'node:assert/strict';
import { Dice, Fleet } from './crash-fleet.mjs';
import { eventually, sleep, textOf } from './mesh.mjs';
import { LONG, answer, peersOf, run, session, stored, world } from './scenario.mjs';

const SESSIONS = world.sessions;
/** Sockets opened at a time while the crowd gathers. */
const BATCH = 100;
/** One in so many never comes back. */
const DEAD_EVERY = 20;
const SENDERS = 20;
const SPEAKERS = 3;
/** Between two broadcasts of one speaker, of which each reaches two thirds of the crowd. */
const SPEECH_MS = 300;
/** Load before each end of the broker. */
const LIFE_MS = 1000;
const DOWN_MS = LONG ? [1000, 30_000] : [1000];
const RESTART_GRACE_MS = world.restartGraceMs;
/** Beyond a lease: many ends at once, and a crowded machine. */
const LATE_MS = 3000;
/** Long enough for a leave to be told a second time. */
const TWICE_MS = 500;
const CRASHES = 10;
/** Kills without waiting for everybody to be back: a lease is extended at three starts in a row. */
const HASTE_MAX = 2;
const BACK_MS = RESTART_GRACE_MS - 500;

/** A fleet that also speaks to all, and counts who was told of whose end. */
class Crowd extends Fleet {
  /** messageId of an acknowledged broadcast -> who said it, and its number */
  said = new Map();
  /** `observer of key` -> when it was told of the end, and under which id */
  leaves = new Map();

  book(actor, frame) {
    const note = actor.pending.get(frame.id);
    super.book(actor, frame);
    if (note?.to !== '*' || !frame.queued) return;
    this.acked.delete(frame.messageId);
    this.said.set(frame.messageId, { ...note, member: actor.identity.member.memberId });
  }

  arrive(actor, frame) {
    const { from, to, n } = JSON.parse(textOf(frame));
    if (to !== '*') return super.arrive(actor, frame);
    actor.speeches ??= new Map();
    if (actor.speeches.has(frame.messageId)) return; // again, on another socket
    actor.speeches.set(frame.messageId, n);
    actor.last ??= new Map();
    if (n <= (actor.last.get(from) ?? -1)) this.fault(`${actor.name} heard ${from}'s ${n} after ${actor.last.get(from)}`);
    actor.last.set(from, n);
  }

  presence(actor, frame) {
    super.presence(actor, frame);
    if (!this.settled || frame.event !== 'peer_left') return;
    const key = `${actor.name} of ${frame.eventData.pubkey}`;
    const [times, id] = [this.leaves.get(key) ?? [], frame.messageId];
    if (times.some((before) => before.id === id && this.perhapsUnconfirmed(before.at))) return;
    this.leaves.set(key, [...times, { id, at: performance.now() }]);
  }

  /** Everything acknowledged is where it belongs. */
  async complete() {
    await super.complete();
    const unheard = () => {
      const listeners = this.actors.filter((a) => !a.retired);
      return [...this.said].flatMap(([id, { from, n, member }]) => listeners
        .filter((a) => a.identity.member.memberId !== member && !a.speeches?.has(id))
        .map((a) => `${from}'s broadcast ${n} was acknowledged and not heard by ${a.name}`));
    };
    const deadline = performance.now() + 10_000;
    while (performance.now() < deadline && unheard().length > 0) await sleep(50);
    for (const text of unheard()) this.fault(text);
  }

  /** Each of the dead is said to have left once, to everybody, and not before that time. */
  async assertLeft(dead, earliest) {
    const observers = this.actors.filter((a) => !a.retired);
    const told = (observer, { pubkey }) => this.leaves.get(`${observer.name} of ${pubkey}`) ?? [];
    const all = () => observers.every((observer) => dead.every((gone) => told(observer, gone).length > 0));
    const deadline = performance.now() + RESTART_GRACE_MS + LATE_MS;
    while (performance.now() < deadline && !all()) await sleep(100);
    await sleep(TWICE_MS);
    let last = 0;
    for (const observer of observers) {
      for (const gone of dead) {
        const [times, { name }] = [told(observer, gone), gone];
        if (times.length !== 1) this.fault(`${observer.name} was told ${times.length} times that ${name} left`);
        else if (times[0].at < earliest) this.fault(`${name} left ${(earliest - times[0].at).toFixed(0)} ms too early`);
        else last = Math.max(last, times[0].at);
      }
    }
    return last - earliest;
  }
}

async function gather(mesh) {
  const crowd = new Crowd();
  const names = ['alice', 'bob', 'carol'];
  for (let i = 0; i < SESSIONS; i++) {
    const identity = session(mesh, names[i % names.length], { name: `s${i}` });
    crowd.add(identity, { acks: i % 2 === 0, crowded: true });
    if (i % BATCH === BATCH - 1) await crowd.attached();
  }
  await crowd.attached();
  console.log(`${SESSIONS} sessions gathered after ${(performance.now() / 1000).toFixed(1)} s`);
  await stored();
  await sleep(1500); // joins are told, and confirmed
  crowd.settled = true;
  return crowd;
}

/** Some send to each other, some to all, until told to stop. */
function talk(crowd, dice) {
  let going = true;
  const some = (from, count) => crowd.actors.slice(from, from + count);
  const send = async (actor) => {
    while (going) {
      for (let i = dice.below(8); i >= 0; i--) {
        const to = dice.pick(crowd.actors);
        if (to !== actor && !to.retired) actor.send(to);
      }
      await sleep(20 + dice.below(60));
    }
  };
  const speak = async (actor) => {
    while (going) {
      actor.send({ name: '*', pubkey: '*' });
      await sleep(dice.below(2 * SPEECH_MS));
    }
  };
  const done = Promise.all([...some(0, SENDERS).map(send), ...some(SENDERS, SPEAKERS).map(speak)]);
  return async () => { going = false; await done; };
}

async function kill(crowd) {
  await answer('kill');
  crowd.kills.push(performance.now());
}

/** The broker starts, and everybody is back; gives how long that took. */
async function back(crowd) {
  await answer('start');
  const start = performance.now();
  await crowd.attached(BACK_MS);
  return (performance.now() - start).toFixed(0);
}

async function everybodyBack(crowd) {
  for (const down of DOWN_MS) {
    await sleep(LIFE_MS);
    await kill(crowd);
    await answer('check');
    await sleep(down);
    console.log(`killed for ${down} ms: all back ${await back(crowd)} ms after`);
  }
  await sleep(LIFE_MS);
  await answer('term', '0');
  console.log(`stopped: ${await back(crowd)} ms`);
}

/** Some never come back after the kill. */
async function someStayDead(crowd) {
  await sleep(LIFE_MS);
  await kill(crowd);
  const dead = crowd.actors.filter((_, i) => i % DEAD_EVERY === DEAD_EVERY - 1);
  for (const actor of dead) {
    crowd.fleeting.add(actor.pubkey);
    actor.retire();
  }
  await sleep(300);
  const earliest = performance.now() + RESTART_GRACE_MS;
  const took = await back(crowd);
  const late = await crowd.assertLeft(dead, earliest);
  return `${dead.length} stayed dead: the others back after ${took} ms, told of it within ${late.toFixed(0)} ms of the grace`;
}

/** Killed over and over, mostly before everybody is back: who stays dead leaves all the same. */
async function crashLoop(crowd) {
  const dead = crowd.actors.filter((a) => !a.retired).slice(-SESSIONS / DEAD_EVERY / 2);
  for (const actor of dead) {
    crowd.fleeting.add(actor.pubkey);
    actor.retire();
  }
  for (let i = 0; i < CRASHES; i++) {
    if (i % (HASTE_MAX + 1) === 0) await crowd.attached(BACK_MS);
    else await sleep(300);
    await kill(crowd);
    await answer('start');
  }
  await crowd.attached(BACK_MS);
  await crowd.assertLeft(dead, 0);
}

/** Everybody says goodbye: nobody is left, and nobody comes back from the disk. */
async function allGone(mesh, crowd) {
  crowd.settled = false; // the last hear of the first
  for (const actor of crowd.actors.filter((a) => !a.retired)) actor.goodbye();
  const start = performance.now();
  await eventually(() => peersOf(mesh).length === 0, 'nobody is listed', 20_000);
  console.log(`all said goodbye: gone after ${(performance.now() - start).toFixed(0)} ms`);
  await stored();
  await kill(crowd);
  await answer('check');
  await answer('start');
  assert.deepEqual(peersOf(mesh), [], 'nor was on disk');
}

async function crowd(mesh) {
  const people = await gather(mesh);
  const stop = talk(people, new Dice(world.seed));
  await everybodyBack(people);
  console.log(await someStayDead(people));
  await stop();
  await people.complete();
  const start = performance.now();
  await crashLoop(people);
  console.log(`${CRASHES} crashes in a row: ${((performance.now() - start) / 1000).toFixed(1)} s`);
  await people.complete();
  await allGone(mesh, people);
  return `${people.finish(world.seed)}, ${people.said.size} broadcasts`;
}

await run({ crowd });
