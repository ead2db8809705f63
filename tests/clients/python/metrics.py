"""/metrics is valid Prometheus text, its names and labels are the known ones, and its gauges agree
with `holdfast peers` through joins, grace, kicks and leaves."""

import asyncio
import json
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from mesh import Identity, Peer, equal, eventually, run

TYPES = {
    "broker_connections": "counter", "broker_connections_rejected": "counter", "broker_connections_active": "gauge",
    "broker_messages_routed": "counter", "broker_messages_rejected": "counter",
    "broker_messages_dropped_by_grant": "counter", "broker_legacy_auth_hits": "counter", "broker_queue_depth": "gauge",
    "broker_ttl_sweeps": "counter", "broker_hook_requests": "counter", "broker_hook_requests_rate_limited": "counter",
    "broker_db_healthy": "gauge",
}


async def get(world, path):
    def fetch():
        with urllib.request.urlopen(world.http + path) as response:
            return response.headers, response.read().decode()
    return await asyncio.to_thread(fetch)


async def scrape(world):
    headers, text = await get(world, "/metrics")
    equal(headers["Content-Type"], "text/plain; version=0.0.4")
    return {family.name: family for family in text_string_to_metric_families(text)}


async def value(world, name, **labels):
    """The sum of a metric's samples that carry these labels."""
    samples = (await scrape(world))[name].samples
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


async def metrics(world, mesh):
    families = await scrape(world)
    equal({n: families[n].type for n in TYPES if n in families}, TYPES)
    assert all(families[name].documentation for name in TYPES)
    equal(await value(world, "broker_db_healthy"), 1)
    upgrades = await value(world, "broker_connections")

    alice = await Identity(mesh, "alice", "session").attach()
    bob = await Identity(mesh, "bob", "session").attach()
    plane = await Identity(mesh, "carol", "member").attach()
    equal(await value(world, "broker_connections"), upgrades + 3)

    async def agree(present):
        equal(len(world.peers(mesh)), present, "holdfast peers")
        equal(await value(world, "broker_connections_active"), present)
        equal(len(await alice.peers()), present, "list_peers")
    await agree(3)
    await bob.rst()

    async def in_grace():
        return [p["lease"] for p in world.peers(mesh)].count("grace") == 1
    await eventually(in_grace, "grace")
    await agree(3)
    await alice.request("disconnect", target="carol")
    await plane.closed()
    await agree(2)

    async def gone():
        return len(world.peers(mesh)) == 1
    await eventually(gone, "the end of grace", world.grace + 2)
    await agree(1)


async def counted(world, mesh):
    """Each refusal and each push moves its counter, by its label."""
    alice = await Identity(mesh, "alice", "session").attach()
    bob = await Identity(mesh, "bob", "session").attach()
    before = {reason: await value(world, "broker_connections_rejected", reason=reason)
              for reason in ("bad_signature", "timestamp_skew", "unauthorized", "session_bad_signature")}
    for frame in (
        {**Identity(mesh, "alice", "member").hello(), "signature": "00" * 64},
        Identity(mesh, "alice", "member").hello(timestamp=0),
        Identity(mesh, "alice", "member").hello(meshId="none"),
        {**Identity(mesh, "alice", "session").hello(), "signature": "00" * 64},
    ):
        socket = await Peer.open(mesh["url"])
        await socket.write(frame)
        await socket.closed()
    for reason, count in before.items():
        equal(await value(world, "broker_connections_rejected", reason=reason), count + 1, reason)

    routed = await value(world, "broker_messages_routed", priority="next")
    rejected = await value(world, "broker_messages_rejected", reason="no_recipient")
    await alice.message(bob.pubkey, "x", priority="next")
    await bob.until_text("x")
    await alice.message("nobody", "x")
    equal(await value(world, "broker_messages_routed", priority="next"), routed + 1)
    equal(await value(world, "broker_messages_rejected", reason="no_recipient"), rejected + 1)


async def health(world, _):
    _, text = await get(world, "/health")
    body = json.loads(text)
    equal([body["status"], body["db"], type(body["uptime"])], ["ok", "up", int])
    assert {"version", "gitSha"} <= body.keys()
    _, text = await get(world, "/health/ready")
    equal(json.loads(text)["status"], "ready")


# "metrics" compares a gauge of the whole broker, so it runs alone, by name.
run({"metrics": metrics, "counted": counted, "health": health})
