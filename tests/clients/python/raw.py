"""What the wire itself gets: broken HTTP, broken WebSocket frames, written by hand over TCP.

After each of them another connection is still served.
"""

import asyncio
import base64
import json
import os
import struct

from mesh import Identity, equal, run

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9


def frame(opcode, payload=b"", fin=True, masked=True, reserved=0, length=None):
    """One WebSocket frame; `length` lies about the payload."""
    length = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    bit = 0x80 if masked else 0
    if length < 126:
        head += bytes([bit | length])
    elif length < 65_536:
        head += bytes([bit | 126]) + struct.pack(">H", length)
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", length)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


class Wire:
    """A TCP connection, upgraded by hand."""

    @classmethod
    async def open(cls, world):
        self = cls()
        self.reader, self.writer = await asyncio.open_connection(*world.address)
        return self

    @classmethod
    async def upgraded(cls, world):
        self = await cls.open(world)
        key = base64.b64encode(os.urandom(16)).decode()
        self.writer.write((
            f"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return self

    async def receive(self):
        """The next frame as (opcode, payload), or None at the end of the stream."""
        try:
            first, second = await self.reader.readexactly(2)
            length = second & 0x7F
            if length > 125:
                size = 2 if length == 126 else 8
                length = int.from_bytes(await self.reader.readexactly(size), "big")
            return first & 0x0F, await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def close_code(self):
        """The code of the close frame; -1 if the connection just ended."""
        while got := await asyncio.wait_for(self.receive(), 5):
            if got[0] == CLOSE:
                return struct.unpack(">H", got[1][:2])[0]
        return -1

    async def response(self):
        """Everything until the broker closes, or (for kept connections) one head."""
        data = b""
        try:
            while chunk := await asyncio.wait_for(self.reader.read(65_536), 6):
                data += chunk
        except ConnectionError:
            pass
        return data


async def protocol(world, mesh):
    witness = await Identity(mesh, "bob", "session").attach()
    list_peers = b'{"type":"list_peers"}'
    table = {
        "invalid UTF-8 in text": (1007, frame(TEXT, b'{"type":"\xff"}')),
        "invalid UTF-8 over fragments": (1007, frame(TEXT, b"\xe2\x82", fin=False) + frame(0, b"\x28")),
        "unmasked": (1002, frame(TEXT, list_peers, masked=False)),
        "reserved bit": (1002, frame(TEXT, list_peers, reserved=4)),
        "reserved opcode 3": (1002, frame(3, b"x")),
        "reserved opcode 11": (1002, frame(11, b"x")),
        "long ping": (1002, frame(PING, b"x" * 126)),
        "fragmented ping": (1002, frame(PING, b"x", fin=False)),
        "continuation of nothing": (1002, frame(0, b"x")),
        "text inside a fragmented text": (1002, frame(TEXT, b"{", fin=False) + frame(TEXT, b"}")),
        "close with one byte": (1002, frame(CLOSE, b"x")),
        "close with a bad code": (1002, frame(CLOSE, struct.pack(">H", 1005))),
        "close with bad UTF-8": (1007, frame(CLOSE, struct.pack(">H", 1000) + b"\xff")),
        "a promised gigabyte": (1009, frame(BINARY, b"", length=1 << 30)),
        "a promised 2^63": ((1009, 1002), frame(BINARY, b"", length=(1 << 63) - 1)),
        "fragments beyond the cap": (1009, frame(TEXT, b"A" * 1_500_000, fin=False) + frame(0, b"A" * 1_500_000)),
    }
    for attached in (False, True):
        for name, (wanted, data) in table.items():
            wire = await Wire.upgraded(world)
            if attached:
                hello = Identity(mesh, "alice", "throwaway").hello()
                wire.writer.write(frame(TEXT, json.dumps(hello).encode()))
                equal(json.loads((await wire.receive())[1])["type"], "hello_ack", name)
            wire.writer.write(data)
            code = await wire.close_code()
            assert code in (wanted if isinstance(wanted, tuple) else (wanted,)), f"{name}: {code}, not {wanted}"
            wire.writer.close()
            assert witness.pubkey in [p["pubkey"] for p in await witness.peers()], name


async def sound(world, mesh):
    """Odd but lawful: fragments, empty fragments, pings between them, a byte at a time."""
    wire = await Wire.upgraded(world)
    hello = json.dumps(Identity(mesh, "alice", "throwaway").hello()).encode()
    middle = len(hello) // 2
    pieces = frame(TEXT, hello[:middle], fin=False) + frame(PING, b"between") + frame(0, b"", fin=False) + frame(0, hello[middle:])
    for byte in pieces:
        wire.writer.write(bytes([byte]))
        await wire.writer.drain()
    got = [await wire.receive(), await wire.receive()]
    equal(sorted(opcode for opcode, _ in got), [1, 10], "an ack and a pong")
    equal(next(p for o, p in got if o == 10), b"between")
    wire.writer.write(frame(CLOSE, struct.pack(">H", 1000) + b"bye"))
    equal(await wire.close_code(), 1000)
    equal(await asyncio.wait_for(wire.reader.read(), 5), b"", "the broker ends the connection")


async def half_upgraded(world, mesh):
    """Connections cut in the middle of the handshake or of a frame leave nothing."""
    witness = await Identity(mesh, "bob", "session").attach()
    for data in (b"", b"GET", b"GET /ws HTTP/1.1\r\nHost: x\r\n"):
        wire = await Wire.open(world)
        wire.writer.write(data)
        await wire.writer.drain()
        wire.writer.close()
    for data in (b"\x81", frame(TEXT, b"A" * 1000)[:500]):
        wire = await Wire.upgraded(world)
        wire.writer.write(data)
        await wire.writer.drain()
        wire.writer.transport.abort()
    equal(len(await witness.peers()), 1)


def status_of(answer):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else None


async def http(world, mesh):
    witness = await Identity(mesh, "bob", "session").attach()
    head = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    upgrade = b"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    for name, wanted, data in (
        ("garbage", 400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        ("no version", 400, b"GET /health\r\n\r\n"),
        ("a bad header", 400, b"GET /health HTTP/1.1\r\nno colon here\r\n\r\n"),
        ("a long header", 431, head + b"X: " + b"a" * 20_000 + b"\r\n\r\n"),
        ("many headers", 431, head + b"".join(b"X-%d: a\r\n" % i for i in range(2000)) + b"\r\n"),
        ("no key", 400, b"GET /ws HTTP/1.1\r\n" + upgrade + b"\r\n"),
        ("fine", 200, head + b"\r\n"),
        ("unknown", 404, head.replace(b"/health", b"/nowhere") + b"\r\n"),
        ("a query", 404, head.replace(b"/health", b"/health?x") + b"\r\n"),
        ("preflight", 204, head.replace(b"GET /health", b"OPTIONS /anything") + b"\r\n"),
        ("a large body", 413, b"POST /hook/set-status HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n" + b"a" * 70_000),
    ):
        wire = await Wire.open(world)
        wire.writer.write(data)
        answer = await wire.response()
        equal(status_of(answer), wanted, f"{name}: {answer[:200]}")
        if wanted in (200, 204, 404):
            assert b"access-control-allow-origin: *" in answer.lower(), name
        equal(len(await witness.peers()), 1, name)
    for target in (b"/ws?x", b"/ws/", b"/"):
        wire = await Wire.open(world)
        wire.writer.write(b"GET " + target + b" HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + upgrade + b"\r\n")
        answer = await wire.response()
        assert b" 101 " not in answer[:20], (target, answer)


async def slow_head(world, mesh):
    """A head that does not end is answered 408 and closed."""
    wire = await Wire.open(world)
    wire.writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n")

    async def trickle():
        while not wire.writer.is_closing():
            wire.writer.write(b"X: y\r\n")
            await asyncio.sleep(0.3)
    task = asyncio.create_task(trickle())
    data = b""
    try:
        while chunk := await asyncio.wait_for(wire.reader.read(65_536), 15):
            data += chunk
    except ConnectionError:
        pass
    task.cancel()
    equal(status_of(data), 408, str(data[:200]))


async def pipelined(world, mesh):
    """Two requests in one segment, and a body in two, on one kept connection."""
    wire = await Wire.open(world)
    wire.writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await wire.response()
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    if b"connection: close" not in answer.split(b"\r\n\r\n")[0].lower():
        assert b"HTTP/1.1 404 " in answer, answer
    wire = await Wire.open(world)
    body = b'{"cwd":"/nowhere-at-all","status":"idle"}'
    wire.writer.write(b"POST /hook/set-status HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:10])
    await wire.writer.drain()
    await asyncio.sleep(0.1)
    wire.writer.write(body[10:])
    answer = await wire.response()
    equal(json.loads(answer.split(b"\r\n\r\n", 1)[1]), {"ok": True, "pending": True})


run({
    "protocol": protocol,
    "sound": sound,
    "half upgraded": half_upgraded,
    "http": http,
    "slow head": slow_head,
    "pipelined": pipelined,
})
