// A fleet of clients that outlives its broker: each reconnects for ever, sends under load, and
// books what it was told. The ledger knows what was acknowledged, what arrived and in which order,
// and what every client was told of the presence of others; whatever the rules do not allow is
// written down as a fault.

import { randomUUID } from 'node:crypto';
import WebSocket from 'ws';
import { isMessage, isPresence, sleep, textOf } from './mesh.mjs';

/** How long a client waits for hello_ack; real ones give up after 5 s. */
const PATIENCE_MS = 5000;
/** Pause before a client tries again; real ones wait longer, but the tests have little time. A
 * crowd waits longer, and not all for the same time. */
const RETRY_MS = 20;
const CROWD_RETRY_MS = 300;
/** Messages of one client waiting for their ack. */
const WINDOW = 64;
/** Between the telling of a join and the commit of a row that says so. */
const AGAIN_MS = 250;
/** Until the client has confirmed what was written to it, and a row says so: a watermark is asked
 * for within a second. */
const UNCONFIRMED_MS = 1500;
/** Faults told of in full. */
const FAULTS_SHOWN = 20;

/** Random numbers that a seed repeats (mulberry32). */
export class Dice {
  constructor(seed) {
    this.state = seed >>> 0;
  }

  /** At least 0 and less than 1. */
  next() {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), this.state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number below `bound`. */
  below(bound) {
    return Math.floor(this.next() * bound);
  }

  pick(list) {
    return list[this.below(list.length)];
  }
}

export class Fleet {
  actors = [];
  faults = [];
  /** Whether faults are to be kept and not told of. */
  quiet = false;
  /** Refused sends by reason; only what `refusal` accepts is not a fault. */
  refused = {};
  refusal = null;
  sent = 0;
  /** messageId -> {from, to, n} */
  acked = new Map();
  /** name of a recipient -> the ids it has received */
  arrived = new Map();
  /** `observer of key` -> that it `joined` or `left`, and when that was told */
  told = new Map();
  /** Keys whose coming and going may be told of. */
  fleeting = new Set();
  /** Joins told again, as is allowed around a kill. */
  again = 0;
  /** When the broker was killed. */
  kills = [];
  /** From now on nobody may hear anything of those who stay. */
  settled = false;

  fault(text) {
    this.faults.push(text);
    if (!this.quiet && this.faults.length <= FAULTS_SHOWN) console.log(`  fault: ${text}`);
  }

  /** A client that stays for good. `acks`: it confirms with client_ack, else only with pongs. */
  add(identity, options = {}) {
    const actor = new Actor(this, identity, options);
    this.actors.push(actor);
    actor.run();
    return actor;
  }

  /** Waits until every client is attached. */
  async attached(ms = 15_000) {
    const deadline = performance.now() + ms;
    const missing = () => this.actors.filter((a) => !a.retired && !a.online);
    while (missing().length > 0) {
      if (performance.now() > deadline) {
        throw new Error(`not back within ${ms} ms: ${missing().map((a) => `${a.name} (${a.trouble})`)}`);
      }
      await sleep(5);
    }
  }

  book(actor, frame) {
    if (!frame.queued) {
      this.refused[frame.error] = (this.refused[frame.error] ?? 0) + 1;
      if (!this.refusal?.test(frame.error)) this.fault(`send of ${actor.name} refused: ${frame.error}`);
      return;
    }
    const note = actor.pending.get(frame.id);
    if (!note) return this.fault(`${actor.name} got an ack for ${frame.id}, which it did not send`);
    if (this.acked.has(frame.messageId)) this.fault(`message id ${frame.messageId} acknowledged twice`);
    this.acked.set(frame.messageId, note);
  }

  arrive(actor, frame) {
    const { from, n, to } = JSON.parse(textOf(frame));
    const seen = this.arrived.get(to) ?? new Set();
    this.arrived.set(to, seen);
    if (to !== actor.name && to !== actor.identity.member.pubkey) this.fault(`${actor.name} got a message for ${to}`);
    if (seen.has(frame.messageId)) return;
    seen.add(frame.messageId);
    if (to !== actor.name) return; // by member key: whichever session is there
    const last = actor.heard.get(from) ?? -1;
    if (n <= last) this.fault(`${actor.name} got ${from}'s message ${n} after ${last}`);
    actor.heard.set(from, Math.max(n, last));
  }

