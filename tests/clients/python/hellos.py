"""Every row of the refusal tables of hello and session_hello: code, text, close code and reason."""

import json

from nacl.signing import SigningKey

from mesh import Identity, Peer, equal, now_ms, pubkey_of, run

SKEW = "timestamp_skew"
BAD_KEYS = ["XYZ", "ab" * 31, "AB" * 32, "zz" * 32, 7, ["ab" * 32]]


async def refused(mesh, frame, code, message, close=1008, reason=None):
    """Says one hello on a fresh socket and expects exactly one error and a close."""
    socket = await Peer.open(mesh["url"])
    await socket.write(frame)
    end = await socket.closed()
    what = f"{code}: {str(frame)[:200]}"
    equal(socket.frames, [{"type": "error", "code": code, "message": message}], what)
    equal(end, (close, reason or code), what)


async def unharmed(mesh, witness):
    """Whatever was refused, the witness is served and sees nobody come or go."""
    equal([p["pubkey"] for p in await witness.peers()], [witness.pubkey])
    equal(witness.events, [])


def broken(signature):
    """The same shape, another signature."""
    return ("0" if signature[0] != "0" else "1") + signature[1:]


async def hello(_, mesh):
    witness = await Identity(mesh, "bob", "session").attach()
    alice = Identity(mesh, "alice", "member")
    fine = alice.hello
    for key in BAD_KEYS:
        await refused(mesh, fine(sessionPubkey=key), "bad_session_pubkey", "sessionPubkey must be 64 lowercase hex chars")
    for stamp in (now_ms() - 61_000, now_ms() + 62_000, str(now_ms()), None, [now_ms()]):
        await refused(mesh, fine(timestamp=stamp), SKEW, f"hello rejected: {SKEW}")
    missing = fine()
    del missing["timestamp"]
    await refused(mesh, missing, SKEW, f"hello rejected: {SKEW}")
    for field, value in [("signature", "nothex"), ("signature", "ab"), ("signature", None), ("pubkey", "XYZ"), ("pubkey", 7)]:
        await refused(mesh, {**fine(), field: value}, "malformed", "hello rejected: malformed")
    good = fine()
    for frame in (
        {**good, "signature": broken(good["signature"])},
        {**fine(), "memberId": "another"},
        {**fine(), "meshId": "another"},
        {**fine(), "timestamp": now_ms() + 5},
        {**fine(), "pubkey": mesh["members"]["bob"]["pubkey"]},
    ):
        await refused(mesh, frame, "bad_signature", "hello rejected: bad_signature")
    await refused(mesh, fine(meshId="no-such-mesh"), "unauthorized", "pubkey not found in mesh")
    await refused(mesh, fine(pubkey=mesh["members"]["alice"]["pubkey"].upper()), "unauthorized", "pubkey not found in mesh")
    stranger = Identity(mesh, "alice", "member")
    stranger.member_key = SigningKey.generate()
    await refused(mesh, stranger.hello(pubkey=pubkey_of(stranger.member_key)), "unauthorized", "pubkey not found in mesh")
    await unharmed(mesh, witness)


async def hello_accepted(_, mesh):
    """At the edges of what is asked, and without what the original could not do without."""
    alice = Identity(mesh, "alice", "member")
    for frame in (
        alice.hello(timestamp=now_ms() - 58_000),
        alice.hello(timestamp=now_ms() + 58_000),
        alice.hello(memberId="signed, but never compared"),
        alice.hello(sessionPubkey=None),
        alice.hello(sessionPubkey=""),
        {**(shouted := alice.hello()), "signature": shouted["signature"].upper()},
        {k: v for k, v in alice.hello().items() if k not in ("cwd", "pid", "displayName")},
        {**alice.hello(), "unheard": {"of": [1, None]}, "peerType": "connector", "capabilities": 5},
    ):
        socket = await Peer.open(mesh["url"])
        await socket.write(frame)
        ack = await socket.until(lambda f: True, "an answer")
        equal(ack["type"], "hello_ack", str(frame))
        equal([ack["memberProfile"], ack["meshPolicy"]], [
            {"roleTag": None, "groups": [], "messageMode": "push"},
            {"selfEditable": {"displayName": True, "roleTag": True, "groups": True, "messageMode": True}},
        ])
        await socket.close()


