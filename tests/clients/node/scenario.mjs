// Runs the cases of a scenario file, each against a mesh of its own, and speaks with the harness
// (tests/support): a line `@verb` on stdout asks it to act on the broker, its answer comes on stdin.
//
//   node lease.mjs WORLD.json [part of a case's name]

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { Identity, eventually } from './mesh.mjs';

export const world = JSON.parse(readFileSync(process.argv[2], 'utf8'));
export const GRACE_MS = world.graceMs;
/** Watching times and counts are as long as the issue asks only in a long run. */
export const LONG = world.long;

for (const mesh of world.meshes) mesh.url = world.url;

export const session = (mesh, name, options) =>
  new Identity(mesh, mesh.members[name], 'session', { name: `${name}-s`, ...options });
export const member = (mesh, name, options) =>
  new Identity(mesh, mesh.members[name], 'member', { name, ...options });
export const throwaway = (mesh, name, options) =>
  new Identity(mesh, mesh.members[name], 'throwaway', { name: `${name}-cli`, ...options });

/**
 * Runs all cases at once and exits with 1 if any failed. Those in `alone` stop the broker under all
 * others, so they are run by name only.
 */
export async function run(cases, alone = {}) {
  const wanted = process.argv[3];
  const offered = wanted ? { ...cases, ...alone } : cases;
  const chosen = Object.entries(offered).filter(([name]) => name.includes(wanted ?? ''));
  if (chosen.length > world.meshes.length) throw new Error(`needs ${chosen.length} meshes`);
  const results = await Promise.all(chosen.map(([name, body], i) => one(name, body, world.meshes[i])));
  process.exit(results.every(Boolean) && results.length > 0 ? 0 : 1);
}

async function one(name, body, mesh) {
  const start = performance.now();
  const seconds = () => ((performance.now() - start) / 1000).toFixed(1);
  try {
    const note = await body(mesh);
    console.log(`ok ${name} (${seconds()} s)${note ? `: ${note}` : ''}`);
    return true;
  } catch (error) {
    console.log(`not ok ${name} (${seconds()} s): ${error.stack}`);
    return false;
  }
}

/** Runs the broker's own command line against its database. */
export function holdfast(...args) {
  const env = { ...process.env, HOLDFAST_DB: world.db };
  return execFileSync(world.bin, args, { env, encoding: 'utf8' });
}

/** Who is present in a mesh according to `holdfast peers`. */
export const peersOf = (mesh) => {
  const answer = JSON.parse(holdfast('peers', mesh.slug, '--json'));
  return Array.isArray(answer) ? answer : answer.peers;
};

/** A metric's value, summed over its labels. */
export async function metric(name) {
  const text = await (await fetch(`${world.http}/metrics`)).text();
  const lines = text.split('\n').filter((l) => l.startsWith(`${name} `) || l.startsWith(`${name}{`));
  if (lines.length === 0) throw new Error(`no metric ${name}`);
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

/** Until everything that was to be written is on disk. */
export const stored = () =>
  eventually(async () => (await metric('holdfast_store_queue')) === 0, 'everything is on disk', 20_000);

/** A session that the broker must not have let go: attached again, it is the same presence. */
export async function back(first, identity = first.identity) {
  const peer = await identity.attach();
  assert.equal(peer.ack.presenceId, first.ack.presenceId);
  assert.equal(peer.ack.reattached, true);
  return peer;
}

/** Waits until a peer sees that a session has lost its socket. */
export const inGrace = (observer, pubkey) =>
  eventually(async () => (await observer.peers()).find((p) => p.pubkey === pubkey)?.lease === 'grace', 'grace');

const asked = [];
let harness = null;

/** Asks the harness: `kill` (SIGKILL), `term` (SIGTERM, answers the exit code), `start`, `rss` (KiB). */
export function ask(verb) {
  if (!harness) {
    harness = createInterface({ input: process.stdin });
    harness.on('line', (line) => asked.shift()(line));
  }
  console.log(`@${verb}`);
  return new Promise((resolve) => asked.push(resolve));
}

/** As `ask`, and any answer but the wanted one is a failure. */
export async function answer(verb, wanted = 'ok') {
  const told = await ask(verb);
  if (told !== wanted) throw new Error(`${verb}: ${told}`);
}
