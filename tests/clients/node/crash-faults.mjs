// The database fails while the broker runs, and comes back. Sends are refused with a reason that
// names it, everything else goes on, and service returns by itself. The harness breaks and mends:
//
//   @break, @mend    what the test is about
//   @check           looks at a copy of the database of a broker that does not run
//   @refused         starts a broker that must not come up; answers its exit code and last line

import assert from 'node:assert/strict';
import { Dice, Fleet, load } from './crash-fleet.mjs';
import { Peer, eventually, sleep } from './mesh.mjs';
import { answer, ask, member, metric, run, session, stored, throwaway, world } from './scenario.mjs';

/** Longest time until service is back. */
const HEALED_MS = 10_000;

const ready = async () => (await fetch(`${world.http}/health/ready`)).status;
const health = async () => (await fetch(`${world.http}/health`)).json();

/** A few clients under load of messages of some size, and somebody who watches. */
async function busy(mesh) {
  const fleet = new Fleet();
  const [alice, bob, carol] = [
    fleet.add(session(mesh, 'alice', { name: 'alice' }), { acks: true }),
    fleet.add(session(mesh, 'bob', { name: 'bob' })),
    fleet.add(session(mesh, 'carol', { name: 'carol' }), { acks: true }),
  ];
  fleet.add(member(mesh, 'bob', { name: 'plane' }));
  await fleet.attached();
  await sleep(300);
  fleet.settled = true;
  const stop = load(fleet, new Dice(1), [alice, bob], [alice, bob, carol], { padding: 4000 });
  await eventually(() => fleet.acked.size > 200, 'messages before the fault');
  return { fleet, stop, carol };
}

/** The fault shows: sends are refused for the reason given, health and metrics say so. */
async function failing(fleet) {
  fleet.refusal = new RegExp(world.reason);
  await answer('break');
  await eventually(() => Object.keys(fleet.refused).length > 0, 'a refused send', 20_000);
  assert.equal(await eventually(async () => (await ready()) === 503, 'not ready'), true);
  assert.equal((await health()).db, 'down');
  assert.equal((await fetch(`${world.http}/health`)).status, 200);
  assert.equal(await metric('broker_db_healthy'), 0);
}

/** Joins, leaves and lists work although nothing can be written. */
async function presenceGoesOn(mesh, fleet, carol) {
  const newcomer = session(mesh, 'alice', { name: 'newcomer' });
  const command = throwaway(mesh, 'alice', { name: 'command' });
  for (const identity of [newcomer, command]) fleet.fleeting.add(identity.pubkey);
  const stays = fleet.add(newcomer);
  const peer = await command.attach();
  await fleet.attached();
  const told = (identity) => fleet.told.get(`carol of ${identity.pubkey}`)?.what;
  await eventually(() => told(newcomer) === 'joined' && told(command) === 'joined', 'joins are told');
  assert.ok((await carol.peers()).some((p) => p.pubkey === newcomer.pubkey), 'the newcomer is listed');
  await peer.close(1000);
  await eventually(() => told(command) === 'left', 'a leave is told');
  assert.ok((await carol.peers()).every((p) => p.pubkey !== command.pubkey), 'who left is not listed');
  carol.drop();
  await eventually(() => !carol.online, 'carol dropped');
  await fleet.attached();
  return stays;
}

async function healed(fleet) {
  const before = performance.now();
  await answer('mend');
  await eventually(async () => (await ready()) === 200, 'ready again', HEALED_MS);
  const after = performance.now() - before;
  assert.equal(await metric('broker_db_healthy'), 1);
  await sleep(200); // what was refused before has been told
  fleet.refusal = null;
  const count = fleet.acked.size;
  await eventually(() => fleet.acked.size > count + 50, 'sends are accepted again');
  return after;
}

/** What was told while the database failed is on disk once it is back, and survives a kill. */
async function nothingForgotten(fleet, stop) {
  await stop();
  await fleet.complete();
  await stored();
  await answer('kill');
  await answer('check');
  await answer('start');
  await fleet.attached();
  await sleep(300);
}

async function broken(mesh) {
  const { fleet, stop, carol } = await busy(mesh);
  await failing(fleet);
  await presenceGoesOn(mesh, fleet, carol);
  assert.equal(await ready(), 503, 'it still fails');
  const after = await healed(fleet);
  await nothingForgotten(fleet, stop);
  return `ready ${after.toFixed(0)} ms after, ${fleet.finish()}; ${Object.keys(fleet.refused)}`;
}

/** The broker dies while the disk is full, and cannot be started again before there is room. */
async function killed(mesh) {
  const { fleet, stop } = await busy(mesh);
  await failing(fleet);
  await stop();
  await answer('kill');
  const told = await ask('refused');
  // With the log written back there may be just enough room.
  assert.match(told, /^(1 [^\n]*full[^\n]*|it came up)$/, `a start on a full disk: ${told}`);
  await answer('mend');
  await answer('check');
  await answer('start');
  fleet.refusal = null;
  await fleet.attached();
  await fleet.complete();
  return `${fleet.finish()}; "${told}"`;
}

/** A stop while nothing can be written ends all the same, and loses nothing acknowledged. */
async function stopped(mesh) {
  const { fleet, stop } = await busy(mesh);
  await failing(fleet);
  const before = performance.now();
  assert.equal(await ask('term'), '0', 'exit code');
  const took = performance.now() - before;
  assert.ok(took < world.stopMs, `the stop took ${took.toFixed(0)} ms`);
  await stop();
  await answer('mend');
  await answer('check');
  await answer('start');
  fleet.refusal = null;
  await fleet.attached();
  await fleet.complete();
  return `stopped in ${took.toFixed(0)} ms, ${fleet.finish()}`;
}

await run({ broken, killed, stopped });
