// No file descriptor is left. Who is there is not harmed, who comes waits, and is served as soon
// as one frees. The harness adds the verbs
//
//   @exhaust    no descriptor beyond those now open; @relieve takes that back
//   @cpu        milliseconds of processor time used so far

import assert from 'node:assert/strict';
import { Peer, eventually, sleep } from './mesh.mjs';
import { ask, metric, run, session, world } from './scenario.mjs';

/** Long enough for a client that could be served to have been. */
const QUIET_MS = 300;
/** "As soon as one frees": the pause between two looks, and some patience. */
const SOON_MS = 2000;
/** Most processor time per second of waiting; a loop that spins takes all of it. */
const CPU_SHARE_MAX = 0.5;

/** A WebSocket that may have to wait for its handshake. */
function waiting(identity) {
  const peer = new Peer(world.url, identity);
  const opened = peer.opened.then(() => performance.now());
  let done = false;
  opened.then(() => { done = true; }, () => {});
  return { peer, opened, served: () => done };
}

/** Takes all sockets the broker has: those taken, and the first one that has to wait. */
async function takeAll(mesh) {
  const held = [];
  for (;;) {
    const late = waiting(session(mesh, 'carol'));
    if (!(await Promise.race([late.opened, sleep(QUIET_MS)]))) return { held, late };
    held.push(late.peer);
    assert.ok(held.length < world.descriptors, 'more sockets than descriptors');
  }
}

async function unharmed(alice, bob, text) {
  await alice.message(bob.pubkey, text);
  await bob.untilText(text);
  assert.equal((await alice.peers()).length, 2);
  assert.deepEqual([alice.end, bob.end], [undefined, undefined]);
}

async function idle() {
  const [before, start] = [Number(await ask('cpu')), performance.now()];
  await sleep(1000);
  const share = (Number(await ask('cpu')) - before) / (performance.now() - start);
  assert.ok(share < CPU_SHARE_MAX, `${(share * 100).toFixed(0)} % of a processor while waiting`);
  return share;
}

/** The broker keeps some descriptors back, and stops accepting before it has none. */
async function sockets(mesh) {
  const [alice, bob] = [await session(mesh, 'alice').attach(), await session(mesh, 'bob').attach()];
  const { held, late } = await takeAll(mesh);
  const kept = world.descriptors - held.length - 2;
  assert.ok(kept > 16, `only ${kept} descriptors kept back`);
  await unharmed(alice, bob, 'all are taken');
  const share = await idle();
  const freed = performance.now();
  held.pop().ws.terminate();
  const took = (await late.opened) - freed;
  assert.ok(took < SOON_MS, `served only after ${took.toFixed(0)} ms`);
  late.peer.write(late.peer.identity.hello());
  await late.peer.until((f) => f.type === 'hello_ack', 'hello_ack');
  for (const peer of held) peer.ws.terminate();
  await late.peer.close(1000);
  assert.ok((await metric('holdfast_accept_paused_total')) > 0);
  return `${held.length + 3} sockets, served after ${took.toFixed(0)} ms, ${(share * 100).toFixed(0)} % processor while waiting`;
}

/** The kernel says EMFILE: the limit was lowered under the running broker. */
async function descriptors(mesh) {
  const [alice, bob] = [await session(mesh, 'alice').attach(), await session(mesh, 'bob').attach()];
  await ask('exhaust');
  // Numbers below the limit that were free are taken first.
  const { held, late } = await takeAll(mesh);
  if (held.length === 0) held.push(bob);
  await unharmed(alice, bob, 'the kernel has none');
  const share = await idle();
  const freed = performance.now();
  held.pop().ws.terminate();
  const took = (await late.opened) - freed;
  assert.ok(took < SOON_MS, `served only after ${took.toFixed(0)} ms`);
  const others = [waiting(session(mesh, 'carol')), waiting(session(mesh, 'carol'))];
  await sleep(QUIET_MS);
  assert.deepEqual(others.map((other) => other.served()), [false, false]);
  await ask('relieve');
  await Promise.all(others.map((other) => other.opened));
  await eventually(() => others.every((other) => other.served()), 'all are served', SOON_MS);
  for (const { peer } of [late, ...others]) peer.ws.terminate();
  if (!bob.end) await unharmed(alice, bob, 'after it all');
  return `served after ${took.toFixed(0)} ms, ${(share * 100).toFixed(0)} % processor while waiting`;
}

await run({ sockets, descriptors });
