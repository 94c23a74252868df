"""Tunnels by CONNECT, one fact at a time: each lawful tunnel beside the same one refused."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.policy import Deny
from sidecar.features.outside.tunnel_forwarding import TunnelForwarding
from sidecar.proxy.journeys.deadlines import end_of
from sidecar.proxy.journeys.workload_handle import WorkloadHandle
from sidecar.wire.dialer import Origin
from sidecar.wire.limits import ClientLimits
from sidecar.wire.raw_tunnel import RawEnd
from tests.core.test_connect import API, OPEN, OPEN_API
from tests.core.world import NOW, POLICY, TO_CRM, delegation
from tests.proxy.agent_calls import AgentCalls, Answer, Fields
from tests.proxy.warm import OneConnection
from tests.wire.bench import RecordingTransport

HOST = "api.example:443"


class Far(OneConnection):
    """A pool that dials one far end, after ``meanwhile``; or fails by ``failure``."""

    def __init__(self) -> None:
        super().__init__()
        self.dialled: list[tuple[str, int]] = []
        self.failure: SidecarError | None = None
        self.meanwhile: Callable[[], None] = lambda: None
        self.to_far = RecordingTransport()
        self.to_far.settle = self.raw.writes.write_all
        self.end = RawEnd(ClientLimits(), self.raw)

    async def dial_raw(self, origin: Origin) -> RawEnd:
        self.dialled.append((origin.host, origin.port))
        if self.failure is not None:
            raise self.failure
        self.end.connection_made(self.to_far)
        self.meanwhile()
        return self.end


class Tunnels(AgentCalls):
    """An agent that asks for tunnels."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.far = Far()
        self.outbound.forwarder.pool = self.far
        self.route(API)

    def route(self, *routes: Any) -> None:
        self.policy = replace(POLICY, outbound=OutboundRoutes([TO_CRM, *routes]))

    async def connect(self, fields: Fields, host: str = HOST) -> Answer:
        return await self.call(fields, method="CONNECT", target=host, host=host)

    async def refused(self, fields: Fields, host: str = HOST) -> str | None:
        """Ask for a tunnel that must not open; return the reason."""
        answer = await self.connect(fields, host)
        assert answer.status == 403
        assert self.far.dialled == []
        return answer.reason

    @property
    def forwarding(self) -> TunnelForwarding:
        (one,) = self.watch.young
        return cast("TunnelForwarding", one)


@pytest.fixture
async def calls(tmp_path: Path) -> Tunnels:
    return Tunnels(tmp_path)


def live(calls: Tunnels, **changes: Any) -> str:
    return calls.handle(may_call=OPEN, **changes)


def proxy(value: str) -> Fields:
    return [("proxy-authorization", value)]


def bearer(handle: str) -> Fields:
    return proxy(f"Bearer {handle}")


def basic(handle: str, user: str = "x") -> Fields:
    return proxy("Basic " + base64.b64encode(f"{user}:{handle}".encode()).decode())


@pytest.mark.parametrize("shown", [bearer, basic])
async def test_a_handle_opens_a_tunnel_and_its_record_names_the_user(
    calls: Tunnels, shown: Callable[[str], Fields]
) -> None:
    handle = live(calls)
    answer = await calls.connect(shown(handle))
    assert (answer.status, answer.headers) == (200, {})
    calls.say(b"\x16\x03\x01 client hello")
    calls.far.end.data_received(b"\x16\x03\x03 server hello")
    assert calls.arrived.endswith(b"\r\n\r\n\x16\x03\x03 server hello")
    assert calls.far.to_far.written == b"\x16\x03\x01 client hello"
    assert calls.far.dialled == [("api.example", 443)]
    calls.finish()
    calls.far.end.eof_received()
    opened, closed = await calls.records()
    token = delegation().token
    assert token.chain is not None
    told = ("decision", "reason", "method", "route", "host", "subject", "actor", "chain", "call_in", "jti_out")
    for record in (opened, closed):
        assert [record[key] for key in told] == [
            "allow", "ok", "CONNECT", "api", HOST, token.subject, token.actor_id, list(token.chain.subjects), "c1",
            None,
        ]  # fmt: skip
        assert record["candidates"] is None
        assert handle not in str(record)
    assert (opened["event"], closed["event"], closed["status"]) == ("request.opened", "request", 200)
    assert closed["bytes_in"] > len(b"\x16\x03\x01 client hello")
    assert closed["bytes_out"] == len(b"HTTP/1.1 200 OK\r\n\r\n" + b"\x16\x03\x03 server hello")


async def test_no_handle_opens_nothing(calls: Tunnels) -> None:
    assert await calls.refused([]) == "no_request_context"
    (record,) = await calls.records()
    assert (record["route"], record["subject"], record["decision"]) == ("api", None, "deny")


