from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlencode

import pytest

from delegation_core.revocation import Kind
from sidecar.sts.logout_endpoint import EventSettings
from sidecar.sts.logout_events import BACK_CHANNEL_LOGOUT, SESSION_REVOKED
from sidecar.sts.revocations import Register, RevocationSettings
from sidecar.sts.server import StsServer, StsSettings
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.sts import LOGIN, Mesh
from tests.fakes.sts_server import STS, Answer, StsIdentity, read_answer
from tests.fakes.tokens import TRUST_DOMAIN

pytestmark = pytest.mark.integration

FORM = "application/x-www-form-urlencoded"


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Mesh, Register, int]]:
    mesh = Mesh(start=int(time.time()))
    source = StsIdentity(TrustDomainAuthority(TRUST_DOMAIN), STS)
    register = mesh.service.register = Register(RevocationSettings(), mesh.log)
    register.load()
    events = EventSettings(host="127.0.0.1", port=0, audiences=frozenset({"https://sts.acme.example"}))
    server = StsServer(StsSettings(port=0, probe_port=0), service=mesh.service, source=source, events=events)
    await server.start()
    assert server.events_address is not None
    try:
        yield mesh, register, server.events_address[1]
    finally:
        await server.stop()


async def post(port: int, path: str, content_type: str, body: bytes) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nHost: sts\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await read_answer(reader)
    writer.close()
    await writer.wait_closed()
    return answer


def event(mesh: Mesh, typ: str, **claims: object) -> str:
    lawful = {"iss": LOGIN, "iat": mesh.start, "jti": "event-1", "sub": "alice", "sid": "sid-1"}
    return mesh.logins.mint({**lawful, **claims}, mesh.logins.header(typ=typ))


def logout_form(mesh: Mesh, **claims: object) -> bytes:
    lawful = {"aud": "front-app", "events": {BACK_CHANNEL_LOGOUT: {}}}
    return urlencode({"logout_token": event(mesh, "logout+jwt", **{**lawful, **claims})}).encode()


async def test_a_logout_at_the_user_issuer_stops_the_login_and_a_replay_changes_nothing() -> None:
    async with listening() as (mesh, register, port):
        answer = await post(port, "/backchannel-logout", FORM, logout_form(mesh))
        assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
        assert register.revocations(mesh.policy).names(Kind.LOGIN) == {(LOGIN, "sid-1")}
        assert (await post(port, "/backchannel-logout", FORM, logout_form(mesh))).status == 200
        assert register.book.seq == 1
        ((name, fields),) = mesh.log.events
        assert (name, fields["peer"], fields["detail"]) == ("revocation.ordered", LOGIN, BACK_CHANNEL_LOGOUT)


async def test_another_logout_of_the_same_session_is_accepted_and_is_the_same_order() -> None:
    async with listening() as (mesh, register, port):
        for number in range(3):
            form = logout_form(mesh, jti=f"event-{number}")
            assert (await post(port, "/backchannel-logout", FORM, form)).status == 200
        assert len(register.book.orders) <= 2  # an end may come between


async def test_a_logout_that_no_majority_of_the_replicas_has_is_kept_and_the_issuer_sends_it_again() -> None:
    async with listening() as (mesh, register, port):
        register.peers.follow(["https://a", "https://b"])
        answer = await post(port, "/backchannel-logout", FORM, logout_form(mesh))
        assert (answer.status, answer.members) == (503, {"error": "temporarily_unavailable"})
        assert len(register.book.orders) == register.unacknowledged() == 1
        register.peers.note_heard("https://a", register.peers.monotonic(), register.book.orders.keys())
        assert (await post(port, "/backchannel-logout", FORM, logout_form(mesh))).status == 503
        register.peers.note_acknowledged("https://a", register.book.orders.keys())
        assert (await post(port, "/backchannel-logout", FORM, logout_form(mesh))).status == 200
        assert register.unacknowledged() == 1, "the third one is silent"
        assert register.book.seq == 1


async def test_a_caep_event_that_is_pushed_stops_the_login() -> None:
    async with listening() as (mesh, register, port):
        raw = event(mesh, "secevent+jwt", aud="https://sts.acme.example", events={SESSION_REVOKED: {}})
        assert (await post(port, "/events", "application/secevent+jwt", raw.encode())).status == 202
        assert register.revocations(mesh.policy).names(Kind.LOGIN) == {(LOGIN, "sid-1")}


@pytest.mark.parametrize(
    ("content_type", "claims"),
    [
        pytest.param("application/json", {}, id="no form"),
        pytest.param(FORM, {"iss": "https://other.example"}, id="of an unknown issuer"),
        pytest.param(FORM, {"aud": "other"}, id="for another application"),
        pytest.param(FORM, {"events": {}}, id="no event"),
    ],
)
async def test_a_logout_with_one_fact_changed_is_refused(content_type: str, claims: dict[str, object]) -> None:
    async with listening() as (mesh, register, port):
        answer = await post(port, "/backchannel-logout", content_type, logout_form(mesh, **claims))
        assert (answer.status, answer.members) == (400, {"error": "invalid_request"})
        assert register.book.seq == 0
        ((name, fields),) = mesh.log.events
        assert (name, fields["reason"]) == ("revocation.refused", "order_refused")
        assert (await post(port, "/backchannel-logout", FORM, logout_form(mesh))).status == 200


async def test_an_event_that_cannot_be_kept_is_to_be_sent_again() -> None:
    async with listening() as (mesh, register, port):
        mesh.log.healthy = False
        assert (await post(port, "/backchannel-logout", FORM, logout_form(mesh))).status == 503
        mesh.log.healthy = True
        assert (await post(port, "/backchannel-logout", FORM, logout_form(mesh))).status == 200
        assert register.book.seq == 1


async def test_nothing_else_is_served_there() -> None:
    async with listening() as (_mesh, _register, port):
        for path in ("/token", "/revocations", "/jwks"):
            assert (await post(port, path, FORM, b"")).status == 404
