"""What a mesh shares: state, streams, and subscriptions that outlive sockets and the broker."""

import asyncio

from mesh import Identity, equal, now_ms, run

CONFIRMED = 1.5
QUIET = 0.3


def told(peer, kind, field):
    return [f[field] for f in peer.frames if f["type"] == kind]


async def ask_harness(verb):
    print(f"@{verb}", flush=True)
    equal((await asyncio.to_thread(input)).strip(), "ok")


async def publish(peer, stream, *data):
    for item in data:
        await peer.write({"type": "publish", "stream": stream, "data": item})
    await peer.peers()


async def subscribers(peer, stream):
    streams = (await peer.request("list_streams"))["streams"]
    return next(s["subscriberCount"] for s in streams if s["name"] == stream)


async def away_and_back(_, mesh):
    """A reconnect is silent and loses nothing; the end of the lease ends the subscription."""
    alice = await Identity(mesh, "alice", "session").attach()
    bob = Identity(mesh, "bob", "session")
    first = await bob.attach()
    made = await alice.request("create_stream", name="logs")
    equal((await first.request("create_stream", name="logs"))["id"], made["id"], "made once")
    await first.request("subscribe", stream="logs")
    await publish(alice, "logs", {"n": 0})
    await first.until(lambda f: f["type"] == "stream_data", "what is published")
    await asyncio.sleep(CONFIRMED)
    await first.rst()
    await publish(alice, "logs", 1, 2, 3)
    for value in (1, 2, {"last": True}):
        await alice.write({"type": "set_state", "key": "k", "value": value})
    await publish(alice, "logs", 4)
    back = await bob.attach()
    await publish(alice, "logs", 5)
    await back.until(lambda f: f["type"] == "stream_data", "what was missed", count=5)
    await asyncio.sleep(QUIET)
    equal(told(back, "stream_data", "data"), [1, 2, 3, 4, 5])
    equal(told(back, "state_change", "value"), [{"last": True}], "the last value")
    equal(told(alice, "state_change", "value") + told(alice, "stream_data", "data"), [], "not to who says it")
    equal(await subscribers(alice, "logs"), 1)
    await back.write({"type": "goodbye"})
    await back.closed()
    equal(await subscribers(alice, "logs"), 0)
    answer = await alice.request("publish", stream="unknown", data=1)
    equal((answer["type"], answer["code"]), ("error", "not_found"))


async def over_a_kill(_, mesh):
    alice, bob = Identity(mesh, "alice", "session"), Identity(mesh, "bob", "session")
    publisher, subscriber = await alice.attach(), await bob.attach()
    made = await publisher.request("create_stream", name="logs")
    await subscriber.request("subscribe", stream="logs")
    await publisher.write({"type": "set_state", "key": "k", "value": [1, "two"]})
    await subscriber.until(lambda f: f["type"] == "state_change", "the change")
    # An answer that waits for the disk stands behind what was set.
    await publisher.request("create_stream", name="other")
    await ask_harness("kill")
    await ask_harness("start")
    publisher = await alice.attach()
    await publish(publisher, "logs", "meanwhile")
    subscriber = await bob.attach()
    await publish(publisher, "logs", "live")
    await subscriber.until(lambda f: f["type"] == "stream_data", "both", count=2)
    equal(told(subscriber, "stream_data", "data"), ["meanwhile", "live"])
    equal((await publisher.request("create_stream", name="logs"))["id"], made["id"])
    equal((await publisher.request("get_state", key="k"))["value"], [1, "two"])


async def clock_and_schedules(_, mesh):
    """Both are there after a reset; the clock stops with the last lease, a schedule is the member's."""
    alice = Identity(mesh, "alice", "session")
    first = await alice.attach()
    # A tick every 0.6 s, as fast as it goes.
    clock = await first.request("set_clock", speed=100)
    equal([clock["type"], clock["speed"], clock["paused"]], ["clock_status", 100, False])
    made = await first.request("schedule", to="*", message="later", deliverAt=now_ms() + 3_600_000)
    listed = lambda answer: [m["id"] for m in answer["messages"]]
    await first.rst()
    back = await alice.attach()
    equal(listed(await back.request("list_scheduled")), [made["scheduledId"]])
    await back.until(lambda f: f.get("event") == "tick", "the clock goes on", count=2)
    equal((await back.request("get_clock"))["paused"], False)
    await back.write({"type": "goodbye"})
    await back.closed()
    bob = await Identity(mesh, "bob", "session").attach()
    stopped = await bob.request("get_clock")
    equal(stopped["paused"], True, "nobody was there")
    await asyncio.sleep(QUIET)
    equal([f for f in bob.frames if f.get("event") == "tick"], [])
    equal((await bob.request("get_clock"))["tick"], stopped["tick"])
    equal(listed(await bob.request("list_scheduled")), [], "they are alice's")
    again = await Identity(mesh, "alice", "session").attach()
    equal(listed(await again.request("list_scheduled")), [made["scheduledId"]])
    refused = await bob.request("cancel_scheduled", scheduledId=made["scheduledId"])
    equal([refused["type"], refused["code"]], ["error", "forbidden"])
    cancelled = await again.request("cancel_scheduled", scheduledId=made["scheduledId"])
    equal(cancelled["ok"], True)


run({
    "away and back": away_and_back,
    "over a kill": over_a_kill,
    "clock and schedules": clock_and_schedules,
})
