"""What frames get that no client should send: before hello, after it, too large, out of place."""

import asyncio
import json

from mesh import Identity, Peer, equal, run

NO_HELLO = {"type": "error", "code": "no_hello", "message": "must send hello first"}
# Request types that a later version answers; here each is refused by name, at once.
LATER = """
""".split()
# What is answered without a single field, and with which type.
LISTS = {
    "list_contexts": "context_list", "list_tasks": "task_list", "mesh_info": "mesh_info_result",
    "list_skills": "skill_list", "apikey_list": "apikey_list_response", "vault_list": "vault_list_result",
    "list_webhooks": "webhook_list", "audit_query": "audit_result", "audit_verify": "audit_verify_result",
    "list_files": "file_list", "mesh_schema": "mesh_schema_result", "list_collections": "collection_list",
    "mcp_catalog": "mcp_catalog_result", "topic_list": "topic_list_response",
}
# What lacks a field then.
LACKING = """
remember recall forget share_context get_context create_task claim_task complete_task share_skill get_skill
remove_skill vault_set vault_get vault_delete get_file file_status grant_file_access delete_file mesh_query
mesh_execute vector_store vector_search vector_delete graph_query graph_execute mcp_deploy mcp_undeploy
mcp_update mcp_logs mcp_scope mcp_schema peer_file_request peer_file_response peer_dir_request
peer_dir_response topic_create topic_join topic_leave topic_mark_read topic_members topic_history
""".split()
OTHER = {
    "apikey_create": "invalid_args", "apikey_revoke": "invalid_args", "create_webhook": "invalid_webhook",
    "delete_webhook": "invalid_webhook", "skill_deploy": "deploy_error",
}


async def alive(peer):
    equal([p["pubkey"] for p in await peer.peers()].count(peer.pubkey), 1, "still served")


async def before_hello(_, mesh):
    socket = await Peer.open(mesh["url"])
    for frame in ({"type": "list_peers"}, {"type": "send", "id": "1"}, {"type": "frobnicate", "_reqId": "z"},
                  {"type": "x", "p": "A" * 70_000}, {"type": "client_ack"}):
        count = len(socket.frames)
        await socket.write(frame)
        await socket.until(lambda f: True, "an answer", count=count + 1)
        equal(socket.frames[-1], NO_HELLO, str(frame)[:80])
    for raw in ("{nope", "42", "null", "[]", '"text"', "{}", '{"type":7}'):
        count = len(socket.frames)
        await socket.write(raw)
        answer = await socket.until(lambda f: True, f"an answer to {raw}", count=count + 1)
        assert answer["type"] == "error" and answer["code"] in ("malformed", "no_hello"), (raw, answer)
    alice = Identity(mesh, "alice", "session")
    await socket.write(alice.hello())
    await socket.until(lambda f: f["type"] == "hello_ack", "hello_ack after all that")


async def not_json(_, mesh):
    peer = await Identity(mesh, "alice", "session").attach()
    witness = await Identity(mesh, "bob", "session").attach()
    deep = '{"type":"set_profile","bio":' + "[" * 20_000 + "]" * 20_000 + "}"
    for raw in ("{nope", "42", "null", "[]", '"text"', "{}", '{"type":7}', '{"type":null}', "", "\x00",
                '{"type":"list_peers"} trailing', b"\xff\xfe\x00", b"\x00\x01\x02", deep):
        count = len([f for f in peer.frames if f["type"] == "error"])
        await peer.write(raw)
        answer = await peer.until(lambda f: f["type"] == "error", f"an answer to {raw[:30]!r}", count=count + 1)
        assert answer["code"] == "malformed" or raw is deep, (raw[:30], answer)
    await peer.write(b'{"type":"list_peers","_reqId":"bin"}')
    await peer.until(lambda f: f.get("_reqId") == "bin" and f["type"] == "peers_list", "JSON in a binary frame")
    await alive(peer)
    await alive(witness)


async def wrong_types(_, mesh):
    """The field is named, the request is named, the connection is kept."""
    peer = await Identity(mesh, "alice", "session").attach()
    for field, request in (
        ("status", {"type": "set_status", "status": "asleep"}),
        ("status", {"type": "set_status"}),
        ("summary", {"type": "set_summary", "summary": 7}),
        ("stats", {"type": "set_stats", "stats": "many"}),
        ("visible", {"type": "set_visible", "visible": "yes"}),
        ("visible", {"type": "set_visible"}),
        ("title", {"type": "set_profile", "title": {}}),
        ("capabilities", {"type": "set_profile", "capabilities": ["rust", 7]}),
        ("name", {"type": "join_group"}),
        ("name", {"type": "join_group", "name": 7}),
        ("role", {"type": "join_group", "name": "dev", "role": 7}),
        ("name", {"type": "leave_group", "name": None}),
        ("messageId", {"type": "message_status"}),
        ("messageId", {"type": "message_status", "messageId": 7}),
    ):
        answer = await peer.request(**request)
        equal([answer["type"], answer["code"]], ["error", "invalid_argument"], str(request))
        assert field in answer["message"], (request, answer)
    own = (await peer.peers())[0]
    equal([own["status"], own["summary"], own["groups"]], ["idle", None, []], "nothing of it took effect")


