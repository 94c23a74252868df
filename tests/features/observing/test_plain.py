"""Requests without TLS, one fact at a time: each that passes beside the same one refused."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.inbound_routes import InboundRoutes
from delegation_core.policy import Deny
from delegation_core.revocation import InForce
from sidecar.features import Features
from sidecar.features.observing import shown_credentials
from sidecar.features.observing.observing import Observing
from sidecar.features.observing.plain import PlainInbound
from sidecar.observe.record_rate import RecordRate, UnprovenRecords
from sidecar.proxy.journeys.forward import Forwarder
from sidecar.proxy.journeys.handles import ServedRequest
from sidecar.proxy.journeys.headers import FROM_AGENT
from sidecar.proxy.journeys.journey import Tasks
from sidecar.wire.connections import Connections
from sidecar.wire.h1_server import ServerConnection
from sidecar.wire.limits import ServerLimits
from tests.core.world import INBOUND_CLAIMS, NOW, POLICY, SEARCH, STS, delegation, signed, without
from tests.proxy.peer_calls import OBSERVED_UNTIL, OBSERVING, PeerCalls, bearer
from tests.proxy.warm import ANSWER
from tests.wire.bench import Clock, RecordingTransport

UNTIL = NOW + 3600
BURST = 5
USER_ALONE = bearer(signed(without(INBOUND_CLAIMS, "act")).raw)


class PlainCalls(PeerCalls):
    """A caller's connection without TLS."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        warm = self.warm
        snapshots: Any = warm.snapshots
        snapshots.setup = self.setup = SimpleNamespace(plain_until=UNTIL)
        self.clock = Clock()
        counted = SimpleNamespace(metrics=warm.log.metrics, monotonic=self.clock)
        plain = PlainInbound(
            snapshots=snapshots,
            log=warm.log,
            forwarder=Forwarder(warm.pool, FROM_AGENT, warm.watch, ServerLimits()),
            observing=Observing(handles=warm.handles, remote_handles=None, tasks=Tasks(), clock=lambda: self.warm.now),
            unproven=UnprovenRecords(counted, RecordRate(per_s=0.001, burst=BURST)),
            tasks=Tasks(),
            features=Features(clock=lambda: self.warm.now, session_key=bytes(32)),
            clock=lambda: self.warm.now,
        )
        connections: Connections[ServerConnection] = Connections(interval_s=3600)
        warm.transport = RecordingTransport(peername=("192.0.2.7", 40000))
        warm.transport.settle = connections.writes.write_all
        warm.connection = ServerConnection(plain, ServerLimits(), connections)
        warm.connection.connection_made(warm.transport)
        warm.writes = connections.writes


@pytest.fixture
async def calls(tmp_path: Path) -> PlainCalls:
    return PlainCalls(tmp_path)


@pytest.mark.parametrize(
    ("fields", "verified"),
    [([], False), ([bearer("sk-live-1")], False), ([("x-api-key", "sk-live-1")], False), ([USER_ALONE], True)],
    ids=["nothing", "static-key", "api-key", "a-user's-token"],
)
async def test_a_caller_without_a_sidecar_reaches_a_route_that_observes_as_nobody(
    calls: PlainCalls, fields: list[tuple[str, str]], verified: bool
) -> None:
    spoofed = [("delegation-subject", "root"), ("delegation-call", "0" * 32), ("x-forwarded-client-cert", "x")]
    spoofed += [("SCRIPT_NAME", "/search"), ("x-original-url", "/admin"), ("remote-user", "root")]
    assert calls.call(*fields, *spoofed) == (200, None)
    arrived = calls.arrived.decode().lower()
    for name, value in fields:
        assert f"{name}: {value}".lower() in arrived
    for name in ("delegation-subject", "delegation-actor", "delegation-handle", *(name.lower() for name, _ in spoofed)):
        assert f"{name}:" not in arrived
    assert len(calls.warm.handles) == 0
    (record,) = await calls.records()
    told = ("decision", "reason", "direction", "peer", "source", "route", "call_in", "verified", "status")
    assert [record[key] for key in told] == [
        "observed_deny", "no_client_cert", "inbound", None, "192.0.2.7", "search", None, verified, 200
    ]  # fmt: skip
    assert "sk-live-1" not in str(record)


