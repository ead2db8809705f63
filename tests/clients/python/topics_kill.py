"""What was acknowledged in a topic reaches who was away and is in its history, also after a kill."""

import asyncio
import sys

from mesh import Identity, equal, run, text_of


async def ask_harness(verb):
    print(f"@{verb}", flush=True)
    return await asyncio.to_thread(sys.stdin.readline)


async def acknowledged_is_kept(_, mesh):
    alice, bob = [await Identity(mesh, name, "session").attach() for name in ("alice", "bob")]
    id = (await alice.request("topic_create", name="plans"))["topic"]["id"]
    await bob.write({"type": "topic_join", "topic": id, "role": "observer"})
    await bob.request("topic_list")
    await bob.rst()
    said = [str(number) for number in range(8)]
    for text in said:
        await alice.message(f"#{id}", text)
    await ask_harness("kill")
    await alice.closed()
    await ask_harness("start")
    bob = await bob.identity.attach()
    await bob.until_text(said[-1])
    equal(bob.texts, said)
    alice = await alice.identity.attach()
    members = (await alice.request("topic_members", topic="plans"))["members"]
    equal([(m["displayName"], m["role"]) for m in members], [("alice", "lead"), ("bob", "observer")])
    await alice.message(f"#{id}", "after")
    await bob.until_text("after")
    found = (await alice.request("topic_history", topic=id))["messages"]
    equal([text_of(m) for m in found], ["after", *reversed(said)])


run({"acknowledged is kept": acknowledged_is_kept})
