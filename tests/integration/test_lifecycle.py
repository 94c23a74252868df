"""Identity comes, changes and goes under running sidecars; a sidecar stops without losing requests in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.tls import server_context
from sidecar_dev.registry import Registry
from tests.integration.hops import Hops
from tests.integration.world import (
    CRM,
    PARTNER,
    PLANNER,
    WRITER,
    Agent,
    Sidecar,
    World,
    bearer,
    calling,
    mint,
    ok,
    until,
)

pytestmark = [pytest.mark.integration, pytest.mark.both_loops]

HELPER = SpiffeId("spiffe://partner.example/agent/helper")


def lost(sidecar: Sidecar) -> Callable[[], bool]:
    return lambda: any(reason.startswith("identity") for reason in sidecar.server.missing())


# --- identity


async def test_without_its_own_identity_a_sidecar_serves_nobody_and_comes_back_by_itself(hops: Hops) -> None:
    await hops.start()
    registry = hops.writer.api.registry
    entries = registry.entries
    hold = hops.agent.script
    async with (
        hops.serving() as held,
        hops.world.kept(hops.writer.inbound, hops.planner) as inbound,
        hops.world.kept(hops.writer.outbound) as outbound,
    ):
        hops.agent.script = None
        assert (await inbound.ask(headers=bearer(mint()))).status == 200
        assert (await outbound.ask("/x", headers=held.shown, host="crm.mesh")).status == 200

        registry.replace_entries([])
        await until(lost(hops.writer))
        of_next_hops = hops.writer.server.parts.pools[1]
        await until(lambda: len(of_next_hops.connections) == 0)  # made with an identity that we no longer have
        served = len(hops.agent.requests), len(hops.crm.requests)
        refused = await inbound.ask(headers=bearer(mint()))
        assert (refused.status, refused.reason) == (503, "not_ready")
        refused = await outbound.ask("/x", headers=held.shown, host="crm.mesh")
        assert (refused.status, refused.reason) == (503, "not_ready")
        refused = await hops.call(held.shown)
        assert (refused.status, refused.reason) == (503, "not_ready")
        assert await hops.world.hears_nothing(hops.writer.inbound, hops.planner)
        assert served == (len(hops.agent.requests), len(hops.crm.requests))

        await until(lambda: len(hops.writer.server.parts.watch) == 0)
        registry.replace_entries(entries)
        await until(lambda: not hops.writer.server.missing())
        assert (await inbound.ask(headers=bearer(mint()))).status == 200
        assert (await hops.call(held.shown)).reason == "no_request_context"  # its request ended with the identity
    hops.agent.script = hold
    async with hops.serving() as held:
        assert (await hops.call(held.shown)).status == 200
    refusals = [r for r in hops.writer.records() if r["reason"] == "not_ready"]
    assert sorted((r["direction"], r["decision"]) for r in refusals) == [
        ("inbound", "deny"),
        ("inbound", "deny"),
        ("outbound", "deny"),
        ("outbound", "deny"),
    ]
    assert {r["peer"] for r in refusals if r["direction"] == "inbound"} == {PLANNER}
    assert len(hops.writer.records("identity.lost")) == 1


async def test_svids_are_renewed_under_load_and_no_request_is_lost(hops: Hops) -> None:
    await hops.start(route={"max_calls": 10_000})
    registry = hops.writer.api.registry
    served = 0
    ended = False
    async with hops.serving() as held, hops.world.kept(hops.writer.inbound, hops.planner) as kept:
        hops.agent.script = None

        async def load(ask: Callable[[], Any]) -> None:
            nonlocal served
            while not ended:
                assert (await ask()).status == 200
                served += 1

        token = mint()
        running = [
            asyncio.ensure_future(load(lambda: kept.ask(headers=bearer(token)))),
            asyncio.ensure_future(
                load(lambda: hops.world.call(hops.writer.inbound, hops.planner, headers=bearer(token)))
            ),
            asyncio.ensure_future(load(lambda: hops.call(held.shown))),
        ]
        for number in range(1, 9):
            (entry,) = registry.entries
            registry.replace_entries([replace(entry, ttl_s=entry.ttl_s - number)])
            await until(lambda n=number: len(hops.writer.records("identity.rotated")) > n)  # type: ignore[misc]
            await until(lambda n=number: served >= 3 * n)  # type: ignore[misc]
        ended = True
        await asyncio.gather(*running)
    assert served >= 24
    assert {r["reason"] for r in hops.writer.records()} == {"ok"}


# --- trust


async def partners(world: World) -> Sidecar:
    """Return the writer's sidecar, whose route also admits the partner's helper."""
    settings = world.settings()
    settings["issuers"][0]["actor_trust_domains"].append("partner.example")
    settings["inbound"]["routes"][0]["peers"].append(HELPER)
    return await world.sidecar(WRITER, settings)


def distrust_partner(sidecar: Sidecar) -> None:
    """Withdraw the partner's bundle; our own SVID stays, or all connections would end with the old one."""
    distrust(sidecar.api.registry)