@pytest.mark.parametrize("later_s", [UNTIL - NOW, OBSERVED_UNTIL - NOW], ids=["port", "route"])
async def test_once_the_day_is_over_nobody_is_served(calls: PlainCalls, later_s: int) -> None:
    assert calls.call() == (200, None)
    before = calls.arrived
    calls.warm.now += later_s
    assert calls.call() == (403, "policy_denied")
    assert calls.arrived == before


async def test_a_route_that_enforces_is_not_served(calls: PlainCalls) -> None:
    other = replace(OBSERVING, name="other", path="/other")
    calls.policy = replace(POLICY, inbound=InboundRoutes([SEARCH, other]))
    assert calls.call() == (403, "policy_denied")
    assert calls.call(target="/else") == (404, "no_route")
    assert calls.call(target="/other") == (200, None)
    (refused, *_) = await calls.records()
    told = ("decision", "reason", "peer", "source", "subject")
    assert [refused[key] for key in told] == ["deny", "policy_denied", None, "192.0.2.7", None]


def token(**changes: Any) -> tuple[str, str]:
    return bearer(signed({**without(INBOUND_CLAIMS, "act"), **changes}).raw)


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        pytest.param(bearer(signed(INBOUND_CLAIMS).raw), "actor_mismatch", id="delegated-token"),
        pytest.param(token(iss="https://else.example"), "wrong_issuer", id="issuer"),
        pytest.param(token(exp=NOW - 60, iat=NOW - 120), "token_expired", id="expired"),
        pytest.param(token(scope="admin"), "scope_above_ceiling", id="ceiling"),
        pytest.param(token(cnf={"x5t#S256": "x"}), "cnf_mismatch", id="binding"),
        pytest.param(bearer(USER_ALONE[1].removeprefix("Bearer ") + ".x"), "malformed_token", id="form"),
        pytest.param(("authorization", "Bearer"), "header_malformed", id="header"),
    ],
)
async def test_a_token_that_is_shown_has_only_the_faults_that_are_relaxed(
    calls: PlainCalls, field: tuple[str, str], reason: str
) -> None:
    assert calls.call(USER_ALONE)[0] == 200
    before = calls.arrived
    assert calls.call(field)[1] == reason
    assert calls.arrived == before


async def test_a_live_handle_does_not_reach_the_agent(calls: PlainCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown_credentials, "MIN_BYTES", 1000)  # no call waits for a fingerprint
    assert calls.call(bearer("x" * 43)) == (200, None)
    live = calls.warm.handles.open(ServedRequest(delegation(), None, 0.0, "c1"))
    assert calls.call(bearer(live)) == (403, "policy_denied")


@pytest.mark.parametrize(
    ("deny", "field", "reason"),
    [
        (Deny(subjects=frozenset({(STS, "alice")})), [USER_ALONE], "policy_denied"),
        (Deny(revoked=InForce(own=frozenset({STS}), stale=frozenset({STS}))), [], "revocations_stale"),
    ],
)
async def test_what_is_stopped_is_stopped_here_too(
    calls: PlainCalls, deny: Deny, field: list[tuple[str, str]], reason: str
) -> None:
    assert calls.call(*field)[0] == 200
    calls.policy = replace(POLICY, inbound=InboundRoutes([OBSERVING]), number=2, deny=deny)
    assert calls.call(*field)[1] == reason


async def test_a_request_under_way_ends_with_its_route_or_its_port(calls: PlainCalls) -> None:
    calls.send()
    under_way: Any = calls.warm.watch.young
    (forwarding,) = under_way
    forwarding.judge(NOW)
    assert (forwarding.token_expires_at, forwarding.peer_expires_at) == (UNTIL, float("inf"))
    calls.policy = replace(POLICY, inbound=InboundRoutes([SEARCH]), number=2)
    with pytest.raises(SidecarError, match="policy_denied"):
        forwarding.judge(NOW)


async def test_once_the_port_is_gone_nobody_is_served(calls: PlainCalls) -> None:
    assert calls.call() == (200, None)
    before = calls.arrived
    calls.setup.plain_until = 0
    assert calls.call() == (403, "policy_denied")
    assert calls.arrived == before


