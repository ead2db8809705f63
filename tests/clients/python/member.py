"""Connections that say `hello`, as seen by a client written in another language.

The same promises as member.mjs: control planes have leases, throw-away commands leave no ghost,
and nobody gets anything by claiming what is another's.
"""

import asyncio

from mesh import Identity, Peer, equal, is_message, run

IN_ORDER = ["one", "two", "three", "four", "five"]


def returns_in_time(leave):
    async def case(world, mesh):
        bob = await Identity(mesh, "bob", "session").attach()
        alice = Identity(mesh, "alice", "member")
        first = await alice.attach()
        await leave(first)
        for text in IN_ORDER:
            equal((await bob.message(alice.pubkey, text))["queued"], True)
        await asyncio.sleep(world.grace / 4)
        back = await alice.attach()
        equal(back.frames[0]["type"], "hello_ack")
        equal([back.ack["presenceId"], back.ack["reattached"]], [first.ack["presenceId"], True])
        await back.until(is_message, "messages kept", count=len(IN_ORDER))
        equal(back.texts, IN_ORDER)
        last = max(i for i, f in enumerate(back.frames) if is_message(f))
        assert back.times[last] - back.times[0] <= 0.05, "within 50 ms of hello_ack"
        await asyncio.sleep(world.grace + 0.7)
        equal(bob.events, ["peer_joined alice"])
    return case


async def returns_late(world, mesh):
    bob = await Identity(mesh, "bob", "session").attach()
    alice = Identity(mesh, "alice", "member")
    await (await alice.attach()).rst()
    await bob.until(lambda f: f.get("event") == "peer_left", "peer_left", world.grace + 1.7)
    back = await alice.attach()
    assert not back.ack.get("reattached")
    await asyncio.sleep(0.3)
    equal(bob.events, ["peer_joined alice", "peer_left alice", "peer_returned alice"])


async def taken_over(world, mesh):
    bob = await Identity(mesh, "bob", "session").attach()
    alice = Identity(mesh, "alice", "member")
    first = await alice.attach()
    second = await alice.attach()
    equal(second.ack["presenceId"], first.ack["presenceId"])
    equal(await first.closed(), (1000, "session_replaced"))
    await asyncio.sleep(world.grace + 0.7)
    equal(bob.events, ["peer_joined alice"])
    await bob.message(alice.pubkey, "still there")
    await second.until_text("still there")


async def impostor(world, mesh):
    """B3: while Alice is away, Carol says hello with Alice's session key."""
    bob = await Identity(mesh, "bob", "session").attach()
    alice = Identity(mesh, "alice", "session")
    first = await alice.attach()
    await first.rst()
    await bob.message(alice.pubkey, "while away")
    thief = Identity(mesh, "carol", "throwaway", session_key=alice.session_key)
    socket = await Peer.open(mesh["url"], thief)
    await socket.write(thief.hello())
    await socket.until(lambda f: f["type"] in ("hello_ack", "error"), "an answer to the claim")
    await bob.message(alice.pubkey, "while claimed")
    await asyncio.sleep(0.3)
    back = await alice.attach()
    equal([back.ack["presenceId"], back.ack["reattached"]], [first.ack["presenceId"], True])
    await back.until_text("while claimed")
    equal(back.texts, ["while away", "while claimed"])
    equal(socket.texts, [], "what the impostor heard")
    if socket.ack:
        assert socket.ack["presenceId"] != first.ack["presenceId"]


async def same_session_id(world, mesh):
    """B2: nobody is evicted by another's use of a session id."""
    first = await Identity(mesh, "alice", "session", session_id="one-for-all").attach()
    others = [
        await Identity(mesh, who, kind, session_id="one-for-all").attach()
        for who, kind in [("carol", "session"), ("carol", "member"), ("alice", "member"), ("alice", "throwaway")]
    ]
    await asyncio.sleep(0.2)
    equal([peer.end for peer in (first, *others)], [None] * 5)
    equal(len(await first.peers()), 5)


async def throwaway_closes(world, mesh):
    bob = await Identity(mesh, "bob", "session").attach()
    command = await Identity(mesh, "alice", "throwaway").attach()
    await command.write({
        "type": "send", "id": "x", "targetSpec": bob.pubkey, "priority": "now", "nonce": "",
        "ciphertext": "bGFzdCB3b3Jkcw==",
    })
    await command.close()
    await bob.until(lambda f: f.get("event") == "peer_left", "peer_left", 1)
    await bob.until_text("last words")
    await asyncio.sleep(world.grace + 0.7)
    equal(bob.events, ["peer_joined alice-cli", "peer_left alice-cli"])


async def throwaway_cut(world, mesh):
    bob = await Identity(mesh, "bob", "session").attach()
    alice = Identity(mesh, "alice", "throwaway")
    first = await alice.attach()
    await first.rst()
    await asyncio.sleep(world.grace / 4)
    back = await alice.attach()
    equal(back.ack["presenceId"], first.ack["presenceId"])
    equal(bob.events, ["peer_joined alice-cli"])


run({
    "cut and back": returns_in_time(lambda peer: peer.rst()),
    "closed and back": returns_in_time(lambda peer: peer.close(1000)),
    "back too late": returns_late,
    "taken over while online": taken_over,
    "impostor": impostor,
    "same session id": same_session_id,
    "throw-away closes": throwaway_closes,
    "throw-away cut": throwaway_cut,
})