async def test_a_handle_that_is_unknown_or_whose_request_may_not_call_opens_nothing(calls: Tunnels) -> None:
    assert await calls.refused(bearer("h" * 43)) == "no_request_context"
    assert await calls.refused(bearer(calls.handle())) == "call_not_allowed"
    handle = live(calls)
    calls.handles.end(handle)
    calls.now += 61
    assert await calls.refused(bearer(handle)) == "no_request_context"
    assert (await calls.connect(bearer(live(calls)))).status == 200


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(lambda one: basic("", one), id="as the user"),
        pytest.param(lambda one: basic(one, one), id="as user and password"),
        pytest.param(lambda one: proxy(one), id="without a scheme"),
        pytest.param(lambda one: proxy(f"Digest {one}"), id="by another scheme"),
        pytest.param(lambda one: basic(one + "."), id="not alone"),
        pytest.param(lambda _: basic("a password"), id="a password"),
        pytest.param(lambda _: proxy("Basic %%%"), id="no base64"),
        pytest.param(lambda one: [("authorization", f"Bearer {one}")], id="in Authorization"),
        pytest.param(lambda one: [("delegation-handle", one)], id="in Delegation-Handle"),
    ],
)
async def test_a_handle_counts_only_as_token_or_password_for_the_proxy(
    calls: Tunnels, fields: Callable[[str], Fields]
) -> None:
    for route in (API, OPEN_API):
        calls.route(route)
        assert await calls.refused(fields(live(calls))) == "no_request_context"


async def test_two_fields_for_the_proxy_say_nothing(calls: Tunnels) -> None:
    handle = live(calls)
    answer = await calls.connect([*bearer(handle), *bearer(handle)])
    assert (answer.status, answer.reason, calls.far.dialled) == (400, "header_malformed", [])


async def test_a_live_handle_in_any_other_field_refuses_the_tunnel(calls: Tunnels) -> None:
    handle, other = live(calls), live(calls)
    for field in (("authorization", f"Bearer {other}"), ("delegation-handle", other), ("x-note", f"see {other}.")):
        assert await calls.refused([*bearer(handle), field]) == "no_request_context"
    assert (await calls.connect([*bearer(handle), ("x-note", "h" * 43)])).status == 200


@pytest.mark.parametrize("host", ["api.example:444", "evil.example:443", "crm.mesh:443"])
async def test_another_host_or_port_is_an_attempt_to_leave(calls: Tunnels, host: str) -> None:
    assert await calls.refused(bearer(live(calls)), host) == "target_denied"
    (record,) = await calls.records()
    assert (record["host"], record["subject"], record["decision"]) == (host, "alice", "deny")
    assert calls.log.metrics.attempts_to_leave == 1


async def test_an_ordinary_call_does_not_take_a_tunnel_s_route(calls: Tunnels) -> None:
    answer = await calls.call([("authorization", f"Bearer {live(calls)}")], host=HOST)
    assert (answer.status, answer.reason) == (403, "target_denied")


async def test_a_request_s_budget_counts_tunnels_too(calls: Tunnels) -> None:
    handle = live(calls, max_calls=1)
    assert (await calls.connect(bearer(handle))).status == 200
    calls._open()
    answer = await calls.connect(bearer(handle))
    assert (answer.reason, len(calls.far.dialled)) == ("calls_exhausted", 1)


async def test_where_the_route_says_so_a_tunnel_opens_without_a_handle_and_names_nobody(calls: Tunnels) -> None:
    live(calls)
    calls.route(OPEN_API)
    assert (await calls.connect([])).status == 200
    calls.finish()
    calls.far.end.eof_received()
    _, closed = await calls.records()
    told = ("decision", "reason", "host", "subject", "actor", "call_in", "candidates", "verified")
    assert [closed[key] for key in told] == ["allow", "ok", HOST, None, None, None, ["c1"], False]


async def test_there_too_a_dead_handle_is_not_taken_for_none(calls: Tunnels) -> None:
    calls.route(OPEN_API)
    assert await calls.refused(bearer("h" * 43)) == "no_request_context"
    assert await calls.refused(bearer(calls.handle())) == "call_not_allowed"


async def test_the_workload_handle_opens_a_tunnel_of_its_own_list_and_names_no_request(calls: Tunnels) -> None:
    live(calls)
    calls.handles.own = WorkloadHandle(bytes(32), 300.0, monotonic=lambda: 0.0)
    shown = bearer(calls.handles.own.current.handle)
    calls.route(OPEN_API)
    assert await calls.refused(shown) == "call_not_allowed"
    calls.policy = replace(calls.policy, own_may_call=frozenset({"api"}))
    assert (await calls.connect(shown)).status == 200
    calls.finish()
    calls.far.end.eof_received()
    *_, closed = await calls.records()
    told = ("decision", "op", "host", "subject", "candidates")
    assert [closed[key] for key in told] == ["allow", "own", HOST, None, None]
    assert calls.log.metrics.own_calls == 1


