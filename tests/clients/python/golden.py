"""Replays the recorded flows of tests/golden against the broker and compares what comes back.

Each flow is sent again with keys of our own; what each connection then receives must be what was
recorded for it: the same frames in the same order with the same fields and, where they do not name
something of that run (ids, keys, times), the same values. What differs on purpose is listed with its
reason in tests/golden/differences.json; anything else fails, and so does a listed difference that is
not seen any more. See tests/golden/README.md for the format.
"""

import asyncio
import json
import pathlib
import re
import sqlite3
import sys

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey
from websockets.exceptions import ConnectionClosed

import mesh as client
from mesh import Peer, broker, now_ms, pubkey_of, signed

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "golden"
# Pauses between recorded frames are kept up to this; the longer ones were there to pass time.
PAUSE = 0.06
# How long nothing more may come after the last recorded frame.
LINGER = 0.4
# Where the recorded broker was for itself, in URLs to watch.
ITSELF = "http://127.0.0.1:7900/"
# Fields that name something of one run: ids, and hashes of documents. Of them we learn which of ours
# stands for which of theirs.
IDS = {
    "presenceId", "messageId", "scheduledId", "callId", "watchId", "lastHash", "lastValue", "oldValue", "newValue",
}
TIMES = {
    "createdAt", "connectedAt", "lastSeenAt", "deliveredAt", "revokedAt", "updatedAt", "startedAt",
    "simTime", "rememberedAt", "deliverAt", "joinedAt", "lastCheck",
}
# Frames in which `id` is an id that the broker made.
MADE = {
    "stream_created", "stream_list", "memory_stored", "memory_results", "task_created", "task_list",
    "topic_created", "topic_list_response", "topic_history_response",
}
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Names:
    """Which of our ids, keys, names and moments stands for which recorded one."""

    def __init__(self, itself):
        self.itself = itself
        self.ours = {}
        self.keys = {}
        self.moments = {}

    def learn(self, theirs, ours):
        return self.ours.setdefault(theirs, ours) == ours

    def key(self, theirs):
        """Our key for a recorded public key; a new one for a key not seen before."""
        if theirs not in self.keys:
            self.keys[theirs] = SigningKey.generate()
            self.ours[theirs] = pubkey_of(self.keys[theirs])
        return self.keys[theirs]

    def __call__(self, value):
        if isinstance(value, dict):
            if "$repeat" in value:
                text, times = value["$repeat"]
                return text * times
            return {k: self(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self(v) for v in value]
        if isinstance(value, str) and value.startswith(ITSELF):
            return f"{self.itself}/{value.removeprefix(ITSELF)}"
        if isinstance(value, str):
            if value.startswith("#"):
                return "#" + self(value[1:])
            return self.ours.get(value) or self.prefix(value) or value
        if isinstance(value, int) and not isinstance(value, bool):
            return self.moments.get(value, value)
        return value

    def prefix(self, value):
        """A prefix of at least eight characters of an id or key."""
        if len(value) >= 8:
            for theirs, ours in self.ours.items():
                if theirs.startswith(value):
                    return ours[:len(value)]
        return None


def verifies(pubkey, fields, signature):
    try:
        text = "|".join(str(f) for f in fields).encode()
        VerifyKey(bytes.fromhex(pubkey)).verify(text, bytes.fromhex(signature))
        return True
    except (ValueError, TypeError, BadSignatureError):
        return False


def hello_text(f):
    if f["type"] == "hello":
        return f["pubkey"], (f["meshId"], f["memberId"], f["pubkey"], f.get("timestamp"))
    keys = f["parentMemberPubkey"], f["sessionPubkey"]
    return f["sessionPubkey"], ("claudemesh-session-hello", f["meshId"], *keys, f.get("timestamp"))


def attest_text(a):
    fields = ("claudemesh-session-attest", a["parentMemberPubkey"], a["sessionPubkey"], a["expiresAt"])
    return a["parentMemberPubkey"], fields


class Hellos:
    """Says recorded hellos anew: as far from now as they were then, signed again if they were right."""

    def __init__(self, events, names):
        self.names = names
        offsets = sorted(
            e["frame"]["timestamp"] - e["t"] for e in events if "timestamp" in e.get("frame", {}) and e["dir"] == "out")
        self.began = offsets[len(offsets) // 2] if offsets else 0

    def moved(self, then, t):
        """A recorded moment as far from now as it was from when `t` was recorded."""
        return now_ms() + (then - self.began - t)

    def again(self, event):
        theirs = event["frame"]
        for key in (theirs.get("sessionPubkey"), theirs.get("pubkey")):
            if isinstance(key, str) and len(key) == 64:
                self.names.key(key)
        ours = self.names(theirs)
        attestation = theirs.get("parentAttestation")
        if attestation:
            fresh = {**ours["parentAttestation"], "expiresAt": self.moved(attestation["expiresAt"], event["t"])}
            ours["parentAttestation"] = self.signed(attestation, fresh, attest_text)
        if "timestamp" in theirs:
            late = theirs["timestamp"] - self.began - event["t"]
            ours["timestamp"] = now_ms() + (late if abs(late) > 5000 else 0)
        return self.signed(theirs, ours, hello_text)

    def signed(self, theirs, ours, text):
        pubkey, fields = text(theirs)
        if not verifies(pubkey, fields, theirs["signature"]):
            return ours
        return {**ours, "signature": signed(self.names.key(pubkey), *text(ours)[1])}


def kind_of(frame):
    return ":".join(str(frame[k]) for k in ("type", "event", "code") if k in frame)


class Differences:
    """The listed differences, and which of them were seen."""

    def __init__(self, path):
        self.listed = json.loads(path.read_text())["differences"]
        self.seen = set()

    def of(self, flow, kind):
        return [(i, d) for i, d in enumerate(self.listed) if flow in d["flows"] or d["flows"] == "*" if d["kind"] == kind]

    def field(self, flow, conn, frame, path, kind):
        """Whether a difference inside a frame is listed."""
        for i, d in self.of(flow, kind):
            if path == d["path"] and frame in d["frames"] and d.get("conn", conn) == conn:
                self.seen.add(i)
                return True
        return False

    def expect(self, flow, conn, recorded, last):
        """The recorded frames of a connection without those that are absent and with those added.

        Each is (index of the recorded event, frame); an added frame comes before the recorded one
        that it names by its place, or at the end, by the event at `last`.
        """
        added = {}
        absent = set()
        for i, d in self.of(flow, "absent frame"):
            if d["conn"] == conn:
                absent.update(d["at"])
                self.seen.add(i)
        for i, d in self.of(flow, "added frame"):
            if d["conn"] == conn:
                added.setdefault(d.get("before"), []).extend(d["frames"])
                self.seen.add(i)
        expected = []
        for place, (index, frame) in enumerate(recorded):
            expected += [(index, extra) for extra in added.pop(place, [])]
            if place not in absent:
                expected.append((index, frame))
        for extras in added.values():
            expected += [(last, extra) for extra in extras]
        return expected


class Flow:
    """One recorded flow, replayed."""

    def __init__(self, world, path, differences):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        self.world, self.differences = world, differences
        self.header, self.events = lines[0], lines[1:]
        self.name = self.header["flow"]
        self.names = Names(world.http)
        self.conns, self.compared, self.left = {}, {}, set()
        self.faults = []

    async def run(self, given):
        self.given = given
        self.names.learn(self.header["mesh"], given["meshId"])
        for name, theirs in self.header["members"].items():
            ours = given["members"][name]
            self.names.learn(theirs["memberId"], ours["memberId"])
            self.names.learn(theirs["pubkey"], ours["pubkey"])
            self.names.keys[theirs["pubkey"]] = SigningKey(bytes.fromhex(ours["secretKey"][:64]))
        self.hellos = Hellos(self.events, self.names)
        self.expected = {}
        for conn in {e["conn"] for e in self.events if "conn" in e}:
            recorded = [(i, e["frame"]) for i, e in enumerate(self.events)
                        if e.get("conn") == conn and e.get("dir") == "in" and "frame" in e]
            left = [i for i, e in enumerate(self.events) if e.get("note", "").startswith(f"{conn}: ")]
            last = (left or [len(self.events)])[0] - 1
            self.expected[conn] = self.differences.expect(self.name, conn, recorded, last)
        before = 0
        for index, event in enumerate(self.events):
            if event.get("dir") != "in":
                await self.catch_up(index)
                await asyncio.sleep(min(PAUSE, (event["t"] - before) / 1000))
                await self.act(event)
            elif "close" in event:
                await self.catch_up(index)
                await self.closes(event)
            before = event["t"]
        await self.catch_up(len(self.events))
        await asyncio.sleep(LINGER)
        for conn, peer in self.conns.items():
            for extra in peer.frames[self.compared[conn]:]:
                self.fault(f"{conn}: not recorded: {json.dumps(extra)[:300]}")
        return self.faults

    def fault(self, text):
        self.faults.append(text)

    async def act(self, event):
        if "pause" in event:
            await asyncio.sleep(self.world.grace + 0.5 if event["pause"] == "grace" else 1)
        elif "grants" in event:
            g = event["grants"]
            of, peer = (self.given["members"][g[k]] for k in ("member", "peer"))
            self.world.holdfast("member", "grants", of["memberId"], "--peer", peer["pubkey"], "--caps", ",".join(g["caps"]))
        elif "tamper" in event:
            self.tamper(event["tamper"])
        elif "broker" in event:
            told = await broker(event["broker"])
            if told not in ("ok", "0"):
                self.fault(f"the broker, told to {event['broker']}: {told}")
        elif "note" in event:
            conn, how = event["note"].split(": client ")
            self.left.add(conn)
            if conn in self.conns:
                await (self.conns[conn].rst() if how == "RST" else self.conns[conn].close())
        else:
            await self.say(event)

    def tamper(self, event_type):
        """Changes an entry of the audit log behind the broker's back."""
        database = sqlite3.connect(self.world.db, timeout=10)
        changed = database.execute(
            "UPDATE audit_log SET payload = '{}' WHERE mesh_id = ? AND event_type = ?",
            (self.given["meshId"], event_type)).rowcount
        database.commit()
        database.close()
        if changed != 1:
            self.fault(f"{changed} entries to tamper with")

    async def say(self, event):
        try:
            await self.write(event)
        except ConnectionClosed as closed:
            self.fault(f"{event['conn']}: closed before it could send: {closed}")

    async def write(self, event):
        conn = event["conn"]
        if conn not in self.conns:
            self.conns[conn] = await Peer.open(self.world.url)
            self.compared[conn] = 0
        peer = self.conns[conn]
        if "binary" in event:
            await peer.write(event["binary"].encode())
        elif "raw" in event:
            await peer.write(event["raw"])
        elif event["frame"]["type"] in ("hello", "session_hello"):
            await peer.write(self.hellos.again(event))
        else:
            theirs = event["frame"].get("deliverAt")
            if theirs:
                self.names.moments.setdefault(theirs, self.hellos.moved(theirs, event["t"]))
            await peer.write(self.names(event["frame"]))

    async def catch_up(self, index):
        """Waits for and compares every frame recorded before the event at `index`."""
        for conn, expected in self.expected.items():
            while conn in self.conns and self.compared[conn] < len(expected):
                at, theirs = expected[self.compared[conn]]
                if at >= index:
                    break
                patience = {"peer_left": self.world.grace + 2, "watch_triggered": 8}.get(theirs.get("event"), 2)
                place = self.compared[conn]
                self.compared[conn] += 1
                try:
                    await self.conns[conn].until(lambda f: True, "frame", patience, count=place + 1)
                except AssertionError:
                    self.fault(f"{conn}: absent: {json.dumps(theirs)[:300]}")
                    self.expected[conn] = expected[:place]
                    self.compared[conn] = place
                    break
                await self.let_news_come(conn, theirs, place)
                self.compare_frames(conn, theirs, self.conns[conn].frames[place])

    async def let_news_come(self, conn, theirs, place):
        """Joins and leaves are told when they are durable, so they may come behind an answer."""
        frames = self.conns[conn].frames
        if theirs.get("event") not in ("peer_joined", "peer_returned", "peer_left"):
            return
        if kind_of(frames[place]) == kind_of(theirs):
            return
        count = sum(kind_of(f) == kind_of(theirs) for f in frames[:place]) + 1
        try:
            news = await self.conns[conn].until(
                lambda f: kind_of(f) == kind_of(theirs), "news", patience=1, count=count)
        except AssertionError:
            return
        at = next(i for i, f in enumerate(frames) if f is news)
        frames.insert(place, frames.pop(at))

    def compare_frames(self, conn, theirs, ours):
        frame = kind_of(theirs)
        if frame != kind_of(ours):
            self.fault(f"{conn}: {json.dumps(ours)[:300]} in the place of {json.dumps(theirs)[:300]}")
            self.expected[conn] = []  # from here on nothing would be in its place
            self.compared[conn] = 1 << 30
            return
        ids = IDS | {"id"} if theirs["type"] in MADE else IDS
        for path, kind, detail in compare(self.names, ids, theirs, ours):
            if not self.differences.field(self.name, conn, frame, path, kind):
                self.fault(f"{conn}: {frame}: {kind} {path}: {detail}")

    async def closes(self, event):
        """A close that the broker decided; where the client left, its own code comes back."""
        conn, theirs = event["conn"], event["close"]
        if conn in self.left or conn not in self.conns:
            return
        for i, d in self.differences.of(self.name, "kept open"):
            if conn in d["conns"]:
                self.differences.seen.add(i)
                return
        wanted = theirs["code"], theirs["reason"]
        for i, d in self.differences.of(self.name, "other close"):
            if conn in d["conns"]:
                self.differences.seen.add(i)
                wanted = tuple(d["close"])
        try:
            ours = await self.conns[conn].closed(patience=2)
        except TimeoutError:
            self.fault(f"{conn}: not closed, wanted {wanted}")
            return
        if ours != wanted:
            self.fault(f"{conn}: closed {ours}, wanted {wanted}")


def compare(names, ids, theirs, ours, path="", field=""):
    """Yields (path, kind, detail) for all that differs."""
    if theirs == "*":
        return
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in theirs.keys() | ours.keys():
            below = f"{path}.{key}" if path else key
            if key not in ours:
                yield below, "absent field", json.dumps(theirs[key])
            elif key not in theirs:
                yield below, "added field", json.dumps(ours[key])
            else:
                yield from compare(names, ids, theirs[key], ours[key], below, key)
    elif isinstance(theirs, list) and isinstance(ours, list):
        if len(theirs) != len(ours):
            yield f"{path}[]", "other length", f"{json.dumps(ours)[:200]}, recorded {json.dumps(theirs)[:200]}"
        for a, b in zip(theirs, ours):
            yield from compare(names, ids, a, b, f"{path}[]", field)
    elif isinstance(theirs, str) and isinstance(ours, str) and theirs and field in ids:
        known = names.ours.get(theirs) or names.prefix(theirs)
        if known != ours if known else not names.learn(theirs, ours):
            yield path, "other value", f"{ours}, which stands for another than {theirs}"
    elif isinstance(theirs, int) and isinstance(ours, int) and field in TIMES:
        if names.moments.get(theirs, ours) != ours:
            yield path, "other value", f"{ours}, recorded {theirs}"
    elif isinstance(theirs, str) and isinstance(ours, str) and theirs and field in TIMES:
        if not ISO.fullmatch(ours):
            yield path, "other value", ours
    elif (wanted := names(theirs)) != ours or type(wanted) is not type(ours):
        yield path, "other value", f"{json.dumps(ours)}, recorded {json.dumps(wanted)}"


async def main():
    world = client.World(sys.argv[1])
    part = sys.argv[2] if len(sys.argv) > 2 else ""
    room = world.facts.get("room")
    differences = Differences(GOLDEN / "differences.json")
    flows = [Flow(world, path, differences) for path in sorted(GOLDEN.glob("*.jsonl"))]
    restart = world.facts.get("restart")
    flows = [f for f in flows if (f.header.get("room"), f.header.get("restart")) == (room, restart)]
    chosen = [f for f in flows if part in f.name]
    assert 0 < len(chosen) <= len(world.meshes), f"{len(chosen)} flows, {len(world.meshes)} meshes"
    passed = True
    results = await asyncio.gather(
        *(f.run(m) for f, m in zip(chosen, world.meshes)), return_exceptions=True)
    for flow, faults in zip(chosen, results):
        faults = [repr(faults)] if isinstance(faults, BaseException) else faults
        print(f"not ok {flow.name}:" if faults else f"ok {flow.name}", flush=True)
        for fault in faults:
            print(f"    {fault}")
        passed &= not faults
    names = {f.name for f in flows}
    for i, listed in enumerate(differences.listed):
        here = listed["flows"] == "*" and room is None and restart is None or names.intersection(listed["flows"])
        if here and not part and i not in differences.seen:
            print(f"not ok: a listed difference was not seen: {json.dumps(listed)}")
            passed = False
    sys.exit(0 if passed else 1)


asyncio.run(main())
