"""Many streams of one connection, and the handles that they can hold."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from sidecar.identity.tls import client_context
from sidecar.proxy.journeys.handles import Handles
from sidecar.wire.h2_requests import MAX_STREAMS
from tests.integration.h2_caller import H2Caller, asks, speaking_http2
from tests.integration.hops import Hops
from tests.integration.world import PATIENCE_S, PLANNER, WRITER, bearer, mint, ok, until

pytestmark = pytest.mark.integration

HTTP2 = {"protocols": {"http2": True}}
TOO_MANY = 30


@pytest.fixture
async def h2_planner(hops: Hops) -> ssl.SSLContext:
    """TLS as the planner, which speaks HTTP/2 alone."""
    return client_context(await hops.world.source(PLANNER), expected=WRITER, alpn=("h2",))


def handles_of(hops: Hops) -> Handles:
    return hops.writer.server.parts.handles


def begins(caller: H2Caller, count: int) -> list[int]:
    token = mint()
    return [caller.begin(asks(headers=[*bearer(token), ("x-number", f"many-{one}")])) for one in range(count)]


def inbound(hops: Hops, decision: str) -> list[dict[str, Any]]:
    found = hops.writer.records()
    return [one for one in found if one["direction"] == "inbound" and one["decision"] == decision]


async def test_streams_past_the_limit_hold_no_handle_and_disturb_no_other_connection(
    hops: Hops, h2_planner: ssl.SSLContext
) -> None:
    await hops.start(**HTTP2)
    async with hops.serving() as other, speaking_http2(hops.writer.inbound, h2_planner) as caller:
        ids = begins(caller, MAX_STREAMS + TOO_MANY)  # all of them before it has seen our settings
        answers = [await caller.until(stream_id) for stream_id in ids[MAX_STREAMS:]]
        assert {one.reset for one in answers} == {ErrorCodes.REFUSED_STREAM}
        assert {(one.status, one.fields.get(b"delegation-reason")) for one in answers} == {(0, None)}
        held = [await asyncio.wait_for(hops.agent.expect(f"many-{one}"), PATIENCE_S) for one in range(MAX_STREAMS)]
        assert len({one.handle for one in held}) == MAX_STREAMS
        assert len(handles_of(hops)) == MAX_STREAMS + 1
        assert (await hops.call(other.shown)).status == 200
        assert (await hops.call(held[-1].shown)).status == 200
        async with hops.serving() as later:
            assert (await hops.call(later.shown)).status == 200
        for one in held:
            one.answer.set_result(ok(b"done"))
        assert {(await caller.until(stream_id)).content for stream_id in ids[:MAX_STREAMS]} == {b"done"}
        await until(lambda: len(handles_of(hops)) == 1)
        await until(lambda: len(inbound(hops, "deny")) >= TOO_MANY)
        refused = inbound(hops, "deny")
        assert [(one["reason"], one["peer"]) for one in refused] == [("overloaded", str(PLANNER))] * TOO_MANY
        assert f"many-{MAX_STREAMS}" not in hops.agent.held
    await until(lambda: len(handles_of(hops)) == 0)


async def test_a_caller_that_ignores_the_limit_it_knows_loses_its_connection_and_its_handles_alone(
    hops: Hops, h2_planner: ssl.SSLContext
) -> None:
    await hops.start(**HTTP2)
    async with hops.serving() as other, speaking_http2(hops.writer.inbound, h2_planner) as caller:
        begins(caller, MAX_STREAMS)
        held = [await asyncio.wait_for(hops.agent.expect(f"many-{one}"), PATIENCE_S) for one in range(MAX_STREAMS)]
        assert len(handles_of(hops)) == MAX_STREAMS + 1
        assert caller.peer.h2.remote_settings.max_concurrent_streams == MAX_STREAMS  # so it has acknowledged them
        caller.peer.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 2 * MAX_STREAMS
        caller.peer.h2.remote_settings.acknowledge()
        caller.begin(asks(headers=bearer(mint())))
        await caller.until_goaway()
        await until(lambda: len(handles_of(hops)) == 1)
        assert (await hops.call(other.shown)).status == 200
        gone = await hops.call(held[0].shown)
        assert (gone.status, gone.reason) == (403, "no_request_context")
        await hops.writer.wait_for_records(MAX_STREAMS + 2)  # with those of the two calls of the agent
        assert [one["reason"] for one in inbound(hops, "allow")] == ["bad_request"] * MAX_STREAMS
        for one in held:
            one.answer.cancel()


async def test_handles_that_outlive_many_streams_stay_within_their_memory(
    hops: Hops, h2_planner: ssl.SSLContext
) -> None:
    """Lingering handles are evicted for others; that of a request in progress elsewhere never is."""
    mib = 1
    await hops.start(**HTTP2, route={"linger_s": 300}, memory={"max_handles_mib": mib})
    shown: list[str] = []

    async with hops.serving() as other, speaking_http2(hops.writer.inbound, h2_planner) as caller:

        def answers(head: bytes, _body: bytes) -> bytes:
            fields = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:] if line)
            shown.append(fields["authorization"].removeprefix("Bearer "))
            return ok(b"done")

        hops.agent.script = answers
        for _ in range(6):
            ids = begins(caller, MAX_STREAMS)
            assert {(await caller.until(stream_id)).status for stream_id in ids} == {200}
            assert handles_of(hops).bytes <= mib * 2**20
        assert handles_of(hops).evicted > 0
        assert len(handles_of(hops)) < len(shown)
        assert (await hops.call(other.shown)).status == 200
        assert (await hops.call(bearer(shown[-1]))).status == 200  # the latest lingers
        gone = await hops.call(bearer(shown[0]))
        assert (gone.status, gone.reason) == (403, "no_request_context")
