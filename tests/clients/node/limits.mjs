// The send rate of a member: ten at once, then one a second. The harness leaves the default rate on.

import assert from 'node:assert/strict';
import { sleep } from './mesh.mjs';
import { run, session } from './scenario.mjs';

const REFUSAL = 'rate_limit: max 60 msg/min (burst 10) \u2014 slow down';

async function rate(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const sibling = await session(mesh, 'alice', { name: 'alice-2' }).attach();
  const bob = await session(mesh, 'bob').attach();
  const acks = [];
  for (let i = 0; i < 12; i++) acks.push(await (i % 2 ? sibling : alice).message('@nobody', `m${i}`));
  assert.equal(acks.filter((a) => a.queued).length, 10, 'one bucket per member');
  assert.deepEqual([acks[10].error, acks[10].messageId], [REFUSAL, '']);
  assert.equal((await bob.message('@nobody', 'another member')).queued, true);
  await sleep(1100);
  assert.equal((await alice.message('@nobody', 'refilled')).queued, true);
  assert.equal((await alice.message('@nobody', 'not yet')).error, REFUSAL);
}

await run({ rate });