def distrust(registry: Registry) -> None:
    (entry,) = registry.entries
    alone = replace(entry, federates_with=frozenset())
    registry._issued[alone] = registry.svid(entry)
    registry.replace_entries([alone])


def forgot_partner(sidecar: Sidecar) -> Callable[[], bool]:
    source = sidecar.server.parts.source
    return lambda: source.current is not None and PARTNER not in source.current.bundles


async def test_when_a_trust_domain_is_no_longer_trusted_its_kept_connections_end(world: World) -> None:
    sidecar = await partners(world)
    helper = calling(await world.source(HELPER), WRITER)
    planner = calling(await world.source(PLANNER), WRITER)
    of_helper = bearer(mint({"act": {"sub": HELPER}}))
    async with (
        world.kept(sidecar.inbound, helper) as used,
        world.kept(sidecar.inbound, helper) as idle,
        world.kept(sidecar.inbound, planner) as other,
    ):
        assert (await used.ask(headers=of_helper)).status == 200
        assert (await idle.ask(headers=of_helper)).status == 200
        assert (await other.ask(headers=bearer(mint()))).status == 200
        served = len(world.agent.requests)

        distrust_partner(sidecar)
        await until(forgot_partner(sidecar))
        used.send(headers=of_helper)
        assert await used.wait_for_end() == b""
        assert await idle.wait_for_end() == b""
        assert len(world.agent.requests) == served
        assert (await other.ask(headers=bearer(mint()))).status == 200


async def with_helper(hops: Hops) -> Agent:
    """Return the writer's sidecar, with a route to a next hop of the partner's."""
    helper = Agent()
    port = await hops.world.listen(helper.serve, ssl=server_context(await hops.world.source(HELPER)))
    settings = hops.settings(route={"may_call": ["crm", "helper"]})
    route = hops.route("helper", CRM, {"host": "helper.mesh"}, port)
    settings["outbound"]["routes"].append({**route, "peer": HELPER, "audience": HELPER})
    del settings["outbound"]["routes"][1]
    hops.writer = await hops.world.sidecar(WRITER, settings)
    return helper


async def test_a_kept_connection_to_a_next_hop_that_is_no_longer_trusted_ends(hops: Hops) -> None:
    await with_helper(hops)
    kept = hops.writer.server.parts.pools[1].connections
    async with hops.serving() as held:
        assert (await hops.call(held.shown, "/x", host="helper.mesh")).status == 200
        assert (await hops.call(held.shown)).status == 200
        assert len(kept) == 2
        distrust_partner(hops.writer)
        await until(lambda: len(kept) == 1)


async def test_a_kept_connection_to_a_next_hop_that_is_no_longer_trusted_is_not_used_again(hops: Hops) -> None:
    helper = await with_helper(hops)
    async with hops.serving() as held:
        for _ in range(2):
            assert (await hops.call(held.shown, "/x", host="helper.mesh")).status == 200
        distrust_partner(hops.writer)
        await until(forgot_partner(hops.writer))
        refused = await hops.call(held.shown, "/x", host="helper.mesh")
        assert (refused.status, refused.reason) == (502, "upstream_identity")
        assert len(helper.requests) == 2
        assert (await hops.call(held.shown)).status == 200


# --- the end


