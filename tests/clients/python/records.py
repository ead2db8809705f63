"""What a mesh keeps on disk only, asked as clients ask: memories, tasks, vaults, webhooks, the audit log."""

import asyncio
import json
import urllib.error
import urllib.request
import uuid

from mesh import Identity, equal, run


async def pair(mesh):
    return [await Identity(mesh, name, "session").attach() for name in ("alice", "bob")]


async def memories(_, mesh):
    alice, bob = await pair(mesh)
    await alice.request("remember", content="the foxes were jumping", tags=["x"])
    await alice.request("remember", content="something else")
    for query in ("fox jumps", "What did the FOX do: jump?"):
        found = (await bob.request("recall", query=query))["memories"]
        equal([m["content"] for m in found], ["the foxes were jumping"], query)
        equal([found[0]["tags"], found[0]["rememberedBy"]], [["x"], "alice"])
    for query in ('"', "fox OR else", "fox* NEAR/2", "') DROP TABLE memory --", "content:fox", "^fox"):
        equal((await bob.request("recall", query=query))["type"], "memory_results", query)
    gone = (await bob.request("forget", memoryId=found[0]["id"]))
    equal([gone["type"], gone["messageId"]], ["ack", found[0]["id"]])
    equal((await alice.request("recall", query="fox"))["memories"], [])


async def pipelined(_, mesh):
    """A read sees the writes before it, and answers come in the order of the questions."""
    alice = (await pair(mesh))[0]
    ids = []
    for number in range(50):
        for type, fields in (("create_task", {"title": f"t{number}"}), ("mesh_info", {})):
            ids.append(str(uuid.uuid4()))
            await alice.write({"type": type, "_reqId": ids[-1], **fields})
    await alice.until(lambda f: f.get("_reqId") == ids[-1], "the last answer")
    answers = [f for f in alice.frames if f.get("_reqId") in set(ids)]
    equal([f["_reqId"] for f in answers], ids)
    for number, answer in enumerate(answers[1::2]):
        assert answer["tasks"]["open"] >= number + 1, (number, answer)


async def one_claims(_, mesh):
    peers = await pair(mesh)
    for _ in range(10):
        task = (await peers[0].request("create_task", title="do"))["id"]
        answers = await asyncio.gather(*(p.request("claim_task", taskId=task) for p in peers))
        equal(sorted(a["type"] for a in answers), ["error", "task_list"])
        refused = next(a for a in answers if a["type"] == "error")
        equal(refused["code"], "task_not_claimable")


async def own_vaults(_, mesh):
    alice, bob = await pair(mesh)
    entry = {"key": "k", "ciphertext": "c", "nonce": "n", "sealed_key": "s", "entry_type": "env"}
    equal((await alice.request("vault_set", **entry))["action"], "stored")
    equal((await bob.request("vault_get", keys=["k"]))["entries"], [])
    equal((await bob.request("vault_delete", key="k"))["action"], "not_found")
    again = await Identity(mesh, "alice", "member").attach()
    found = (await again.request("vault_get", keys=["k"]))["entries"]
    equal(found, [{**entry, "mount_path": None}], "the member's, whichever session asks")


def post(url, body):
    request = urllib.request.Request(url, data=body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


async def webhooks(world, mesh):
    alice, bob = await pair(mesh)
    base = "https://hooks.example/base"
    made = await alice.request("create_webhook", name="ci")
    equal((await bob.request("create_webhook", name="ci"))["code"], "webhook_exists")
    equal(made["url"][:len(base)], base, "as --public-url says")
    listed = await bob.request("list_webhooks")
    equal([hook["url"] for hook in listed["webhooks"]], [made["url"]])
    say = lambda url, body: asyncio.to_thread(post, world.http + url.removeprefix(base), body)
    equal(await say(made["url"], b'{"build": 1.50}'), (200, {"ok": True, "delivered": 2}))
    for peer in (alice, bob):
        push = await peer.until(lambda f: f.get("subtype") == "webhook", "the webhook's push")
        equal([push["event"], push["eventData"], push["senderPubkey"]], ["ci", {"build": 1.5}, "webhook:ci"])
    wrong = made["url"][:-64] + "0" * 64
    unauthorized = (401, {"ok": False, "error": "unauthorized"})
    equal(await say(wrong, b"{}"), unauthorized)
    equal(await say(f"/hook/nowhere/{made['secret']}", b"{}"), unauthorized)
    equal(await say(made["url"], b"{"), (400, {"ok": False, "error": "invalid JSON"}))
    equal(await say(made["url"], b"7"), (400, {"ok": False, "error": "invalid JSON body"}))
    equal((await say(made["url"], b"[" + b"0," * 40_000 + b"0]"))[0], 413)
    equal((await alice.request("delete_webhook", name="ci"))["type"], "webhook_ack")
    equal(await say(made["url"], b"{}"), unauthorized)
    # One too many in a minute.
    again = await alice.request("create_webhook", name="busy")
    statuses = [(await say(again["url"], b"{}"))[0] for _ in range(35)]
    equal([statuses[0], statuses[-1]], [200, 429])


async def files(_, mesh):
    alice, bob = await pair(mesh)
    asked = asyncio.create_task(alice.request("peer_file_request", targetPubkey=bob.pubkey, filePath="a.txt"))
    forward = await bob.until(lambda f: f["type"] == "peer_file_request_forward", "the request")
    equal([forward["requesterPubkey"], forward["filePath"]], [alice.pubkey, "a.txt"])
    content = "x" * 400_000
    await bob.write({
        "type": "peer_file_response", "requesterPubkey": alice.pubkey, "filePath": "a.txt",
        "content": content, "_reqId": forward["_reqId"],
    })
    given = await asked
    equal([given["type"], given["content"] == content], ["peer_file_response_forward", True])


async def audited(world, mesh):
    alice = (await pair(mesh))[0]
    await alice.message("*", "hello")
    await eventually_total(alice, 3)
    verified = await alice.request("audit_verify")
    equal([verified["valid"], verified["entries"]], [True, 3])
    said = json.loads(world.holdfast("audit", "verify", mesh["slug"], "--json"))
    equal([said["valid"], said["entries"]], [True, 3], "the same from the command line")


async def eventually_total(peer, total):
    for _ in range(100):
        if (await peer.request("audit_query", limit=1))["total"] >= total:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"never {total} entries")


run({
    "memories": memories,
    "pipelined": pipelined,
    "one claims": one_claims,
    "own vaults": own_vaults,
    "webhooks": webhooks,
    "files": files,
    "audited": audited,
})
