// A client process of its own that a scenario stops and continues: it attaches, reconnects at once
// when its socket goes, and prints one line of JSON per hello_ack and per presence event.
//
//   node sleeper.mjs IDENTITY.json      {"url", "mesh", "member", "name"}

import { readFileSync } from 'node:fs';
import { Identity, isPresence, sleep } from './mesh.mjs';

const given = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const identity = new Identity({ ...given.mesh, url: given.url }, given.member, 'session', { name: given.name });
for (;;) {
  try {
    const peer = await identity.attach();
    console.log(JSON.stringify({ ack: peer.ack, pubkey: identity.pubkey }));
    peer.ws.on('message', (data) => {
      const frame = JSON.parse(data);
      if (isPresence(frame)) console.log(JSON.stringify({ event: frame.event }));
    });
    await peer.gone;
  } catch (error) {
    console.error(String(error));
    await sleep(100);
  }
}