@pytest.mark.parametrize(("until", "status"), [(UNTIL, 200), (0, 403)], ids=["port-stays", "port-goes"])
async def test_a_request_that_waits_for_a_key_passes_only_if_the_port_is_still_there(
    calls: PlainCalls, until: int, status: int
) -> None:
    keys: Any = calls.warm.snapshots.now().keys
    key = keys.find(STS, "k1")

    async def wait_for_key(_issuer: str, _kid: str | None) -> Any:
        calls.setup.plain_until = until
        keys.find = lambda *_: key
        return key

    keys.find, keys.wait_for_key = lambda *_: None, wait_for_key
    calls.send(USER_ALONE)
    await asyncio.sleep(0.01)
    calls.warm.pool.connections.writes.write_all()
    assert (calls.arrived != b"") is (status == 200)
    if status == 200:
        calls.warm.pool.agent.data_received(ANSWER)
    calls.warm.writes.write_all()
    assert calls.warm.transport.written.startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    ("answer", "ends"),
    [(None, False), (b"text/plain", False), (b"text/event-stream", True)],
    ids=["no-answer-yet", "page", "events"],
)
async def test_once_the_port_is_gone_an_answer_finishes_and_a_stream_ends(
    calls: PlainCalls, answer: bytes | None, ends: bool
) -> None:
    calls.send()
    if answer is not None:
        calls.warm.pool.agent.data_received(
            b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n" % answer
        )
    under_way: Any = calls.warm.watch.young
    (forwarding,) = under_way
    forwarding.judge(NOW)
    assert (forwarding.endless, forwarding.token_expires_at) == (False, UNTIL)
    under_way.clear()  # as after a tick
    calls.setup.plain_until = 0
    assert (forwarding.endless, forwarding.token_expires_at) == (ends, 0)
    with pytest.raises(Denied, match="policy_denied") if ends else nullcontext():
        forwarding.judge(NOW)
    assert under_way == (set() if ends else {forwarding})  # to be placed at its new deadline


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /search HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /search HTTP/1.1\nHost: a\n\n",
        b"POST /search HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=["two-hosts", "bare-newline", "two-lengths", "connect"],
)
async def test_http_is_read_as_strictly_as_from_a_peer(calls: PlainCalls, raw: bytes) -> None:
    calls.warm.connection.data_received(raw)
    calls.warm.writes.write_all()
    assert calls.warm.transport.written.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 405 "))
    assert calls.arrived == b""
    (record,) = await calls.records()
    assert [record[key] for key in ("decision", "peer", "source")] == ["deny", None, "192.0.2.7"]


async def test_a_flood_of_refused_requests_leaves_a_burst_of_records_and_all_of_it_is_counted(
    calls: PlainCalls,
) -> None:
    for _ in range(4 * BURST):
        assert calls.call(target="/else") == (404, "no_route")
    for _ in range(2 * BURST):
        assert calls.call() == (200, None)  # a served request keeps its record
    log = calls.warm.log
    assert log.metrics.records_suppressed == 3 * BURST
    counted = log.metrics.finished.counted().requests
    assert sum(count for (_, _, decision, _), count in counted.items() if decision == "deny") == 4 * BURST
    assert log.being_served() == []
    calls.clock.now += 1000
    assert calls.call(target="/else") == (404, "no_route")
    records = await calls.records()
    assert [record["decision"] for record in records] == ["deny"] * BURST + ["observed_deny"] * 2 * BURST + ["deny"]
    assert [record["suppressed"] for record in records] == [None] * 3 * BURST + [3 * BURST]


async def test_a_request_that_waits_for_its_refusal_writes_nothing_before(calls: PlainCalls) -> None:
    keys: Any = calls.warm.snapshots.now().keys
    fetched = asyncio.Event()

    async def wait_for_key(_issuer: str, _kid: str | None) -> Any:
        await fetched.wait()
        raise Denied(Reason.UNKNOWN_KEY)

    keys.find, keys.wait_for_key = lambda *_: None, wait_for_key
    calls.send(USER_ALONE)
    (entry,) = calls.warm.log.being_served()
    entry.opened()
    fetched.set()
    await asyncio.sleep(0.01)
    assert calls.warm.log.being_served() == []
    (record,) = await calls.records()
    assert (record["event"], record["reason"]) == ("request", "unknown_key")
