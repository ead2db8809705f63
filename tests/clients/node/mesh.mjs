// A small client of the broker over the `ws` package: identities, connections, and what the
// scenarios wait for. It asserts nothing about the broker; scenarios do.

import { createPrivateKey, createPublicKey, generateKeyPairSync, randomUUID, sign } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import WebSocket from 'ws';

export { sleep };

/** How long a client waits for an answer; real ones give up on a hello after 5 s. */
const PATIENCE_MS = 5000;
/** DER header of an ed25519 private key (RFC 8410), before its 32-byte seed. */
const PKCS8_ED25519 = Buffer.from('302e020100300506032b657004220420', 'hex');

/** An ed25519 pair; `secret` is 128 hex in libsodium form, or absent for a new pair. */
export function keyPair(secret) {
  const key = secret
    ? createPrivateKey({
        key: Buffer.concat([PKCS8_ED25519, Buffer.from(secret.slice(0, 64), 'hex')]),
        format: 'der',
        type: 'pkcs8',
      })
    : generateKeyPairSync('ed25519').privateKey;
  const der = createPublicKey(key).export({ format: 'der', type: 'spki' });
  return { key, pubkey: der.subarray(-32).toString('hex') };
}

const signed = (key, fields) => sign(null, Buffer.from(fields.join('|')), key).toString('hex');

/**
 * Who connects. `kind` is `session` (session_hello), `member` (hello without a session key) or
 * `throwaway` (hello with one). The same Identity attached twice is the same session.
 */
let lastMillisecond = 0;

/** Now, but never twice: equal timestamps make equal signatures, which are accepted once. */
function nextMillisecond() {
  lastMillisecond = Math.max(Date.now(), lastMillisecond + 1);
  return lastMillisecond;
}

export class Identity {
  constructor(mesh, member, kind, options = {}) {
    this.mesh = mesh;
    this.member = member;
    this.kind = kind;
    this.memberKey = keyPair(member.secretKey);
    this.sessionKey = kind === 'member' ? null : (options.sessionKey ?? keyPair());
    this.fields = {
      displayName: options.name ?? `${member.name}-${kind}`,
      sessionId: options.sessionId ?? randomUUID(),
      pid: 1,
      cwd: options.cwd ?? '/srv/project',
      hostname: 'lab',
      peerType: 'ai',
      channel: kind === 'member' ? 'claudemesh-daemon' : 'claudemesh-session',
      ...(options.groups ? { groups: options.groups } : {}),
    };
  }

  /** The key under which messages reach this identity. */
  get pubkey() {
    return (this.sessionKey ?? this.memberKey).pubkey;
  }

  /** A signed hello frame, with fields changed before signing. */
  hello(changes = {}) {
    const common = {
      protocolVersion: 1, capabilities: [], meshId: this.mesh.meshId, timestamp: nextMillisecond(),
      ...this.fields, ...changes,
    };
    return this.kind === 'session' ? this.#sessionHello(common) : this.#memberHello(common);
  }

  #memberHello(common) {
    const frame = {
      type: 'hello', memberId: this.member.memberId, pubkey: this.member.pubkey,
      ...(this.sessionKey ? { sessionPubkey: this.sessionKey.pubkey } : {}), ...common,
    };
    const text = [frame.meshId, frame.memberId, frame.pubkey, frame.timestamp];
    return { ...frame, signature: signed(this.memberKey.key, text) };
  }

  #sessionHello(common) {
    const keys = { sessionPubkey: this.sessionKey.pubkey, parentMemberPubkey: this.member.pubkey };
    const expiresAt = common.timestamp + 3600_000;
    const bound = ['claudemesh-session-attest', keys.parentMemberPubkey, keys.sessionPubkey, expiresAt];
    const frame = {
      type: 'session_hello', parentMemberId: this.member.memberId, ...keys,
      parentAttestation: { ...keys, expiresAt, signature: signed(this.memberKey.key, bound) },
      ...common,
    };
    const text = ['claudemesh-session-hello', frame.meshId, keys.parentMemberPubkey,
      keys.sessionPubkey, frame.timestamp];
    return { ...frame, signature: signed(this.sessionKey.key, text) };
  }

  /** Opens a socket, says hello (this one if given) and waits for hello_ack. */
  async attach(hello = this.hello()) {
    const peer = await Peer.open(this.mesh.url, this);
    peer.write(hello);
    await peer.until((f) => f.type === 'hello_ack' || f.type === 'error', `hello_ack of ${this.fields.displayName}`);
    if (!peer.ack) throw new Error(`hello refused: ${JSON.stringify(peer.frames)}`);
    return peer;
  }
}

/** One WebSocket: everything it received, with the time, and ways to speak, wait and break off. */
export class Peer {
  frames = [];
  times = [];
  #waiting = new Set();
  #requests = 0;

  static async open(url, identity = null) {
    const peer = new Peer(url, identity);
    await peer.opened;
    return peer;
  }

