"""A small client of the broker over the `websockets` package, and the runner of scenario files.

It asserts nothing about the broker; scenarios do. A scenario runs as

    python lease.py WORLD.json [part of a case's name]

and each of its cases gets a mesh of its own. Cases run at once.
"""

import asyncio
import base64
import json
import os
import socket
import struct
import subprocess
import sys
import time
import traceback
import uuid

from nacl.signing import SigningKey
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

# How long a client waits for an answer; real ones give up on a hello after 5 s.
PATIENCE = 5.0


class World:
    """What the harness wrote down: where the broker is, and its meshes with their members."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            given = self.facts = json.load(file)
        self.url, self.http = given["url"], given["http"]
        self.bin, self.db = given["bin"], given["db"]
        self.grace = given["graceMs"] / 1000
        self.meshes = given["meshes"]
        for mesh in self.meshes:
            mesh["url"] = self.url

    @property
    def address(self):
        host, port = self.http.removeprefix("http://").split(":")
        return host, int(port)

    def holdfast(self, *args):
        """Runs the broker's own command line against its database."""
        env = {**os.environ, "HOLDFAST_DB": self.db}
        return subprocess.run([self.bin, *args], env=env, check=True, capture_output=True, text=True).stdout

    def peers(self, mesh):
        """Who is present according to `holdfast peers`."""
        answer = json.loads(self.holdfast("peers", mesh["slug"], "--json"))
        return answer if isinstance(answer, list) else answer["peers"]


def signed(key, *fields):
    return key.sign("|".join(str(f) for f in fields).encode()).signature.hex()


def pubkey_of(key):
    return key.verify_key.encode().hex()


class Identity:
    """Who connects: a `session`, a `member` (key-less hello) or a `throwaway` (hello with a key)."""

    def __init__(self, mesh, member, kind, name=None, session_id=None, session_key=None, groups=None):
        self.mesh, self.member, self.kind = mesh, mesh["members"][member], kind
        self.member_key = SigningKey(bytes.fromhex(self.member["secretKey"][:64]))
        self.session_key = None if kind == "member" else session_key or SigningKey.generate()
        self.fields = {
            "displayName": name or {"session": f"{member}-s", "member": member}.get(kind, f"{member}-cli"),
            "sessionId": session_id or str(uuid.uuid4()),
            "pid": 1,
            "cwd": "/srv/project",
        }
        if groups is not None:
            self.fields["groups"] = groups

    @property
    def pubkey(self):
        return pubkey_of(self.session_key or self.member_key)

    def hello(self, **changes):
        """A signed hello; `changes` are made before signing, so the signature covers them."""
        frame = {"meshId": self.mesh["meshId"], "timestamp": now_ms(), **self.fields}
        if self.kind == "session":
            return self.sign_session({
                "type": "session_hello",
                "parentMemberId": self.member["memberId"],
                "parentMemberPubkey": self.member["pubkey"],
                "sessionPubkey": self.pubkey,
                "parentAttestation": self.attestation(),
                **frame,
                **changes,
            })
        frame = {"type": "hello", "memberId": self.member["memberId"], "pubkey": self.member["pubkey"], **frame}
        if self.session_key:
            frame["sessionPubkey"] = self.pubkey
        frame |= changes
        text = (frame["meshId"], frame["memberId"], frame["pubkey"], frame["timestamp"])
        return {**frame, "signature": signed(self.member_key, *text)}

    def sign_session(self, frame):
        text = (frame["meshId"], frame["parentMemberPubkey"], frame["sessionPubkey"], frame["timestamp"])
        return {**frame, "signature": signed(self.session_key, "claudemesh-session-hello", *text)}

    def attestation(self, expires_at=None, **changes):
        keys = {"sessionPubkey": self.pubkey, "parentMemberPubkey": self.member["pubkey"], **changes}
        expires_at = now_ms() + 3_600_000 if expires_at is None else expires_at
        text = ("claudemesh-session-attest", keys["parentMemberPubkey"], keys["sessionPubkey"], expires_at)
        return {**keys, "expiresAt": expires_at, "signature": signed(self.member_key, *text)}

    async def attach(self):
        """Opens a socket, says hello and waits for hello_ack."""
        peer = await Peer.open(self.mesh["url"], self)
        await peer.write(self.hello())
        await peer.until(lambda f: f["type"] in ("hello_ack", "error"), "hello_ack")
        if peer.ack is None:
            raise AssertionError(f"hello refused: {peer.frames}")
        return peer


