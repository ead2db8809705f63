"""A session outlives its socket, as seen by a client written in another language.

The same promises as lease.mjs: cut, closed, taken over, relaunched, back in time and too late.
"""

import asyncio
import time

from mesh import Identity, Peer, equal, eventually, is_message, is_presence, run

IN_ORDER = [f"message {i}" for i in range(20)]


class Scene:
    """Alice's session, and three that watch it: a session, a control plane and a sibling."""

    @classmethod
    async def open(cls, world, mesh):
        self = cls()
        self.past_grace = world.grace + 0.7
        self.bob = await Identity(mesh, "bob", "session").attach()
        plane = await Identity(mesh, "carol", "member").attach()
        sibling = await Identity(mesh, "alice", "session", name="alice-2").attach()
        self.observers = {"session": self.bob, "control plane": plane, "sibling": sibling}
        self.alice = Identity(mesh, "alice", "session")
        self.first = await self.alice.attach()
        for observer in self.observers.values():
            await observer.until(
                lambda f: is_presence(f) and f["eventData"]["pubkey"] == self.alice.pubkey, "join of alice")
        self.marks = {name: len(o.events) for name, o in self.observers.items()}
        return self

    def assert_events(self, wanted):
        for name, observer in self.observers.items():
            equal(observer.events[self.marks[name]:], wanted, f"what the {name} saw")

    async def assert_returned(self, back, texts):
        equal(back.frames[0]["type"], "hello_ack")
        equal(back.ack["presenceId"], self.first.ack["presenceId"])
        equal(back.ack["reattached"], True)
        if texts:
            await back.until(is_message, "messages kept", count=len(texts))
        await asyncio.sleep(0.15)
        equal(back.texts, texts, "in order, once each")
        last = max((i for i, f in enumerate(back.frames) if is_message(f)), default=0)
        took = back.times[last] - back.times[0]
        assert took <= 0.05, f"the last of {len(texts)} came {took * 1000:.1f} ms after hello_ack"

    async def assert_alive(self, peer):
        own = next(p for p in await peer.peers() if p["pubkey"] == peer.pubkey)
        equal(own["lease"], "online")
        await self.bob.message(peer.pubkey, "are you there")
        await peer.until_text("are you there")
        equal((await peer.message(self.bob.pubkey, "I am"))["queued"], True)
        await self.bob.until_text("I am")


def returns_in_time(leave):
    async def case(world, mesh):
        scene = await Scene.open(world, mesh)
        await leave(scene.first)
        for text in IN_ORDER:
            equal((await scene.bob.message(scene.alice.pubkey, text))["queued"], True)
        await asyncio.sleep(world.grace / 4)
        back = await scene.alice.attach()
        await scene.assert_returned(back, IN_ORDER)
        await asyncio.sleep(scene.past_grace)
        scene.assert_events([])
        await scene.assert_alive(back)
    return case


async def returns_late(world, mesh):
    scene = await Scene.open(world, mesh)
    cut = time.monotonic()
    await scene.first.rst()
    for name, observer in scene.observers.items():
        left = await observer.until(
            lambda f: f.get("event") == "peer_left", f"peer_left at the {name}", scene.past_grace + 1)
        equal(left["eventData"], {"name": "alice-s", "pubkey": scene.alice.pubkey})
        after = observer.times[observer.frames.index(left)] - cut
        assert world.grace <= after < world.grace + 0.5, f"{name} told after {after:.3f} s"
    back = await scene.alice.attach()
    assert not back.ack.get("reattached")
    await asyncio.sleep(0.3)
    scene.assert_events(["peer_left alice-s", "peer_joined alice-s"])


async def taken_over(world, mesh):
    """The incumbent is frozen: it goes on writing because it has not read that it was replaced."""
    scene = await Scene.open(world, mesh)
    scene.first.freeze()
    second = await scene.alice.attach()
    await scene.assert_returned(second, [])
    await scene.first.write({"type": "set_summary", "summary": "from a stale socket"})
    await scene.first.write({
        "type": "send", "id": "stale", "targetSpec": scene.bob.pubkey, "priority": "now", "nonce": "", "ciphertext": "eA==",
    })
    await asyncio.sleep(0.2)
    seen = [p for p in await scene.bob.peers() if p["pubkey"] == scene.alice.pubkey]
    equal([p["summary"] for p in seen], [None])
    equal(scene.bob.texts, [])
    scene.first.thaw()
    equal(await scene.first.closed(), (1000, "session_replaced"))
    await asyncio.sleep(scene.past_grace)
    await scene.assert_alive(second)
    scene.assert_events([])


async def relaunched(world, mesh):
    """The old socket closes while the new one says hello, in either order."""
    scene = await Scene.open(world, mesh)
    current = scene.first
    for round in range(10):
        old, new = current, await Peer.open(mesh["url"], scene.alice)
        leave = old.rst if round % 4 < 2 else old.close
        if round % 2:
            await new.write(scene.alice.hello())
            await leave()
        else:
            await asyncio.gather(leave(), new.write(scene.alice.hello()))
        await new.until(lambda f: f["type"] == "hello_ack", f"hello_ack of round {round}")
        equal(new.ack["presenceId"], scene.first.ack["presenceId"])
        current = new
    await asyncio.sleep(scene.past_grace)
    await scene.assert_alive(current)
    scene.assert_events([])


async def gone_during_hello(world, mesh):
    bob = await Identity(mesh, "bob", "session").attach()
    for round in range(20):
        ghost = Identity(mesh, "alice", "session", name=f"ghost-{round}")
        socket = await Peer.open(mesh["url"], ghost)
        await socket.write(ghost.hello())
        await (socket.rst() if round % 2 else socket.close())

    async def alone():
        return len(await bob.peers()) == 1
    await eventually(alone, "only bob is left", world.grace + 2.7)
    equal(len(world.peers(mesh)), 1, "holdfast peers")
    told = {}
    for frame in filter(is_presence, bob.frames):
        told.setdefault(frame["eventData"]["pubkey"], []).append(frame["event"])
    for events in told.values():
        equal(events, ["peer_joined", "peer_left"])


run({
    "cut and back": returns_in_time(lambda peer: peer.rst()),
    "closed and back": returns_in_time(lambda peer: peer.close(1000)),
    "back too late": returns_late,
    "taken over while online": taken_over,
    "relaunched": relaunched,
    "gone during hello": gone_during_hello,
})