  constructor(url, identity) {
    this.identity = identity;
    this.ws = new WebSocket(url, { perMessageDeflate: false, handshakeTimeout: PATIENCE_MS });
    this.opened = new Promise((resolve, reject) => {
      this.ws.once('open', () => { this.ws._socket.setNoDelay(true); resolve(); });
      this.ws.once('error', reject);
    });
    this.opened.catch(() => {});
    this.ws.on('error', () => {});
    this.ws.on('message', (data) => {
      this.frames.push(JSON.parse(data));
      this.times.push(performance.now());
      for (const check of this.#waiting) check();
    });
    this.gone = new Promise((resolve) => {
      this.ws.on('close', (code, reason) => {
        this.end = { code, reason: reason.toString() };
        resolve(this.end);
        for (const check of this.#waiting) check();
      });
    });
  }

  /** How the connection ended; an error if it does not end soon. (`gone` waits for ever.) */
  get closed() {
    const ended = new Promise((resolve, reject) => {
      const late = () => reject(new Error(`still open after ${PATIENCE_MS} ms; last frames ${this.tail()}`));
      const timer = setTimeout(late, PATIENCE_MS);
      this.gone.then((end) => { clearTimeout(timer); resolve(end); });
    });
    ended.catch(() => {}); // whoever does not await it does not mind
    return ended;
  }

  get ack() {
    return this.frames.find((f) => f.type === 'hello_ack');
  }

  get pubkey() {
    return this.identity.pubkey;
  }

  write(frame) {
    this.ws.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
  }

  /** The first frame, past or coming, that `wanted` accepts. */
  until(wanted, what, ms = PATIENCE_MS) {
    return new Promise((resolve, reject) => {
      const settle = (act) => { this.#waiting.delete(check); clearTimeout(timer); act(); };
      let seen = 0;
      const check = () => {
        while (seen < this.frames.length) {
          const frame = this.frames[seen++];
          if (wanted(frame)) return settle(() => resolve(frame));
        }
        if (this.end) settle(() => reject(new Error(`closed ${JSON.stringify(this.end)} awaiting ${what}`)));
      };
      const timer = setTimeout(
        () => settle(() => reject(new Error(`no ${what} in ${ms} ms; last frames ${this.tail()}`))), ms);
      this.#waiting.add(check);
      check();
    });
  }

  tail() {
    return this.frames.slice(-4).map((f) => JSON.stringify(f).slice(0, 200)).join(' ');
  }

  /** Waits until `count` frames match. */
  async untilCount(wanted, count, what, ms = PATIENCE_MS) {
    let seen = 0;
    if (count > 0) await this.until((f) => wanted(f) && ++seen >= count, `${what}, ${count} times`, ms);
  }

  /** Sends a request with its own _reqId and waits for the reply that carries it. */
  request(frame, ms = PATIENCE_MS) {
    const _reqId = `r${++this.#requests}`;
    this.write({ ...frame, _reqId });
    return this.until((f) => f._reqId === _reqId, `reply to ${frame.type}`, ms);
  }

  /** Sends a message and waits for its ack. */
  message(targetSpec, text, changes = {}) {
    const id = changes.id ?? randomUUID();
    this.write({
      type: 'send', id, targetSpec, priority: 'now', nonce: 'bm9uY2U=', client_message_id: id,
      ciphertext: Buffer.from(text).toString('base64'), ...changes,
    });
    return this.until((f) => f.type === 'ack' && f.id === id, `ack of ${text.slice(0, 20)}`);
  }

  /** The texts of the direct, broadcast and group messages received so far. */
  get texts() {
    return this.frames.filter(isMessage).map(textOf);
  }

  untilText(text, ms = PATIENCE_MS) {
    return this.until((f) => isMessage(f) && textOf(f) === text, `message "${text}"`, ms);
  }

  /** The presence events received so far, as `event name`. */
  get events() {
    return this.frames.filter(isPresence).map((f) => `${f.event} ${f.eventData.name}`);
  }

  /** Everything said to this client so far: texts of messages, presence events as `event name`. */
  get heard() {
    return this.frames.filter((f) => isMessage(f) || isPresence(f)).map(saidIn);
  }

  async peers() {
    return (await this.request({ type: 'list_peers' })).peers;
  }

  /** Cuts the connection as a crashed network does: RST, no close frame. */
  rst() {
    this.ws._socket.resetAndDestroy();
    return this.closed;
  }

  /** Cuts it in the same way as soon as exactly so many more bytes have been received. */
  cutAfter(bytes) {
    const socket = this.ws._socket;
    const push = socket.push.bind(socket);
    let left = bytes;
    socket.push = (chunk, encoding) => {
      if (chunk === null || chunk.length < left) {
        left -= chunk?.length ?? 0;
        return push(chunk, encoding);
      }
      if (left > 0) push(chunk.subarray(0, left));
      left = 0;
      socket.resetAndDestroy();
      return false;
    };
  }

  close(code) {
    this.ws.close(code);
    return this.closed;
  }
}

export const isMessage = (f) => f.type === 'push' && f.subtype === undefined;
export const isPresence = (f) => f.type === 'push' && f.subtype === 'system' && f.event.startsWith('peer_');
const saidIn = (f) => (isMessage(f) ? textOf(f) : `${f.event} ${f.eventData.name}`);
export const textOf = (f) => Buffer.from(f.ciphertext, 'base64').toString();

/** Polls until `holds` returns something true. */
export async function eventually(holds, what, ms = PATIENCE_MS) {
  const deadline = performance.now() + ms;
  for (;;) {
    const value = await holds();
    if (value) return value;
    if (performance.now() > deadline) throw new Error(`not within ${ms} ms: ${what}`);
    await sleep(20);
  }
}
