// A full mesh refuses newcomers, never a reattach. The harness runs the broker with room for five.

import assert from 'node:assert/strict';
import { Peer, eventually } from './mesh.mjs';
import { member, metric, run, session, throwaway } from './scenario.mjs';

const ROOM = 5;

async function refused(identity) {
  const socket = await Peer.open(identity.mesh.url, identity);
  socket.write(identity.hello());
  const end = await socket.closed;
  assert.deepEqual(socket.frames, [{ type: 'error', code: 'capacity', message: 'mesh at connection capacity' }]);
  assert.deepEqual(end, { code: 1008, reason: 'capacity' });
}

async function full(mesh) {
  const identities = [member(mesh, 'alice'), ...Array.from({ length: ROOM - 1 }, () => session(mesh, 'alice'))];
  const peers = [];
  for (const identity of identities) peers.push(await identity.attach());
  const before = await metric('broker_connections_rejected_total');
  await refused(session(mesh, 'bob'));
  await refused(member(mesh, 'bob'));
  await refused(throwaway(mesh, 'bob'));
  assert.equal(await metric('broker_connections_rejected_total'), before + 3);

  for (const [i, identity] of identities.entries()) {
    await peers[i].rst();
    await refused(session(mesh, 'bob'));
    const back = await identity.attach();
    assert.equal(back.ack.presenceId, peers[i].ack.presenceId, 'a reattach from grace');
    const over = await identity.attach();
    assert.equal(over.ack.presenceId, peers[i].ack.presenceId, 'a takeover');
    peers[i] = over;
  }

  const kick = await peers[0].request({ type: 'kick', target: 'alice-s' });
  assert.equal(kick.affected.length, ROOM - 1);
  await eventually(async () => (await peers[0].peers()).length === 1, 'room again');
  const newcomer = await session(mesh, 'bob').attach();
  assert.ok(!newcomer.ack.reattached);
}

await run({ full });