async def session_hello(_, mesh):
    witness = await Identity(mesh, "bob", "session").attach()
    alice = Identity(mesh, "alice", "session")
    fine, attest = alice.hello, alice.attestation
    for key in BAD_KEYS + [None, ""]:
        await refused(mesh, {**fine(), "sessionPubkey": key}, "bad_session_pubkey",
                      "sessionPubkey must be 64 lowercase hex chars")
        await refused(mesh, {**fine(), "parentMemberPubkey": key}, "bad_parent_pubkey",
                      "parentMemberPubkey must be 64 lowercase hex chars")
    unbound = "parentAttestation does not bind the claimed session+parent pubkeys"
    other = pubkey_of(SigningKey.generate())
    for attestation in (None, "text", [], {}, attest(sessionPubkey=other), attest(parentMemberPubkey=other)):
        await refused(mesh, fine(parentAttestation=attestation), "attestation_mismatch", unbound)

    for attestation, code in (
        ({**attest(), "expiresAt": "soon"}, "malformed"),
        ({**attest(), "expiresAt": None}, "malformed"),
        (attest(expires_at=now_ms() - 1000), "expired"),
        (attest(expires_at=now_ms() + 24 * 3_600_000 + 60_000), "ttl_too_long"),
        ({**attest(), "signature": "ab"}, "malformed"),
        ({**attest(), "signature": broken(attest()["signature"])}, "bad_signature"),
        ({**attest(), "expiresAt": now_ms() + 60_000}, "bad_signature"),
    ):
        await refused(mesh, fine(parentAttestation=attestation), code, f"attestation rejected: {code}")

    for frame, code in (
        (fine(timestamp=now_ms() - 61_000), SKEW),
        (fine(timestamp=now_ms() + 62_000), SKEW),
        ({**fine(), "timestamp": str(now_ms())}, SKEW),
        ({**fine(), "signature": "ab"}, "malformed"),
        ({**fine(), "signature": broken(fine()["signature"])}, "bad_signature"),
        ({**fine(), "meshId": "another"}, "bad_signature"),
    ):
        await refused(mesh, frame, code, f"session_hello rejected: {code}")
    await refused(mesh, fine(meshId="no-such-mesh"), "unauthorized", "parent pubkey not found in mesh")
    await refused(mesh, fine(parentMemberId=mesh["members"]["bob"]["memberId"]), "parent_member_id_mismatch",
                  "parentMemberId does not match parentMemberPubkey")
    await unharmed(mesh, witness)
    for absent in ({"parentMemberId": ""}, {"parentMemberId": None}):
        socket = await Peer.open(mesh["url"])
        await socket.write(fine(**absent))
        equal((await socket.until(lambda f: True, "an answer"))["type"], "hello_ack")


async def order_of_checks(_, mesh):
    """Of two faults the one that the table names first is told."""
    alice = Identity(mesh, "alice", "session")
    both = {**alice.hello(), "sessionPubkey": "XYZ", "parentMemberPubkey": "XYZ"}
    await refused(mesh, both, "bad_session_pubkey", "sessionPubkey must be 64 lowercase hex chars")
    late = alice.hello(timestamp=0, parentAttestation=alice.attestation(expires_at=now_ms() - 1000))
    await refused(mesh, late, "expired", "attestation rejected: expired")
    member = Identity(mesh, "alice", "member")
    await refused(mesh, {**member.hello(), "signature": "ab", "timestamp": 0}, SKEW, f"hello rejected: {SKEW}")


async def replayed(_, mesh):
    """A hello overheard is worth nothing: its signature counts once."""
    for kind in ("session", "member"):
        alice = Identity(mesh, "alice", kind)
        overheard = alice.hello()
        first = await Peer.open(mesh["url"], alice)
        await first.write(overheard)
        await first.until(lambda f: f["type"] == "hello_ack", "hello_ack")
        await refused(mesh, overheard, "replayed", "hello rejected: replayed")
        equal(first.end, None, "the owner stays")
        await first.close()


async def wrong_fields(_, mesh):
    """Fields that the tables do not name: refused by name, or harmless, never silent."""
    for field, value in [("sessionId", 7), ("groups", "dev"), ("groups", [{"name": 7}]), ("cwd", {}), ("displayName", [])]:
        socket = await Peer.open(mesh["url"])
        await socket.write(Identity(mesh, "alice", "session").hello(**{field: value}))
        answer = await socket.until(lambda f: True, f"an answer to {field} {value!r}")
        if answer["type"] == "error":
            equal(answer["code"], "invalid_argument")
            assert field in answer["message"], answer
    without = {k: v for k, v in Identity(mesh, "alice", "session").hello().items() if k != "sessionId"}
    socket = await Peer.open(mesh["url"])
    await socket.write(json.dumps(without))
    answer = await socket.until(lambda f: True, "an answer without sessionId")
    assert answer["type"] == "hello_ack" or "sessionId" in answer["message"], answer


run({
    "hello": hello,
    "hello accepted": hello_accepted,
    "session_hello": session_hello,
    "order of checks": order_of_checks,
    "replayed": replayed,
    "wrong fields": wrong_fields,
})