  presence(actor, { event, eventData, messageId }) {
    // What its last socket may have swallowed comes again under the same id.
    if (actor.news.has(messageId)) return;
    actor.news.add(messageId);
    if (!this.settled) return;
    const { pubkey, name } = eventData;
    if (!this.fleeting.has(pubkey)) return this.fault(`${actor.name} was told ${event} of ${name}`);
    const what = event === 'peer_left' ? 'left' : 'joined';
    const key = `${actor.name} of ${pubkey}`;
    const before = this.told.get(key);
    if (before && (before.what === what || before.what === 'left') && !this.#perhapsUntold(what, before)) {
      this.fault(`${actor.name} was told ${event} of ${name}, having been told that it ${before.what}`);
    }
    this.told.set(key, { what, at: performance.now() });
  }

  /** A join that was told just before the broker died may be told again: it did not know. */
  #perhapsUntold(what, before) {
    const allowed = what === 'joined' && before.what === 'joined' && this.killedWithin(before.at, AGAIN_MS);
    this.again += allowed ? 1 : 0;
    return allowed;
  }

  /** What was written shortly before a kill the client had not confirmed, or no row said so. */
  perhapsUnconfirmed(at) {
    return this.killedWithin(at, UNCONFIRMED_MS);
  }

  killedWithin(at, ms) {
    return this.kills.find((kill) => kill > at) - at < ms;
  }

  /** Keys of sessions that somebody was told have joined, and not that they left. */
  present() {
    const joined = [...this.told].filter(([, { what }]) => what === 'joined');
    return new Set(joined.map(([key]) => key.split(' of ').at(-1)));
  }

  /** Acknowledged messages that have not arrived. */
  missing() {
    return [...this.acked].filter(([id, { to }]) => !this.arrived.get(to)?.has(id));
  }

  /** Waits until everything acknowledged has arrived; a fault for each that does not. */
  async complete(ms = 20_000) {
    const deadline = performance.now() + ms;
    while (this.missing().length > 0 && performance.now() < deadline) await sleep(20);
    for (const [id, { from, to, n }] of this.missing()) {
      this.fault(`acknowledged, but never arrived: ${id}, number ${n} from ${from} to ${to}`);
    }
  }

  /** Ends all clients and throws if there was any fault. */
  finish(seed) {
    for (const actor of this.actors) actor.retire();
    if (this.faults.length > 0) throw new Error(`${this.faults.length} faults, seed ${seed}: ${this.faults[0]}`);
    const refused = Object.values(this.refused).reduce((sum, n) => sum + n, 0);
    const rest = [refused && `${refused} refused`, this.again && `${this.again} joins told again`];
    return [`${this.sent} sent`, `${this.acked.size} acknowledged`, ...rest.filter(Boolean)].join(', ');
  }
}

/** One client: an identity that is attached whenever there is a broker to attach to. */
export class Actor {
  pending = new Map();
  heard = new Map();
  /** Ids of what it was told of the presence of others. */
  news = new Set();
  online = false;
  retired = false;
  trouble = 'not tried yet';
  #numbers = new Map();
  #presenceId = null;
  #ws = null;
  #tellEnd = () => {};
  #nap = null;

  constructor(fleet, identity, { acks = false, patient = true, crowded = false } = {}) {
    this.fleet = fleet;
    this.identity = identity;
    this.acks = acks;
    /** Whether it tries again after a lost connection. */
    this.patient = patient;
    /** Whether it is one of so many that they must not all try at once. */
    this.crowded = crowded;
    this.name = identity.fields.displayName;
  }

  get pubkey() {
    return this.identity.pubkey;
  }

  async run() {
    do {
      this.end = await this.#connect();
      if (this.online) this.#tellEnd(this.end);
      this.online = false;
      this.pending.clear();
      const pause = this.crowded ? CROWD_RETRY_MS * (0.5 + Math.random()) : RETRY_MS;
      if (!this.retired) await sleep(pause);
      await this.#nap;
    } while (this.patient && !this.retired);
  }

