// A stopped process keeps its TCP connection but proves no life: it is aborted, enters grace, and
// comes back silently. A client that merely has nothing to say is left alone.
// The harness runs the broker with a short --ping-interval and --pong-timeout.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { eventually, sleep } from './mesh.mjs';
import { GRACE_MS, run, session, world } from './scenario.mjs';

async function stopped(mesh) {
  const bob = await session(mesh, 'bob').attach();
  const file = join(mkdtempSync(join(tmpdir(), 'holdfast-sleeper-')), 'identity.json');
  writeFileSync(file, JSON.stringify({ url: world.url, mesh, member: mesh.members.alice, name: 'sleeper' }));
  const child = spawn(process.execPath, [join(import.meta.dirname, 'sleeper.mjs'), file], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const said = [];
    createInterface({ input: child.stdout }).on('line', (line) => said.push(JSON.parse(line)));
    await eventually(() => said.length === 1, 'the sleeper attached');
    const lease = async () => (await bob.peers()).find((p) => p.displayName === 'sleeper')?.lease;

    await sleep(world.pongTimeoutMs * 2);
    assert.equal(await lease(), 'online', 'an idle client is left alone');

    child.kill('SIGSTOP');
    const stop = performance.now();
    await eventually(async () => (await lease()) === 'grace', 'the stopped client in grace', world.pongTimeoutMs + 1500);
    const silence = performance.now() - stop;
    assert.ok(silence > world.pongTimeoutMs - world.pingIntervalMs - 200, `aborted after ${silence.toFixed(0)} ms`);
    await bob.message(said[0].pubkey, 'good morning');

    child.kill('SIGCONT');
    await eventually(() => said.length === 2, 'the sleeper is back', GRACE_MS);
    assert.equal(said[1].ack.presenceId, said[0].ack.presenceId);
    assert.equal(said[1].ack.reattached, true);
    await sleep(GRACE_MS + 700);
    assert.equal(await lease(), 'online');
    assert.deepEqual(bob.events, ['peer_joined sleeper']);
    return `aborted after ${silence.toFixed(0)} ms`;
  } finally {
    child.kill('SIGKILL');
  }
}

await run({ stopped });