async def refused_connection(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.transport.abort()
    return False


async def test_a_stopping_sidecar_takes_no_connections_and_finishes_what_it_has(hops: Hops) -> None:
    await hops.start(drain_s=8.0)
    writer = hops.writer
    async with hops.world.kept(writer.inbound, hops.planner) as idle, hops.serving() as held:
        hops.agent.script = None
        assert (await idle.ask(headers=bearer(mint()))).status == 200
        writer.stop.set()
        await idle.wait_for_end()
        assert await refused_connection(writer.inbound)
        assert writer.server.missing() == ["stopping"]
        late = await hops.call(held.shown)  # the agent can still finish its work
        assert late.status == 200
        assert not writer.running.done()
        held.answer.set_result(ok(b"finished"))
    assert await asyncio.wait_for(writer.running, 5) is True
    assert await refused_connection(writer.outbound)
    assert [r["reason"] for r in writer.records()] == ["ok"] * 3
    assert len(writer.records("stopped")) == 1


async def test_requests_that_wait_behind_another_are_served_too(world: World) -> None:
    sidecar = await world.sidecar(WRITER, world.settings(drain_s=8.0))
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    world.agent.script = lambda _head, _body: answer
    async with world.kept(sidecar.inbound, calling(await world.source(PLANNER), WRITER)) as kept:
        for _ in range(3):
            kept.send(headers=bearer(mint()))
        await world.agent.arrived.wait()
        (connection,) = sidecar.server.parts.listeners[0].connections
        await until(lambda: connection.has_rest)
        sidecar.stop.set()
        await until(lambda: sidecar.server.draining)
        answer.set_result(ok(b"done"))
        answers = [await kept.receive() for _ in range(3)]
    assert [one.headers.get("connection") for one in answers] == [None, None, "close"]
    assert await asyncio.wait_for(sidecar.running, 5) is True
    assert [record["reason"] for record in sidecar.records()] == ["ok"] * 3


async def test_what_takes_longer_than_the_drain_is_told_and_recorded(hops: Hops) -> None:
    await hops.start(drain_s=0.2)
    answers = []

    async def ask() -> None:
        headers = [*bearer(mint()), ("x-number", "late")]
        answers.append(await hops.world.call(hops.writer.inbound, hops.planner, headers=headers))

    asking = asyncio.ensure_future(ask())
    await hops.agent.expect("late")
    hops.writer.stop.set()
    assert await asyncio.wait_for(hops.writer.running, 5) is False
    await asking
    assert (answers[0].status, answers[0].reason) == (503, "draining")
    (record,) = hops.writer.records()
    assert (record["decision"], record["reason"], record["status"]) == ("allow", "draining", 503)


async def test_a_call_that_waits_for_its_token_longer_than_the_drain_is_told_too(hops: Hops) -> None:
    await hops.start(drain_s=0.2, exchange={"timeout_s": 30})
    hops.sts.hold()
    async with hops.serving() as held:
        calling_out = asyncio.ensure_future(hops.call(held.shown))
        await hops.sts.wait_for_requests(1)
        hops.writer.stop.set()
        answer = await calling_out
        assert (answer.status, answer.reason) == (503, "draining")
        assert await asyncio.wait_for(hops.writer.running, 5) is False
    hops.sts.release()
    reasons = {record["direction"]: record["reason"] for record in hops.writer.records()}
    assert reasons == {"inbound": "draining", "outbound": "draining"}


async def test_an_idle_sidecar_stops_at_once(hops: Hops) -> None:
    await hops.start(drain_s=30.0)
    async with hops.world.kept(hops.writer.outbound) as kept:
        assert (await kept.ask("/x")).reason == "target_denied"
        hops.writer.stop.set()
        assert await asyncio.wait_for(hops.writer.running, 3) is True
        assert await kept.wait_for_end() == b""


async def test_an_address_that_is_taken_ends_the_start(world: World) -> None:
    first = await world.sidecar(WRITER, world.settings())
    settings = world.settings()
    second = await world.sidecar(WRITER, settings, wait=False, ports={"in": first.inbound})
    with pytest.raises(OSError, match=r"[Aa]ddress"):
        await second.running
    assert second.records("started") == []
    assert len(second.records("stopped")) == 1