  /** One connection, from its opening to its close. */
  #connect() {
    return new Promise((resolve) => {
      const ws = new WebSocket(this.identity.mesh.url, { perMessageDeflate: false, handshakeTimeout: PATIENCE_MS });
      const received = new Set();
      const impatience = setTimeout(() => { this.trouble = 'no hello_ack'; ws.terminate(); }, PATIENCE_MS);
      this.#ws = ws;
      ws.on('open', () => { ws._socket.setNoDelay(true); ws.send(JSON.stringify(this.identity.hello())); });
      ws.on('error', (error) => { this.trouble = error.code ?? error.message; });
      ws.on('message', (data) => {
        const frame = JSON.parse(data);
        if (frame.type === 'hello_ack') {
          clearTimeout(impatience);
          this.#welcome(frame);
        } else {
          this.#take(frame, received);
        }
      });
      ws.on('close', (code, reason) => { clearTimeout(impatience); resolve({ code, reason: reason.toString() }); });
    });
  }

  #welcome(ack) {
    // One that came amid the kills may not have been on disk yet; then nobody was told of it.
    const fleeting = this.fleet.fleeting.has(this.pubkey);
    if (this.#presenceId && ack.presenceId !== this.#presenceId && !fleeting) {
      this.fleet.fault(`${this.name} came back in time, but its lease was gone`);
    }
    if (ack.missed) this.fleet.fault(`${this.name} was told that what it missed is ${ack.missed}`);
    this.#presenceId = ack.presenceId;
    this.online = !this.retired;
  }

  #take(frame, received) {
    if (frame.type === 'ack') {
      this.fleet.book(this, frame);
      this.pending.delete(frame.id);
    } else if (frame.type === 'error') {
      this.trouble = `${frame.code}: ${frame.message}`;
      this.onError ? this.onError(frame) : this.fleet.fault(`${this.name} was told ${this.trouble}`);
    } else if (isMessage(frame)) {
      if (received.has(frame.messageId)) this.fleet.fault(`${this.name} got ${frame.messageId} twice on one socket`);
      received.add(frame.messageId);
      this.fleet.arrive(this, frame);
      if (this.acks) this.write({ type: 'client_ack', brokerMessageId: frame.messageId });
    } else if (isPresence(frame)) {
      if (received.has(frame.messageId)) this.fleet.fault(`${this.name} got ${frame.messageId} twice on one socket`);
      received.add(frame.messageId);
      this.fleet.presence(this, frame);
    } else {
      this.onReply?.(frame);
    }
  }

  write(frame) {
    if (this.#ws.readyState === WebSocket.OPEN) this.#ws.send(JSON.stringify(frame));
  }

  /** Sends to another client, or to a member's key, unless too much is unanswered. */
  send(to, target = to.pubkey, padding = '') {
    if (!this.online || this.pending.size >= WINDOW) return;
    const name = typeof to === 'string' ? to : to.name;
    const n = this.#numbers.get(name) ?? 0;
    this.#numbers.set(name, n + 1);
    const id = randomUUID();
    const note = { from: this.name, to: name, n };
    this.pending.set(id, note);
    this.fleet.sent += 1;
    const ciphertext = Buffer.from(JSON.stringify({ ...note, padding })).toString('base64');
    this.write({ type: 'send', id, targetSpec: target, priority: 'now', nonce: '', ciphertext });
  }

  /** The list of peers as this client is told it. */
  peers() {
    return new Promise((resolve, reject) => {
      const _reqId = randomUUID();
      const timer = setTimeout(() => reject(new Error('no peers_list')), PATIENCE_MS);
      this.onReply = (frame) => {
        if (frame._reqId !== _reqId) return;
        clearTimeout(timer);
        resolve(frame.peers);
      };
      this.write({ type: 'list_peers', _reqId });
    });
  }

  /** How the present connection will have ended. */
  ended() {
    return new Promise((resolve) => { this.#tellEnd = resolve; });
  }

  /** Loses its connection; it comes back by itself. */
  drop() {
    this.#ws?._socket?.resetAndDestroy();
  }

  /** Loses its connection and does not come back before `done`. */
  nap(done) {
    this.#nap = done;
    this.drop();
  }

  /** Ends its lease, and never comes back. */
  goodbye() {
    this.retired = true;
    this.online = false;
    this.write({ type: 'goodbye' });
  }

  /** Never comes back. `cleanly` says goodbye with a close frame. */
  retire(cleanly = false) {
    this.retired = true;
    this.online = false;
    if (cleanly) this.#ws?.close(1000);
    else this.drop();
  }
}

/** Keeps the senders busy with random bursts until told to stop; returns how to tell them. */
export function load(fleet, dice, senders, targets, { burst = 20, padding = 0 } = {}) {
  let going = true;
  const work = async (sender) => {
    while (going) {
      for (let i = dice.below(burst); i >= 0; i--) {
        const to = dice.pick(targets);
        if (to !== sender) sender.send(to, to.pubkey ?? to, 'x'.repeat(padding && dice.below(padding)));
      }
      await sleep(dice.below(20));
    }
  };
  const done = Promise.all(senders.map(work));
  return async () => { going = false; await done; };
}
