"""What was answered is there after the broker was killed, whatever was under way then."""

import asyncio
import sys

from mesh import Identity, equal, run


async def ask_harness(verb):
    print(f"@{verb}", flush=True)
    return await asyncio.to_thread(sys.stdin.readline)


async def ask_much(peer):
    for number in range(20_000):
        await peer.write({"type": "create_task", "title": "t", "_reqId": f"t{number}"})
        if number % 10 == 0:
            await peer.write({"type": "remember", "content": f"number{number}", "_reqId": f"m{number}"})


async def answered_is_kept(_, mesh):
    alice = await Identity(mesh, "alice", "session").attach()
    writing = asyncio.create_task(ask_much(alice))
    await alice.until(lambda f: f["type"] == "task_created", "answers", count=200)
    await ask_harness("kill")
    await alice.closed()
    await asyncio.gather(writing, return_exceptions=True)
    created = [f for f in alice.frames if f["type"] == "task_created"]
    tasks, memories = created, [f for f in alice.frames if f["type"] == "memory_stored"]
    assert memories, len(tasks)
    await ask_harness("start")
    again = await Identity(mesh, "bob", "session").attach()
    info = await again.request("mesh_info")
    assert len(tasks) <= info["tasks"]["open"] <= 10_000, (len(tasks), info)
    assert len(memories) <= info["memoryCount"] <= 2000, (len(memories), info)
    for frame in memories[-5:]:
        number = frame["_reqId"][1:]
        found = (await again.request("recall", query=f"number{number}"))["memories"]
        equal([m["id"] for m in found], [frame["id"]], "found by its words")
    for frame in (tasks[0], tasks[-1]):
        equal((await again.request("claim_task", taskId=frame["id"]))["type"], "task_list")
    print(f"{len(tasks)} answers, {info['tasks']['open']} tasks")


run({"answered is kept": answered_is_kept})