class Peer:
    """One WebSocket: what it received and when, and ways to speak, wait and break off."""

    def __init__(self, ws, identity):
        self.ws, self.identity = ws, identity
        self.frames, self.times, self.end = [], [], None
        self.news = asyncio.Condition()
        self.reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, url, identity=None):
        ws = await connect(url, compression=None, ping_interval=None, max_size=None, max_queue=None, proxy=None)
        return cls(ws, identity)

    async def _read(self):
        try:
            async for text in self.ws:
                await self._note(json.loads(text))
        except ConnectionClosed:
            pass
        self.end = (self.ws.close_code, self.ws.close_reason)
        async with self.news:
            self.news.notify_all()

    async def _note(self, frame):
        async with self.news:
            self.frames.append(frame)
            self.times.append(time.monotonic())
            self.news.notify_all()

    @property
    def ack(self):
        return next((f for f in self.frames if f["type"] == "hello_ack"), None)

    @property
    def pubkey(self):
        return self.identity.pubkey

    async def write(self, frame):
        await self.ws.send(frame if isinstance(frame, (str, bytes)) else json.dumps(frame))

    async def until(self, wanted, what, patience=PATIENCE, count=1):
        """The first (or `count`th) frame, past or coming, that `wanted` accepts."""
        def found():
            matching = [f for f in self.frames if wanted(f)]
            return matching[count - 1] if len(matching) >= count else None
        async with self.news:
            try:
                await asyncio.wait_for(self.news.wait_for(lambda: found() or self.end), patience)
            except TimeoutError:
                pass
            if frame := found():
                return frame
        raise AssertionError(f"no {what}; end {self.end}, last frames {str(self.frames[-4:])[:800]}")

    async def closed(self, patience=PATIENCE):
        """The close code and reason the broker gave."""
        async with self.news:
            await asyncio.wait_for(self.news.wait_for(lambda: self.end), patience)
        return self.end

    async def request(self, type, **fields):
        req_id = str(uuid.uuid4())
        await self.write({"type": type, "_reqId": req_id, **fields})
        return await self.until(lambda f: f.get("_reqId") == req_id, f"reply to {type}")

    async def message(self, target, text, **changes):
        """Sends a message and returns its ack."""
        frame_id = str(uuid.uuid4())
        ciphertext = base64.b64encode(text.encode()).decode()
        await self.write({
            "type": "send", "id": frame_id, "targetSpec": target, "priority": "now",
            "nonce": "bm9uY2U=", "ciphertext": ciphertext, **changes,
        })
        return await self.until(lambda f: f["type"] == "ack" and f["id"] == frame_id, f"ack of {text}")

    async def until_text(self, text, patience=PATIENCE):
        return await self.until(lambda f: is_message(f) and text_of(f) == text, f"message {text!r}", patience)

    @property
    def texts(self):
        return [text_of(f) for f in self.frames if is_message(f)]

    @property
    def events(self):
        return [f"{f['event']} {f['eventData']['name']}" for f in self.frames if is_presence(f)]

    async def peers(self):
        return (await self.request("list_peers"))["peers"]

    async def rst(self):
        """Cuts the connection as a crashed network does: RST, no close frame."""
        raw = self.ws.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.ws.transport.abort()
        await self.reader

    async def close(self, code=1000):
        await self.ws.close(code)
        await self.reader

    def freeze(self):
        """Stops reading from the socket; writing goes on."""
        self.ws.transport.pause_reading()

    def thaw(self):
        self.ws.transport.resume_reading()


async def broker(verb):
    """Has the harness do something to the broker: `kill` it, `start` it again."""
    print(f"@{verb}", flush=True)
    return (await asyncio.to_thread(sys.stdin.readline)).strip()


def is_message(frame):
    return frame["type"] == "push" and "subtype" not in frame


def is_presence(frame):
    return frame["type"] == "push" and frame.get("subtype") == "system" and frame["event"].startswith("peer_")


def text_of(frame):
    return base64.b64decode(frame["ciphertext"]).decode()


_last_ms = 0


def now_ms():
    """Now, but never twice: equal timestamps make equal signatures, which are accepted once."""
    global _last_ms
    _last_ms = max(int(time.time() * 1000), _last_ms + 1)
    return _last_ms


async def eventually(holds, what, patience=PATIENCE):
    """Polls until `holds` returns something true."""
    deadline = time.monotonic() + patience
    while not (value := await holds()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience} s: {what}")
        await asyncio.sleep(0.02)
    return value


def equal(got, wanted, what=""):
    assert got == wanted, f"{what}\n  got    {got}\n  wanted {wanted}"


def run(cases):
    """Runs the cases named on the command line, each on a mesh of its own; exits 1 if one failed."""
    world = World(sys.argv[1])
    part = sys.argv[2] if len(sys.argv) > 2 else ""
    chosen = {name: body for name, body in cases.items() if part in name}
    assert 0 < len(chosen) <= len(world.meshes), f"{len(chosen)} cases, {len(world.meshes)} meshes"

    async def one(name, body, mesh):
        start = time.monotonic()
        try:
            await body(world, mesh)
        except Exception:
            print(f"not ok {name} ({time.monotonic() - start:.1f} s): {traceback.format_exc()}", flush=True)
            return False
        print(f"ok {name} ({time.monotonic() - start:.1f} s)", flush=True)
        return True

    async def everything():
        return await asyncio.gather(*(one(n, b, m) for (n, b), m in zip(chosen.items(), world.meshes)))

    sys.exit(0 if all(asyncio.run(everything())) else 1)
