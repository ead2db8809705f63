// The socket of a receiver is killed at a random byte in the middle of a burst of messages; it
// comes back, and is killed again, until it has them all. None is missing, none out of order, and
// what comes twice comes under the same id, on another socket.

import assert from 'node:assert/strict';
import { Dice } from './crash-fleet.mjs';
import { Peer, isMessage, sleep, textOf } from './mesh.mjs';
import { run, session, world } from './scenario.mjs';

const MESSAGES = 10_000;
/** Sends of one burst that wait for their ack. */
const WINDOW = 512;
/** About what a burst takes on the wire: sockets are cut anywhere within. */
const BURST_BYTES = MESSAGES * 450;
/** A last message is confirmed by then: a watermark follows a burst within a second. */
const CONFIRMED_MS = 1500;
const QUIET_MS = 300;
const PATIENCE_MS = 30_000;

const dice = new Dice(world.seed);

/** Sends a burst, with so many sends unanswered at most; gives number -> messageId. */
async function send(alice, to, burst) {
  const acks = new Map();
  const waiting = new Map();
  let next = 0;
  let done;
  const all = new Promise((resolve, reject) => {
    done = resolve;
    alice.gone.then(() => reject(new Error('the sender lost its socket')));
  });
  const fill = () => {
    while (next < MESSAGES && waiting.size < WINDOW) {
      const id = `${burst}/${next}`;
      waiting.set(id, next);
      const ciphertext = Buffer.from(id).toString('base64');
      alice.write({ type: 'send', id, targetSpec: to, priority: 'now', nonce: 'bm9uY2U=', ciphertext, client_message_id: id });
      next += 1;
    }
  };
  const take = (data) => {
    const frame = JSON.parse(data);
    if (frame.type !== 'ack') return;
    assert.equal(frame.queued, true, frame.error);
    acks.set(waiting.get(frame.id), frame.messageId);
    waiting.delete(frame.id);
    fill();
    if (acks.size === MESSAGES) done();
  };
  alice.ws.on('message', take);
  fill();
  await all;
  alice.ws.off('message', take);
  return acks;
}

/** One session through all its sockets. */
class Receiver {
  /** messageId -> number within the burst */
  got = new Map();
  repeated = 0;
  cuts = 0;
  #tellComplete;

  constructor(identity, burst, acks) {
    this.identity = identity;
    this.burst = burst;
    this.acks = acks;
  }

  /** Comes back until nothing is missing; every socket is cut somewhere, if it lasts so long. */
  async run() {
    const deadline = performance.now() + PATIENCE_MS;
    while (this.got.size < MESSAGES) {
      assert.ok(performance.now() < deadline, `burst ${this.burst}: ${this.got.size} of ${MESSAGES} after ${this.cuts} cuts`);
      const peer = await Peer.open(this.identity.mesh.url, this.identity);
      const seen = new Set();
      peer.ws.on('message', (data) => this.#take(peer, seen, JSON.parse(data)));
      peer.cutAfter(1 + dice.below(BURST_BYTES));
      peer.write(this.identity.hello());
      const complete = new Promise((resolve) => { this.#tellComplete = resolve; });
      await Promise.race([peer.gone, complete, sleep(PATIENCE_MS)]);
      if (!peer.end) return peer;
      this.cuts += 1;
    }
    return this.identity.attach(); // the last message was the last before the cut
  }

  #take(peer, seen, frame) {
    assert.notEqual(frame.type, 'error', JSON.stringify(frame));
    if (!isMessage(frame)) return;
    const [burst, number] = textOf(frame).split('/').map(Number);
    assert.equal(burst, this.burst, 'a message of an earlier burst');
    assert.ok(!seen.has(frame.messageId), `number ${number} twice on one socket`);
    seen.add(frame.messageId);
    if (this.got.has(frame.messageId)) {
      assert.equal(this.got.get(frame.messageId), number);
      this.repeated += 1;
    } else {
      assert.equal(number, this.got.size, 'in order, none left out, none under a new id');
      this.got.set(frame.messageId, number);
    }
    if (this.got.size === MESSAGES) this.#tellComplete();
    if (this.acks && peer.ws.readyState === 1) peer.write({ type: 'client_ack', brokerMessageId: frame.messageId });
  }
}

async function bursts(mesh) {
  const alice = await session(mesh, 'alice').attach();
  // Clients that only answer pings and clients that acknowledge take turns.
  const receivers = [session(mesh, 'bob', { name: 'ponging' }), session(mesh, 'bob', { name: 'acking' })];
  let [cuts, repeated] = [0, 0];
  const start = performance.now();
  for (let burst = 0; burst < world.bursts; burst++) {
    const identity = receivers[burst % 2];
    await (await identity.attach()).rst();
    const receiver = new Receiver(identity, burst, burst % 2 === 1);
    const [acks, last] = await Promise.all([send(alice, identity.pubkey, burst), receiver.run()]);
    for (const [number, id] of acks) assert.equal(receiver.got.get(id), number, `number ${number} of burst ${burst}`);
    await sleep(CONFIRMED_MS);
    await last.rst();
    const after = await identity.attach();
    await sleep(QUIET_MS);
    assert.deepEqual(after.texts.slice(0, 3), [], 'what was confirmed comes no more');
    await after.rst();
    cuts += receiver.cuts;
    repeated += receiver.repeated;
    if ((burst + 1) % 10 === 0) console.log(`burst ${burst + 1} of ${world.bursts}: ${cuts} cuts, ${repeated} came twice`);
  }
  const each = (performance.now() - start) / world.bursts;
  assert.ok(cuts > 0 && repeated > 0, `seed ${world.seed}: nothing was cut`);
  return `${world.bursts} bursts of ${MESSAGES}, ${cuts} cuts, ${repeated} came twice, ${each.toFixed(0)} ms each, seed ${world.seed}`;
}

await run({ bursts });
