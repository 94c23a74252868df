"""The token endpoint without a socket: each refused request differs in one fact from the one that is served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import orjson
import pytest
from aiohttp import HttpVersion10, HttpVersion11, StreamReader, hdrs, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from delegation_core.checkpoint import head_form
from delegation_core.errors import Denied, Reason
from delegation_core.rfc8693 import MAX_REQUEST_BYTES
from sidecar.identity.svid import VerifiedPeer
from sidecar.sts import endpoints
from sidecar.sts.endpoints import TokenEndpoint
from sidecar.sts.service import TokenService
from tests.fakes.sts import FORM, Mesh, encoded
from tests.fakes.tokens import NOW, WRITER
from tests.sts.test_service import HEAD


def arriving() -> StreamReader:
    """Return a body of which nothing has arrived yet."""
    protocol = BaseProtocol(asyncio.get_running_loop())
    protocol.connection_made(Mock())
    return StreamReader(protocol, MAX_REQUEST_BYTES)


class Guard:
    """The proof of the client. ``trusted_for`` is the number of checks that it passes."""

    def __init__(self) -> None:
        self.trusted_for = 99

    def check(self, now: int) -> VerifiedPeer:
        assert now == NOW
        self.trusted_for -= 1
        if self.trusted_for < 0:
            raise Denied(Reason.UNTRUSTED_CHAIN, "withdrawn")
        return VerifiedPeer(WRITER, NOW + 3600, "00" * 32)


class Bench:
    def __init__(self, **options: Any) -> None:
        self.mesh = Mesh()
        self.guard = Guard()
        self.endpoint = TokenEndpoint(self.mesh.service, **options)
        self.form = encoded(self.mesh.exchange_form())

    def request(
        self,
        *,
        method: str = "POST",
        target: str = "/token",
        body: bytes | None = None,
        payload: Any = None,
        transport: Any = None,
        version: Any = HttpVersion11,
        **fields: str,
    ) -> web.Request:
        headers = {"Content-Type": FORM, **{name.replace("_", "-"): value for name, value in fields.items()}}
        if payload is None:
            payload = arriving()
            payload.feed_data(self.form if body is None else body)
            payload.feed_eof()
        return make_mocked_request(
            method,
            target,
            headers,
            payload=payload,
            version=version,
            transport=transport or Mock(),
            client_max_size=MAX_REQUEST_BYTES,
        )

    async def ask(self, **changes: Any) -> web.Response:
        return await self.endpoint.token(self.request(**changes))

    def recorded(self) -> list[tuple[str, str]]:
        return [(event, str(fields["reason"])) for event, fields in self.mesh.log.events]


def reason_of(response: web.Response) -> str | None:
    return response.headers.get("Delegation-Reason")


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()
    monkeypatch.setattr(endpoints, "guard_of", lambda _transport: made.guard)
    return made


async def test_a_form_of_a_proven_client_gets_a_token_and_a_record(bench: Bench) -> None:
    response = await bench.ask()
    assert response.status == 200
    assert isinstance(response.body, bytes)
    assert orjson.loads(response.body)["scope"] == "crm.read"
    assert response.headers[hdrs.CACHE_CONTROL] == "no-store"
    assert bench.recorded() == [("token.exchanged", "ok")]
    assert (await bench.ask(expect="100-Continue")).status == 200
    assert (await bench.ask(body=bench.form + b"&x=" + b"x" * (MAX_REQUEST_BYTES - len(bench.form) - 3))).status == 200


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "another method": ({"method": "GET"}, 405, "method_refused"),
    "an unknown expectation": ({"expect": "money"}, 417, "expectation_refused"),
    "a second authentication": ({"authorization": "Basic eDp4"}, 400, "exchange_malformed"),
    "an encoded body": ({"content_encoding": "gzip"}, 400, "exchange_malformed"),
    "parameters in the URL": ({"target": "/token?scope=crm.read"}, 400, "exchange_malformed"),
    "another media type": ({"Content_Type": "text/plain"}, 400, "exchange_malformed"),
    "a body that is too large": ({"body": b"x" * (MAX_REQUEST_BYTES + 1)}, 413, "too_large"),
}


@pytest.mark.parametrize(("changes", "status", "reason"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_request_with_one_fact_changed_is_refused(
    bench: Bench, changes: dict[str, Any], status: int, reason: str
) -> None:
    response = await bench.ask(**changes)
    assert (response.status, reason_of(response)) == (status, reason)
    assert response.headers.get(hdrs.ALLOW) == ("POST" if status == 405 else None)
    assert (response.keep_alive is False) is (status in (413, 417))  # the start of the next request is not clear
    assert bench.recorded() == [("token.exchange_refused", reason)]


@pytest.mark.parametrize("checks", [0, 1, 2])
async def test_a_client_whose_trust_is_withdrawn_at_any_moment_gets_nothing(bench: Bench, checks: int) -> None:
    bench.guard.trusted_for = checks  # before the body, after it, before the token is signed
    response = await bench.ask()
    assert (response.status, reason_of(response)) == (401, "client_not_authenticated")
    assert response.keep_alive is False


async def test_nothing_is_read_or_issued_that_could_not_be_recorded(bench: Bench) -> None:
    bench.mesh.log.healthy = False
    response = await bench.ask(payload=Mock())
    assert (response.status, reason_of(response)) == (503, "audit_unavailable")
    assert response.headers[hdrs.RETRY_AFTER] == "1"


def broken(error: Exception | None) -> StreamReader:
    """Return a body whose reading ends with ``error``; None: it never ends."""
    payload = arriving()
    if error is not None:
        payload.set_exception(error)
    return payload


BODIES: dict[str, tuple[Exception | None, int, str]] = {
    "it does not arrive in time": (None, 408, "timeout"),
    "its framing is broken": (web.RequestPayloadError("secret"), 400, "bad_request"),
    "the client goes away": (ConnectionResetError(), 400, "peer_gone"),
    "a bug": (ZeroDivisionError("secret"), 502, "internal"),
}


@pytest.mark.parametrize(("error", "status", "reason"), BODIES.values(), ids=BODIES.keys())
async def test_a_body_that_cannot_be_read_is_refused_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, status: int, reason: str
) -> None:
    bench = Bench(body_timeout_s=0.01)
    monkeypatch.setattr(endpoints, "guard_of", lambda _transport: bench.guard)
    response = await bench.ask(payload=broken(error))
    assert (response.status, reason_of(response)) == (status, reason)
    assert bench.recorded() == [("token.exchange_refused", reason)]
    assert "secret" not in f"{response.body!r}{bench.mesh.log.events}"


async def test_a_request_that_is_cancelled_is_recorded(bench: Bench) -> None:
    asking = asyncio.create_task(bench.ask(payload=broken(None)))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert bench.recorded() == [("token.exchange_refused", "draining")]


async def test_a_drain_waits_for_requests_in_flight_and_ends_their_connections(bench: Bench) -> None:
    asking = asyncio.create_task(bench.ask(payload=broken(None)))
    await asyncio.sleep(0)
    assert not await bench.endpoint.drain(0.0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await bench.endpoint.drain(1.0)
    assert (await bench.ask()).keep_alive is False


async def test_a_head_is_countersigned_for_the_proven_client(bench: Bench) -> None:
    response = await bench.endpoint.countersign(bench.request(body=head_form(HEAD)))
    assert response.status == 200
    assert bench.mesh.log.events[0][0] == "records.countersigned"
    assert bench.mesh.log.events[0][1]["peer"] == WRITER


HEADS: dict[str, tuple[dict[str, Any], int, str]] = {
    "another method": ({"method": "GET"}, 405, "method_refused"),
    "no head": ({"body": b"a=b"}, 400, "exchange_malformed"),
    "another media type": ({"Content_Type": "text/plain"}, 400, "exchange_malformed"),
    "parameters in the URL": ({"target": "/countersign?x=y"}, 400, "exchange_malformed"),
}


@pytest.mark.parametrize(("changes", "status", "reason"), HEADS.values(), ids=HEADS.keys())
async def test_a_request_for_a_countersignature_with_one_fact_changed_is_refused(
    bench: Bench, changes: dict[str, Any], status: int, reason: str
) -> None:
    response = await bench.endpoint.countersign(bench.request(**{"body": head_form(HEAD), **changes}))
    assert (response.status, reason_of(response)) == (status, reason)
    assert bench.recorded() == [("token.exchange_refused", reason)]


@pytest.mark.parametrize("checks", [0, 1])
async def test_nothing_is_countersigned_for_a_client_whose_trust_is_withdrawn(bench: Bench, checks: int) -> None:
    bench.guard.trusted_for = checks  # before the body, after it
    response = await bench.endpoint.countersign(bench.request(body=head_form(HEAD)))
    assert (response.status, reason_of(response)) == (401, "client_not_authenticated")


async def test_a_head_whose_request_is_cancelled_is_recorded(bench: Bench) -> None:
    asking = asyncio.create_task(bench.endpoint.countersign(bench.request(payload=broken(None))))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert bench.recorded() == [("token.exchange_refused", "draining")]


async def test_a_bug_while_countersigning_costs_this_request_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TokenService, "countersign", Mock(side_effect=ZeroDivisionError("secret")))
    response = await bench.endpoint.countersign(bench.request(body=head_form(HEAD)))
    assert (response.status, reason_of(response)) == (502, "internal")
    assert "secret" not in f"{response.body!r}{bench.mesh.log.events}"


UNSERVED: dict[str, tuple[int, str, int, bool]] = {
    "no route": (404, "no_route", 404, False),
    "another method": (405, "method_refused", 405, False),
    "no HTTP": (400, "bad_request", 400, True),
    "an expectation": (417, "expectation_refused", 417, True),
    "a bug": (500, "internal", 502, True),
}


@pytest.mark.parametrize(("status", "reason", "told", "ends"), UNSERVED.values(), ids=UNSERVED.keys())
async def test_what_the_library_refuses_has_a_record_and_its_connection_ends_unless_it_was_read(
    bench: Bench, status: int, reason: str, told: int, ends: bool
) -> None:
    response = bench.endpoint.unserved(bench.request(), status, "GET" if status == 405 else None)
    assert (response.status, reason_of(response)) == (told, reason)
    assert response.headers.get(hdrs.ALLOW) == ("GET" if status == 405 else None)
    assert (response.keep_alive is False) is ends
    assert bench.recorded() == [("token.exchange_refused", reason)]


@pytest.mark.parametrize(
    ("changes", "sent"),
    [({}, True), ({"version": HttpVersion10}, False), ({"expect": "money"}, False)],
    ids=["asked for", "HTTP/1.0", "another expectation"],
)
async def test_a_body_is_asked_for_where_the_client_waits_to_be_asked(
    bench: Bench, changes: dict[str, Any], sent: bool
) -> None:
    request = bench.request(**{"expect": "100-continue", **changes})
    written: list[bytes] = []
    writer: Any = request.writer

    async def write(data: bytes) -> None:
        written.append(data)

    writer.write = write
    go_on: Callable[[web.Request], Any] = endpoints.go_on
    await go_on(request)
    assert bool(written) is sent
