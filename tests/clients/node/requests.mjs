// Walks the table of requests in README: each example gets the answer it says, within 100 ms, and
// each request that has fields says which one is missing.

import assert from 'node:assert/strict';
import { run, session, world } from './scenario.mjs';

const WITHIN_MS = 100;
/** How often a late answer is asked for again: the machine may have been busy, the broker not. */
const TRIES = 3;

/** Puts what earlier answers said in the place of `$frame.field`. */
function filled(text, peer) {
  return text.replace(/\$(\w+)(?:\.(\w+))?/g, (_, name, field) => {
    if (name === 'me') return peer.pubkey;
    const frame = peer.frames.findLast((f) => f.type === name);
    assert.ok(frame?.[field], `${name}.${field} is known`);
    return frame[field];
  });
}

/** Sends a request and gives the frame that answers it, and after how long it came. */
async function ask(peer, type, fields, _reqId, answer) {
  const began = performance.now();
  peer.write({ type, id: _reqId, ...fields, _reqId });
  const before = peer.frames.length;
  // An error of topics has the request's id as its own, and `context_shared` none.
  const answers = (f) => f._reqId === _reqId || f.id === _reqId
    || (f.type === answer && f._reqId === undefined && peer.frames.indexOf(f) >= before);
  const frame = await peer.until(answers, `answer to ${type}`);
  return [frame, performance.now() - began];
}

async function everyRequest(mesh) {
  const peer = await session(mesh, 'alice').attach();
  let asked = 0;
  for (const [type, example, answer] of world.requests.filter(([type]) => type !== 'goodbye')) {
    const wanted = answer === '–' ? null : answer.replaceAll('`', '');
    const fields = JSON.parse(filled(example, peer));
    if (wanted === null) peer.write({ type, ...fields });
    for (let tried = 1; wanted !== null; tried++) {
      const [frame, ms] = await ask(peer, type, fields, `q${asked++}`, wanted);
      const got = frame.type === 'error' ? `error ${frame.code}` : frame.type;
      assert.equal(got, wanted, `${type} is answered ${JSON.stringify(frame)}`);
      if (ms <= WITHIN_MS) break;
      assert.ok(tried < TRIES, `${type} took ${ms.toFixed(0)} ms`);
    }
    // Fields that are all optional cannot be missing.
    if (wanted !== null) continue;
    const [refused] = await ask(peer, type, {}, `q${asked++}`, 'error');
    assert.equal(refused.code, 'invalid_argument', `${type} without fields: ${JSON.stringify(refused)}`);
  }
  assert.equal(peer.end, undefined);
  const unasked = peer.frames.filter((f) => f.type === 'error' && f._reqId === undefined && f.id === undefined);
  assert.deepEqual(unasked, [], 'nothing was wrong with the examples that have no answer');
  peer.write({ type: 'goodbye' });
  assert.equal((await peer.closed).code, 1000);
  return `${world.requests.length} requests`;
}

await run({ everyRequest });
