// URL watches against servers of this machine: what is fetched, what is told, and that servers which
// mean harm hold up nobody. All but `refused` need a broker with --watch-allow-private.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { createServer as createSocketServer } from 'node:net';
import { eventually, sleep } from './mesh.mjs';
import { answer, ask, metric, run, session, stored, throwaway, world } from './scenario.mjs';

/** A check, its interval and its news. */
const CHECK_MS = 8000;
/** The slowest that a message may be while others are fetched for. */
const PROMPT_MS = 500;
/** Sessions of each mesh in a crowd, and the watches of each: as many as the limits let. */
const OWNERS = 32;
const EACH = 32;

const isNews = (f) => f.event === 'watch_triggered';
const watches = async (peer) => (await peer.request({ type: 'watch_list' })).watches;
const watch = (peer, url, more = {}) => peer.request({ type: 'watch', url, interval: 5, ...more });

/** Listens on a free port of this machine; gives its URL. */
async function listen(server) {
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  server.unref();
  return `http://127.0.0.1:${server.address().port}`;
}

/** A server whose document is `page.text`; counts who asks. */
async function served(page) {
  page.asked = [];
  const url = await listen(createServer((request, response) => {
    page.asked.push(request);
    response.statusCode = page.status ?? 200;
    response.end(page.text);
  }));
  return `${url}/page`;
}

/** The documents of the broker itself, from the first fetch to the end of the watch. */
async function trial(mesh) {
  const alice = await session(mesh, 'alice').attach();
  const bob = await session(mesh, 'bob').attach();
  const url = `${world.http}/test/clock`;
  const ack = await watch(alice, url, { label: 'clk' });
  assert.match(ack.watchId, /^w_[0-9a-f]{8}$/);
  const { watchId } = ack;
  assert.deepEqual(ack, { type: 'watch_ack', watchId, id: watchId, url, mode: 'hash', interval: 5, _reqId: ack._reqId });
  const first = await eventually(async () => (await watches(alice)).find((w) => w.lastCheck), 'a first check');
  assert.match(first.lastHash, /^[0-9a-f]{16}$/);
  const news = await alice.until(isNews, 'news', CHECK_MS);
  const { oldValue, newValue, ...rest } = news.eventData;
  assert.deepEqual(rest, { watchId, url, label: 'clk', mode: 'hash' });
  assert.equal(oldValue, first.lastValue);
  assert.notEqual(newValue, oldValue);
  assert.deepEqual([news.subtype, news.priority, news.senderPubkey], ['system', 'now', 'system']);
  assert.equal((await bob.request({ type: 'unwatch', watchId })).code, 'forbidden');
  const end = await alice.request({ type: 'unwatch', watchId });
  assert.deepEqual([end.type, end.watchId, end.url, end.interval], ['watch_ack', watchId, url, 0]);
  assert.equal((await alice.request({ type: 'unwatch', watchId })).code, 'not_found');
  assert.deepEqual(await watches(alice), []);
  assert.equal(bob.frames.filter(isNews).length, 0);
  for (const path of ['clock', 'flip', 'html']) {
    const response = await fetch(`${world.http}/test/${path}`);
    assert.equal(response.status, 200, path);
    assert.equal((await fetch(`${world.http}/test/${path}?x`)).status, 404);
  }
}

/** A change while the owner is away waits for it, and is told until it is known to have arrived. */
async function away(mesh) {
  const page = { text: '{"deploy":{"state":"green"}}' };
  const url = await served(page);
  const identity = session(mesh, 'alice');
  const attach = () => identity.attach(identity.hello({ leaseMs: 30_000 }));
  const alice = await attach();
  const more = { mode: 'json', extract: '$.deploy.state', notify_on: 'not_match:green', headers: { 'X-Key': 'k' } };
  await watch(alice, url, more);
  await eventually(async () => (await watches(alice))[0].lastValue === 'green', 'a first check');
  assert.equal(page.asked[0].headers['x-key'], 'k');
  await alice.rst();
  page.text = '{"deploy":{"state":"red"}}';
  await eventually(() => page.asked.length === 2, 'a check without its owner', CHECK_MS);
  await sleep(200);
  const second = await attach();
  assert.deepEqual([second.ack.reattached, second.frames[0].type], [true, 'hello_ack']);
  const news = await second.until(isNews, 'news');
  assert.deepEqual([news.eventData.oldValue, news.eventData.newValue], ['green', 'red']);
  await second.rst();
  const third = await attach();
  assert.deepEqual(await third.until(isNews, 'news that may have been lost'), news);
  await sleep(1500); // its ping has been answered
  await third.rst();
  const fourth = await attach();
  await watches(fourth);
  assert.equal(fourth.frames.filter(isNews).length, 0, 'confirmed, so not told again');
}

/** What a command watches ends with its connection, and is fetched no more. */
async function ended(mesh) {
  const page = { text: 'x' };
  const url = await served(page);
  const command = await throwaway(mesh, 'alice').attach();
  await watch(command, url);
  await eventually(() => page.asked.length === 1, 'a first check');
  await command.close(1000);
  await sleep(CHECK_MS);
  assert.equal(page.asked.length, 1);
}

