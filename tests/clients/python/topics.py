"""Topics: who is in them, who hears what is said in them, and what of it is kept."""

import asyncio
import base64
import sqlite3

from nacl.public import Box, PublicKey

from mesh import Identity, equal, eventually, run, text_of


async def three(mesh):
    return [await Identity(mesh, name, "session").attach() for name in ("alice", "bob", "carol")]


async def topic(peer, name, **fields):
    made = (await peer.request("topic_create", name=name, **fields))["topic"]
    return made["id"]


async def history(peer, name, **fields):
    answer = await peer.request("topic_history", topic=name, **fields)
    return answer["messages"]


async def live(_, mesh):
    alice, bob, carol = await three(mesh)
    id = await topic(alice, "plans", description="what next", visibility="private")
    await bob.write({"type": "topic_join", "topic": "plans"})
    members = (await bob.request("topic_members", topic="plans"))["members"]
    equal([(m["displayName"], m["role"]) for m in members], [("alice", "lead"), ("bob", "member")])
    ack = await alice.message(f"#{id}", "first")
    push = await bob.until_text("first")
    equal([push["messageId"], push["topic"], push["senderName"]], [ack["messageId"], "plans", "alice-s"])
    await carol.message(f"#{id}", "from outside")
    for peer in (alice, bob):
        await peer.until_text("from outside")
    await alice.message("*", "to all")
    await carol.until_text("to all")
    equal(carol.texts, ["to all"], "who is not in it hears nothing of it")
    found = await history(carol, id)
    equal([text_of(m) for m in found], ["from outside", "first"])
    equal([found[1]["id"], found[1]["senderName"]], [ack["messageId"], "alice"])
    older = await history(carol, "plans", beforeId=found[0]["id"], limit=5)
    equal([text_of(m) for m in older], ["first"])


async def away(_, mesh):
    alice, bob, _carol = await three(mesh)
    id = await topic(alice, "plans")
    await bob.request("topic_create", name="plans")
    await bob.write({"type": "topic_join", "topic": id})
    await bob.request("topic_list")
    await bob.rst()
    for number in range(20):
        await alice.message(f"#{id}" if number % 2 else "*", str(number))
        await asyncio.sleep(0.11)
    again = await bob.identity.attach()
    await again.until_text("19")
    equal(again.texts, [str(number) for number in range(20)], "in order, with what was said to all")


async def mentions(world, mesh):
    alice, bob, _carol = await three(mesh)
    id = await topic(alice, "plans")
    await bob.write({"type": "topic_join", "topic": id})
    await alice.message(f"#{id}", "what do you think, @BOB?")
    database = sqlite3.connect(f"file:{world.db}?mode=ro", uri=True)
    unread = "SELECT recipient_member_id FROM notification WHERE topic_id = ? AND read_at IS NULL"
    equal(database.execute(unread, (id,)).fetchall(), [(mesh["members"]["bob"]["memberId"],)])
    await bob.write({"type": "topic_mark_read", "topic": id})

    async def read():
        return database.execute(unread, (id,)).fetchall() == []
    await eventually(read, "it is read")
    database.close()


async def sealed(world, mesh):
    alice, _bob, _carol = await three(mesh)
    id = await topic(alice, "plans")
    database = sqlite3.connect(f"file:{world.db}?mode=ro", uri=True)
    (pubkey,) = database.execute("SELECT encrypted_key_pubkey FROM topic WHERE id = ?", (id,)).fetchone()
    keys = "SELECT member_id, encrypted_key, nonce FROM topic_member_key WHERE topic_id = ?"
    ((member, key, nonce),) = database.execute(keys, (id,)).fetchall()
    database.close()
    equal(member, mesh["members"]["alice"]["memberId"])
    blob = base64.b64decode(key)
    equal(blob[:32].hex(), pubkey)
    own = alice.identity.member_key.to_curve25519_private_key()
    opened = Box(own, PublicKey(blob[:32])).decrypt(blob[32:], base64.b64decode(nonce))
    equal(len(opened), 32, "alice opens the key of her topic")


run({"live": live, "away": away, "mentions": mentions, "sealed": sealed})
