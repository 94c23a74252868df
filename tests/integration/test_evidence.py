"""Every request leaves exactly one record, however it ends: aborted, cut, refused, or by a bug of our own."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from delegation_core.errors import Reason
from sidecar.assembly.server import assemble
from sidecar.config.settings import SidecarSettings
from sidecar.proxy.journeys.handles import Handles
from sidecar.proxy.journeys.inbound import Inbound
from sidecar.proxy.journeys.outbound import Outbound
from sidecar.proxy.listening.server import Server
from sidecar.wire.pool import UpstreamPool
from tests.fakes.lies import CONTENT_LIES
from tests.fakes.lying_sts import honest
from tests.integration.hops import Hops
from tests.integration.world import PLANNER, WRITER, World, bearer, calling, mint, parse, until

pytestmark = [pytest.mark.integration, pytest.mark.both_loops]


def upload(*fields: str) -> bytes:
    return "\r\n".join(["POST /x HTTP/1.1", "host: crm.mesh", *fields, "", ""]).encode()


# --- callers who leave


@pytest.mark.parametrize("leaves", ["hangs up", "resets"])
@pytest.mark.parametrize(
    ("field", "begun"),
    [("content-length: 1000", b"half"), ("transfer-encoding: chunked", b"4\r\nhalf\r\n")],
    ids=["length", "chunked"],
)
async def test_an_upload_that_is_given_up_never_looks_complete_and_leaves_one_record(
    hops: Hops, field: str, begun: bytes, leaves: str
) -> None:
    await hops.start()
    async with hops.serving() as held:
        authorization = f"authorization: Bearer {held.handle}"
        async with hops.world.kept(hops.writer.outbound) as caller:
            caller.writer.write(upload(authorization, field) + begun)
            await hops.crm.wait_for_bytes(b"half")
            if leaves == "resets":
                caller.writer.transport.abort()
            else:
                caller.writer.close()
            (record,) = await hops.outbound_records(1)
        assert (record["decision"], record["reason"], record["status"]) == ("allow", "peer_gone", None)
        assert hops.crm.requests == []
        assert (await hops.call(held.shown)).status == 200
    assert len(await hops.outbound_records(2)) == 2


async def test_an_upload_that_breaks_its_framing_is_refused_and_never_looks_complete(hops: Hops) -> None:
    await hops.start()
    async with hops.serving() as held:
        request = upload(f"authorization: Bearer {held.handle}", "transfer-encoding: chunked")
        answer = parse(await hops.world.exchange(hops.writer.outbound, None, request + b"4\r\nhalf\r\nxyz\r\n"))
        assert (answer.status, answer.reason) == (400, "bad_request")
    (record,) = await hops.outbound_records(1)
    assert (record["decision"], record["reason"], record["status"]) == ("allow", "bad_request", 400)
    assert hops.crm.requests == []


async def test_a_head_that_never_ends_leaves_one_record(hops: Hops) -> None:
    await hops.start()
    async with hops.world.kept(hops.writer.outbound) as caller:
        caller.writer.write(b"GET /x HTTP/1.1\r\nhost: crm.mesh\r\nauthor")
        caller.writer.write_eof()
        answer = parse(await caller.wait_for_end())
    assert (answer.status, answer.reason) == (400, "bad_request")
    (record,) = await hops.outbound_records(1)
    assert (record["decision"], record["reason"]) == ("deny", "bad_request")


# --- an agent that crashes


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
    ids=["length", "chunked"],
)
async def test_an_agent_that_crashes_in_its_answer_gives_a_truncated_one(world: World, head: bytes) -> None:
    sidecar = await world.sidecar(WRITER, world.settings())
    planner = calling(await world.source(PLANNER), WRITER)
    world.agent.say_and_hang_up(head)
    async with world.kept(sidecar.inbound, planner) as caller:
        caller.send(headers=bearer(mint()))
        raw = await caller.wait_for_end()
    assert raw.startswith(b"HTTP/1.1 200 ")
    assert b"half" in raw
    assert not raw.endswith(b"0\r\n\r\n")
    (record,) = await sidecar.wait_for_records(1)
    assert (record["decision"], record["reason"], record["upstream_status"]) == ("allow", "upstream_aborted", 200)
    assert (await world.call(sidecar.inbound, planner, headers=bearer(mint()))).status == 200


async def test_an_agent_that_crashes_before_its_answer_is_told(world: World) -> None:
    sidecar = await world.sidecar(WRITER, world.settings())
    planner = calling(await world.source(PLANNER), WRITER)
    world.agent.say_and_hang_up(b"")
    answer = await world.call(sidecar.inbound, planner, headers=bearer(mint()))
    assert (answer.status, answer.reason) == (503, "upstream_unreachable")
    (record,) = await sidecar.wait_for_records(1)
    assert (record["decision"], record["reason"], record["upstream_status"]) == ("allow", "upstream_unreachable", None)


# --- refusals on the way


async def test_a_refused_exchange_leaves_one_record_of_the_call_and_one_event(hops: Hops) -> None:
    await hops.start()
    async with hops.serving({"jti": "j1", "sub": "alice"}) as held:
        hops.sts.behaviour = CONTENT_LIES["no act"][0]
        assert (await hops.call(held.shown)).reason == "sts_no_act"
        hops.sts.behaviour = honest
        assert (await hops.call(held.shown)).status == 200
    refused, allowed = await hops.outbound_records(2)
    assert (refused["decision"], refused["reason"], refused["status"]) == ("deny", "sts_no_act", 502)
    assert (refused["subject"], refused["jti_in"], refused["verified"]) == ("alice", "j1", True)
    assert (refused["jti_out"], refused["call_out"]) == (None, None)
    assert allowed["decision"] == "allow"
    (event,) = hops.writer.records("token.exchange_refused")
    assert event["reason"] == "sts_no_act"
    assert len(hops.writer.records("token.exchanged")) == 1


async def test_while_records_cannot_be_written_nothing_is_served_and_then_it_is_again(hops: Hops) -> None:
    folder = hops.world.folder / "records"
    folder.mkdir()
    file = folder / "writer"
    await hops.start(records={"sink": {"file": str(file)}})
    async with hops.serving() as held:
        assert (await hops.call(held.shown)).status == 200
        await until(lambda: '"event":"request"' in file.read_text())
        file.rename(folder / "rotated")
        file.mkdir()
        assert (await hops.call(held.shown)).status == 200  # not known yet; it has its space, and its record waits
        await until(lambda: bool(hops.writer.server.missing()))
        served = len(hops.crm.requests)
        refused = await hops.call(held.shown)
        assert (refused.status, refused.reason) == (503, "audit_unavailable")
        assert len(hops.crm.requests) == served
        hops.agent.script = None
        refused = await hops.world.call(hops.writer.inbound, hops.planner, headers=bearer(mint()))
        assert (refused.status, refused.reason) == (503, "audit_unavailable")
        file.rmdir()
        await until(lambda: not hops.writer.server.missing())
        assert (await hops.call(held.shown)).status == 200

    def kept() -> list[tuple[str, str]]:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        return [(line["direction"], line["reason"]) for line in lines if line["event"] == "request"]

    await until(lambda: len(kept()) >= 5)
    refusals = [("outbound", "audit_unavailable"), ("inbound", "audit_unavailable")]
    # The call that waited, the two that were refused meanwhile, the next one, and the agent's own request.
    assert kept() == [("outbound", "ok"), *refusals, ("outbound", "ok"), ("inbound", "ok")]


# --- bugs


class BrokenHandles(Handles):
    """Fails as no code of ours should."""

    def open(self, served: Any) -> NoReturn:
        raise ZeroDivisionError

    def resolve(self, handle: str) -> NoReturn:
        raise ZeroDivisionError


class BrokenPool(UpstreamPool):
    """Fails when a connection is taken: at the start of a wait."""

    def take(self, origin: Any) -> NoReturn:
        raise ZeroDivisionError


def handler_of(server: Server, kind: type[Inbound] | type[Outbound]) -> Any:
    (handler,) = [one.handler for one in server.parts.listeners if isinstance(one.handler, kind)]
    return handler


def with_broken_handles(server: Server) -> None:
    broken = BrokenHandles(clock=lambda: 0.0, monotonic=lambda: 0.0)
    handler_of(server, Inbound).handles = broken
    handler_of(server, Outbound).authority._handles = broken


def with_broken_pools(server: Server) -> None:
    for pool in server.parts.pools:
        pool.__class__ = BrokenPool


@pytest.mark.parametrize("broken", [with_broken_handles, with_broken_pools])
async def test_a_bug_costs_one_request_with_an_answer_and_a_record_and_the_process_lives_on(
    hops: Hops, broken: Callable[[Server], None], caplog: pytest.LogCaptureFixture
) -> None:
    servers = []

    def assembled(settings: SidecarSettings) -> Server:
        servers.append(assemble(settings))
        broken(servers[0])
        return servers[0]

    hops.writer = await hops.world.sidecar(WRITER, hops.settings(), assembled_by=assembled)
    hops.agent.script = None
    headers = bearer(mint())
    with caplog.at_level(logging.ERROR):
        inbound = await hops.world.call(hops.writer.inbound, hops.planner, headers=headers, body=b"x")
        outbound = await hops.call(bearer("h" * 43))
    assert (inbound.status, inbound.reason) == (502, "internal")
    assert b"ZeroDivision" not in inbound.body
    assert caplog.text.count("ZeroDivisionError") >= 1
    if broken is with_broken_handles:
        assert (outbound.status, outbound.reason) == (502, "internal")
    records = await hops.writer.wait_for_records(2)
    assert records[0]["reason"] == Reason.INTERNAL
    assert records[0]["request_id"] == inbound.headers["delegation-request-id"]

    again = await hops.world.call(hops.writer.inbound, hops.planner, "/other", headers=headers)
    assert again.reason == "no_route"
    assert len(await hops.writer.wait_for_records(3)) == 3
    assert servers[0].metrics.in_flight() == 0


async def test_at_the_end_nothing_is_left_of_any_request(hops: Hops) -> None:
    await hops.start()
    async with hops.serving() as held:
        await hops.call(held.shown)
        await hops.call(held.shown, "/other")
    parts = hops.writer.server.parts
    await until(lambda: parts.log.metrics.in_flight() == 0)
    assert len(parts.handles) == 0
    assert len(parts.tasks) == 0
    await until(lambda: all(len(listener.connections) == 0 for listener in parts.listeners))