/** Servers that answer slowly, never, for ever, or with riddles. */
async function hostile(mesh) {
  const wild = (serve) => listen(createSocketServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', () => serve(socket));
  }));
  const ok = 'HTTP/1.1 200 OK\r\n\r\n';
  const repeat = (socket, text, ms) => {
    const timer = setInterval(() => socket.write(text), ms);
    socket.on('close', () => clearInterval(timer));
  };
  const endless = (socket) => {
    const more = () => { while (!socket.destroyed && socket.write('x'.repeat(65_536))); };
    socket.on('drain', more);
    socket.write(ok);
    more();
  };
  let looping = '';
  const closed = createSocketServer();
  const closedUrl = await listen(closed);
  closed.close();
  const urls = {
    silent: [await wild(() => {}), 'no answer in time'],
    trickle: [await wild((socket) => { socket.write(ok); repeat(socket, 'x', 100); }), 'no answer in time'],
    head: [await wild((socket) => { socket.write('HTTP/1.1 200 OK\r\n'); repeat(socket, 'X-A: b\r\n', 100); }), 'no answer in time'],
    endless: [await wild(endless), 'the document is too large'],
    loop: [looping = await wild((socket) => socket.end(`HTTP/1.1 302 Found\r\nLocation: ${looping}/again\r\nContent-Length: 0\r\n\r\n`)), 'too many redirects'],
    file: [await wild((socket) => socket.end('HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n')), 'not a URL that can be fetched'],
    closed: [closedUrl, 'the connection failed'],
    reset: [await wild((socket) => socket.resetAndDestroy()), 'the connection failed'],
    garbage: [await wild((socket) => socket.end('SSH-2.0-x\r\n\r\n')), /./],
  };
  const alice = await session(mesh, 'alice').attach();
  const bob = await session(mesh, 'bob').attach();
  const owners = {};
  for (const [name, [url]] of Object.entries(urls)) {
    owners[name] = await session(mesh, 'carol', { name }).attach();
    await watch(owners[name], url, { interval: 3600 });
  }
  let slowest = 0;
  for (const until = performance.now() + 11_000; performance.now() < until; await sleep(20)) {
    const sent = performance.now();
    const text = `at ${sent}`;
    await alice.message(bob.pubkey, text);
    await bob.untilText(text);
    slowest = Math.max(slowest, performance.now() - sent);
  }
  assert.ok(slowest < PROMPT_MS, `a message took ${slowest} ms`);
  for (const [name, [, why]] of Object.entries(urls)) {
    const [listed] = await watches(owners[name]);
    assert.match(listed.lastError ?? 'nothing', why instanceof RegExp ? why : new RegExp(`^${why}$`), name);
    assert.equal(listed.lastValue, '', name);
  }
  assert.ok((await metric('holdfast_watch_checks_total')) >= 9);
  return `slowest message ${slowest.toFixed(0)} ms`;
}

/** Ten thousand watches over ten meshes: all are fetched for, and nobody waits for that. */
async function crowd() {
  const page = { text: 'one' };
  const url = await served(page);
  const owners = [];
  for (const mesh of world.meshes) {
    for (let i = 0; i < OWNERS; i++) owners.push(await session(mesh, 'carol', { name: `owner-${i}` }).attach());
  }
  const [mesh] = world.meshes;
  const alice = await session(mesh, 'alice').attach();
  const bob = await session(mesh, 'bob').attach();
  let slowest = 0;
  let made = false;
  const talk = (async () => {
    while (!made) {
      const sent = performance.now();
      await alice.message(bob.pubkey, `at ${sent}`);
      await bob.untilText(`at ${sent}`);
      slowest = Math.max(slowest, performance.now() - sent);
      await sleep(20);
    }
  })();
  for (const owner of owners) {
    const acks = await Promise.all(Array.from({ length: EACH }, () => watch(owner, url, { interval: 20 })));
    for (const ack of acks) assert.equal(ack.type, 'watch_ack', JSON.stringify(ack));
  }
  for (const owner of owners) {
    await eventually(async () => (await watches(owner)).every((w) => w.lastValue !== ''), 'all are fetched', 90_000);
  }
  made = true;
  await talk;
  assert.ok(slowest < PROMPT_MS, `a message took ${slowest} ms`);
  return `${owners.length * EACH} watches, ${page.asked.length} fetches, slowest message ${slowest.toFixed(0)} ms`;
}

/** Without --watch-allow-private nothing of this machine is reached, by any name for it. */
async function refused(mesh) {
  const page = { text: 'secret' };
  const { port } = new URL(await served(page));
  const alice = await session(mesh, 'alice').attach();
  const hosts = ['127.0.0.1', 'localhost', '[::1]', '[::ffff:127.0.0.1]', '0.0.0.0', '127.1', '2130706433', '169.254.169.254', '10.0.0.1'];
  for (const host of hosts) await watch(alice, `http://${host}:${port}/`, { interval: 3600 });
  const list = await eventually(async () => {
    const all = await watches(alice);
    return all.every((w) => w.lastCheck) && all;
  }, 'all checked', 20_000);
  for (const { url, lastError, lastValue } of list) {
    assert.match(lastError, /^the host (is not a public address|was not found)/, url);
    assert.equal(lastValue, '');
  }
  assert.equal(page.asked.length, 0);
}

/** kill -9: a watch comes back with what its owner knew, and finds what changed meanwhile. */
async function killed(mesh) {
  const page = { text: 'one' };
  const url = await served(page);
  const identity = session(mesh, 'alice');
  const alice = await identity.attach();
  const ack = await watch(alice, url, { label: 'kept' });
  const [known] = await eventually(async () => {
    const list = await watches(alice);
    return list[0].lastValue !== '' && list;
  }, 'a first check');
  await stored();
  await ask('kill');
  page.text = 'two';
  await answer('start');
  const again = await identity.attach();
  assert.equal(again.ack.reattached, true);
  const [listed] = await watches(again);
  assert.deepEqual([listed.id, listed.label, listed.createdAt], [ack.watchId, 'kept', known.createdAt]);
  const news = await again.until(isNews, 'news', CHECK_MS);
  assert.equal(news.eventData.oldValue, known.lastValue);
}

await run({ trial, away, ended, hostile }, { refused, killed, crowd });