async def test_the_workload_handle_in_any_other_field_refuses_the_tunnel(calls: Tunnels) -> None:
    calls.handles.own = WorkloadHandle(bytes(32), 300.0, monotonic=lambda: 0.0)
    stray = ("x-note", calls.handles.own.current.handle)
    assert await calls.refused([*bearer(live(calls)), stray]) == "no_request_context"


async def test_a_host_that_cannot_be_reached_is_told_before_any_tunnel(calls: Tunnels) -> None:
    calls.far.failure = Unavailable(Reason.UPSTREAM_UNREACHABLE, "nobody")
    answer = await calls.connect(bearer(live(calls)))
    assert (answer.status, answer.reason) == (503, "upstream_unreachable")
    (record,) = await calls.records()
    assert (record["decision"], record["reason"], record["subject"]) == ("allow", "upstream_unreachable", "alice")


async def test_a_host_that_is_gone_before_the_grant_is_told(calls: Tunnels) -> None:
    calls.far.meanwhile = lambda: calls.far.end.connection_lost(None)
    answer = await calls.connect(bearer(live(calls)))
    assert (answer.status, answer.reason) == (503, "upstream_unreachable")
    assert len(calls.watch) == 0


async def test_a_change_while_the_host_is_dialled_refuses_the_tunnel(calls: Tunnels) -> None:
    def deny() -> None:
        calls.policy = replace(calls.policy, deny=Deny(subjects=frozenset({(None, "alice")})))

    calls.far.meanwhile = deny
    answer = await calls.connect(bearer(live(calls)))
    assert (answer.status, answer.reason) == (403, "policy_denied")
    assert calls.far.to_far.aborted


async def test_an_agent_that_leaves_while_the_host_is_dialled_opens_no_tunnel(calls: Tunnels) -> None:
    calls.far.meanwhile = calls.finish
    shown = bearer(live(calls))[0][1]
    calls.say(f"CONNECT {HOST} HTTP/1.1\r\nHost: {HOST}\r\nProxy-Authorization: {shown}\r\n\r\n".encode())
    with suppress(asyncio.CancelledError):
        await calls._tasks.done()
    assert b"200" not in calls.arrived
    assert len(calls.watch) == 0


async def test_it_is_watched_from_its_first_byte_to_its_last(calls: Tunnels) -> None:
    await calls.connect(bearer(live(calls)))
    one = calls.forwarding
    assert (one.direction, one.endless, one.uploading) == ("outbound", True, False)
    one.judge(NOW)
    calls.policy = replace(calls.policy, deny=Deny(subjects=frozenset({(None, "alice")})))
    with pytest.raises(Denied) as ended:
        one.judge(NOW)
    one.end(ended.value)
    assert (calls.cut, calls.far.to_far.aborted, len(calls.watch)) == (True, True, 0)
    _, closed = await calls.records()
    assert (closed["decision"], closed["reason"], closed["status"]) == ("allow", "policy_denied", 200)


async def test_it_ends_with_its_token_or_after_the_longest_stream(calls: Tunnels) -> None:
    await calls.connect(bearer(live(calls)))
    one = calls.forwarding
    end = end_of(one, wall=float(NOW), passed=0.0)
    assert end is not None
    assert (end.left_s, end.reason) == (290.0, Reason.TOKEN_EXPIRED)
    late = end_of(one, wall=float(NOW), passed=899.0)
    assert late is not None
    assert (late.left_s, late.reason) == (1.0, Reason.TIMEOUT)


async def test_without_a_handle_it_ends_after_the_longest_stream(calls: Tunnels) -> None:
    calls.route(OPEN_API)
    await calls.connect([])
    end = end_of(calls.forwarding, wall=float(NOW), passed=0.0)
    assert end is not None
    assert (end.left_s, end.reason) == (900.0, Reason.TIMEOUT)


async def test_a_bug_in_it_cuts_it_off(calls: Tunnels) -> None:
    await calls.connect(bearer(live(calls)))
    calls.forwarding.cut_off(SidecarError(Reason.INTERNAL, "a bug"))
    assert (calls.cut, calls.far.to_far.aborted) == (True, True)
    _, closed = await calls.records()
    assert closed["reason"] == "internal"


def test_no_tunnel_without_a_permit() -> None:
    nothing: Any = None
    with pytest.raises(TypeError, match="permit"):
        TunnelForwarding(nothing, nothing, nothing, nothing, nothing, nothing)
