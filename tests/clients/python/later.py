"""What a session owns outlives its sockets and the broker: scheduled messages, hosted MCP servers."""

import asyncio

from mesh import Identity, broker, equal, is_message, now_ms, run, text_of

SOON = 1500
QUIET = 0.5


async def forwarded(peer, count=1):
    return await peer.until(lambda f: f["type"] == "mcp_call_forward", "a call", count=count)


async def register(host, name, **changes):
    tools = [{"name": "q", "description": "query", "inputSchema": {"type": "object"}}]
    ack = await host.request("mcp_register", serverName=name, description="d", tools=tools, **changes)
    equal((ack["type"], ack["toolCount"]), ("mcp_register_ack", 1))


async def schedule_kill(_world, mesh):
    """Due while the broker is dead: sent once by the next one, and never again."""
    author = await Identity(mesh, "alice", "session").attach()
    bob = Identity(mesh, "bob", "session")
    first = await bob.attach()
    command = await Identity(mesh, "bob", "throwaway").attach()
    at = now_ms() + SOON
    for peer, to, text in [(author, bob.pubkey, "overdue"), (command, command.pubkey, "self"), (author, "*", "to all")]:
        ack = await peer.request("schedule", to=to, message=text, deliverAt=at)
        equal((ack["type"], ack["deliverAt"]), ("scheduled_ack", at))
    await author.request("schedule", to="*", message="yearly", cron="0 0 29 2 *")
    cancelled = await author.request("schedule", to=bob.pubkey, message="cancelled", deliverAt=at)
    answer = await author.request("cancel_scheduled", scheduledId=cancelled["scheduledId"])
    equal(answer["ok"], True)
    await command.close()

    equal(await broker("kill"), "ok")
    await first.closed()
    await asyncio.sleep(SOON / 1000 + 0.2)
    equal(await broker("start"), "ok")
    back = await bob.attach()
    for text in ["overdue", "self", "to all"]:
        await back.until_text(text)
    alice = await author.identity.attach()
    left = (await alice.request("list_scheduled"))["messages"]
    equal([m["message"] for m in left], ["yearly"])
    await asyncio.sleep(QUIET)
    equal(sorted(back.texts), ["overdue", "self", "to all"], "each once")
    frames = [f for f in back.frames if is_message(f)]
    equal({text_of(f) for f in frames if f["senderPubkey"] == author.pubkey}, {"overdue", "to all"})
    for frame in frames:
        await back.write({"type": "client_ack", "brokerMessageId": frame["messageId"]})
    # What confirms is not waited for on its way to the disk.
    await asyncio.sleep(QUIET)

    equal(await broker("kill"), "ok")
    equal(await broker("start"), "ok")
    again = await bob.attach()
    await asyncio.sleep(QUIET)
    known = {f["messageId"] for f in frames}
    told = [text_of(f) for f in again.frames if is_message(f) and f["messageId"] not in known]
    equal(told, [], "nothing is sent anew")
    equal([t for t in again.texts if t != "to all"], [], "what was confirmed does not come again")


async def mcp_kill(_world, mesh):
    """Servers are there after a kill as their leases are; a call waits for the host's return."""
    host = await Identity(mesh, "alice", "session").attach()
    bob = Identity(mesh, "bob", "session")
    caller = await bob.attach()
    await register(host, "db")
    await caller.until(lambda f: f.get("event") == "mcp_registered", "news of it")

    equal(await broker("kill"), "ok")
    await caller.closed()
    equal(await broker("start"), "ok")
    caller = await bob.attach()
    listed = (await caller.request("mcp_list"))["servers"]
    equal([(s["name"], s["online"], s["hostedBy"]) for s in listed], [("db", True, "alice-s")])
    call = asyncio.create_task(caller.request("mcp_call", serverName="db", toolName="q", args={"s": 1}))
    await asyncio.sleep(QUIET)
    assert not call.done(), "it waits for the host"
    host = await host.identity.attach()
    forward = await forwarded(host)
    equal(forward["args"], {"s": 1})
    await host.write({"type": "mcp_call_response", "callId": forward["callId"], "result": {"rows": 2}})
    equal((await call)["result"], {"rows": 2})


async def mcp_cut(world, mesh):
    """Silent over a reconnect, and gone with the lease, unless it is to stay."""
    identity = Identity(mesh, "alice", "session")
    host = await identity.attach()
    caller = await Identity(mesh, "bob", "session").attach()
    await register(host, "db")
    await register(host, "kept", persistent=True)
    await caller.until(lambda f: f.get("event") == "mcp_registered", "news of them", count=2)
    before = len(caller.frames)
    await host.rst()
    call = asyncio.create_task(caller.request("mcp_call", serverName="db", toolName="q", args={}))
    await asyncio.sleep(QUIET)
    host = await identity.attach()
    forward = await forwarded(host)
    await host.write({"type": "mcp_call_response", "callId": forward["callId"], "error": "boom"})
    equal((await call)["error"], "boom")
    equal(len(caller.frames), before + 1, "nobody is told of a reconnect")

    await host.rst()
    gone = await caller.until(lambda f: f.get("event") == "mcp_unregistered", "its end", patience=world.grace + 2)
    equal(gone["eventData"]["serverName"], "db")
    listed = (await caller.request("mcp_list"))["servers"]
    equal([(s["name"], s["online"]) for s in listed], [("kept", False)])
    offline = (await caller.request("mcp_call", serverName="kept", toolName="q", args={}))["error"]
    assert offline.startswith("Server 'kept' is offline — hosted by alice-s who disconnected 0s ago."), offline
    await identity.attach()
    await caller.until(lambda f: f.get("event") == "mcp_restored", "its return")


run({f.__name__: f for f in (schedule_kill, mcp_kill, mcp_cut)})