async def unsupported(_, mesh):
    peer = await Identity(mesh, "alice", "session").attach()
    for type in (*LATER, "frobnicate", "", "hello_ack", "push"):
        answer = await peer.request(type)
        equal([answer["type"], answer["code"]], ["error", "unsupported"], type)
    await alive(peer)


async def every_request_is_answered(_, mesh):
    peer = await Identity(mesh, "alice", "session").attach()
    for type, reply in LISTS.items():
        equal((await peer.request(type))["type"], reply)
    for type, code in (*((type, "invalid_argument") for type in LACKING), *OTHER.items()):
        answer = await peer.request(type)
        equal([answer["type"], answer["code"]], ["error", code], type)
    await alive(peer)


async def second_hello(_, mesh):
    witness = await Identity(mesh, "bob", "session").attach()
    for kind in ("session", "member"):
        alice = Identity(mesh, "alice", kind)
        peer = await alice.attach()
        await peer.write(alice.hello())
        again = await peer.until(lambda f: f["type"] == "hello_ack", "a second hello_ack", count=2)
        equal([again["presenceId"], again["reattached"]], [peer.ack["presenceId"], True])
        await peer.write(Identity(mesh, "alice", "session").hello())
        error = await peer.until(lambda f: f["type"] == "error", "already_joined")
        equal(error["code"], "already_joined")
        await alive(peer)
        equal(peer.end, None)
        listed = [p["pubkey"] for p in await witness.peers()]
        equal(listed.count(alice.pubkey), 1)
    # Told when the row of the session is durable, which may be after the answers above.
    await witness.until(lambda f: f.get("event") == "peer_joined", "the second join", count=2)
    equal(witness.events, ["peer_joined alice-s", "peer_joined alice"])


async def too_large(_, mesh):
    witness = await Identity(mesh, "bob", "session").attach()
    peer = await Identity(mesh, "alice", "session").attach()
    await peer.write(json.dumps({"type": "frobnicate", "_reqId": "fits", "p": "A" * 1_900_000}))
    await peer.until(lambda f: f.get("_reqId") == "fits", "an answer to a large frame")
    try:
        await peer.write(json.dumps({"type": "frobnicate", "p": "A" * (2 * 1024 * 1024)}))
    except Exception:
        pass  # closed while still writing
    code, _ = await peer.closed()
    assert code == 1009, code
    await alive(witness)
    equal(witness.events, ["peer_joined alice-s"])


async def silent(_, mesh):
    """Whoever says nothing, or nothing right, is closed after the hello timeout."""
    mute = await Peer.open(mesh["url"])
    babbler = await Peer.open(mesh["url"])

    async def babble():
        while babbler.end is None:
            await babbler.write({"type": "list_peers"})
            await asyncio.sleep(0.2)
    talk = asyncio.create_task(babble())
    for socket in (mute, babbler):
        code, _ = await socket.closed(patience=4)
        assert code in (1008, 1002, 1000, 1006), code
    await asyncio.gather(talk, return_exceptions=True)


async def reads_nothing(world, mesh):
    """A client that does not read is closed 1013 and enters grace; nobody else is held up."""
    alice = await Identity(mesh, "alice", "session").attach()
    quick = await Identity(mesh, "carol", "session").attach()
    slow = await Identity(mesh, "bob", "session").attach()
    slow.freeze()
    body = "A" * 60_000

    async def lease():
        return next(p["lease"] for p in await alice.peers() if p["pubkey"] == slow.pubkey)
    sent = 0
    while await lease() == "online" and sent < 1000:
        for _ in range(10):
            sent += 1
            equal((await alice.message("*", "", ciphertext=body, client_message_id=str(sent)))["queued"], True)
    equal(await lease(), "grace", f"after {sent} broadcasts of 60 kB")
    await quick.until(lambda f: f["type"] == "push" and "subtype" not in f, "all broadcasts", count=sent, patience=10)
    slow.thaw()
    code, _ = await slow.closed(patience=10)
    assert code in (1013, 1006), code
    back = await slow.identity.attach()
    equal([back.ack["presenceId"], back.ack["reattached"]], [slow.ack["presenceId"], True])
    await alice.message(back.pubkey, "welcome back")
    await back.until_text("welcome back", patience=10)
    equal(quick.events, ["peer_joined bob-s"])


run({
    "before hello": before_hello,
    "not json": not_json,
    "wrong types": wrong_types,
    "unsupported": unsupported,
    "every request is answered": every_request_is_answered,
    "second hello": second_hello,
    "too large": too_large,
    "silent": silent,
    "reads nothing": reads_nothing,
})
