"""The source by a client that says what the test tells it to. On real sockets: ``integration``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from delegation_core.errors import Reason, Unavailable
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity import workload_api, workload_pb, workload_update
from sidecar.identity.workload_api import WorkloadApiSource
from sidecar.identity.workload_client import IdentityDeniedError, WorkloadApiError
from sidecar.identity.workload_settings import WorkloadApiSettings
from sidecar_dev.pki import TrustDomainAuthority
from tests.identity.scripted_api import x509_message
from tests.identity.shapes import NOW, authority, leaf

A, B = TrustDomain("a.test"), TrustDomain("b.test")
ROOT_A, SIGNER_A, SIGNER_B = authority("root a"), TrustDomainAuthority(A), TrustDomainAuthority(B)
SELF = SpiffeId("spiffe://a.test/self")
X509, JWT = "FetchX509SVID", "FetchJWTBundles"
GOOD = x509_message((SELF, [leaf(ROOT_A, SELF)]), bundle=[ROOT_A])
BUNDLES = workload_pb.JWTBundlesResponse(bundles={"b.test": SIGNER_B.jwt_bundle()})
UNIX = "unix:///run/agent.sock"


class Client:
    """Streams give what is put into their queues; an error ends one."""

    def __init__(self, *_: object, **__: object) -> None:
        self.said: dict[str, asyncio.Queue[Any]] = {}
        self.answer: Any = None

    def say(self, method: str, message: object) -> None:
        self.said.setdefault(method, asyncio.Queue()).put_nowait(message)

    async def stream(self, method: str, _request: object, _type: object, on_message: Callable[[Any], None]) -> Any:
        queue = self.said.setdefault(method, asyncio.Queue())
        while not isinstance(message := await queue.get(), Exception):
            on_message(message)
        return message

    async def call(self, _method: str, _request: object, _type: object) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@asynccontextmanager
async def following(
    monkeypatch: pytest.MonkeyPatch, *, jwt_bundles: bool = True
) -> AsyncIterator[tuple[WorkloadApiSource, Client]]:
    client = Client()
    monkeypatch.setattr(workload_api, "WorkloadApiClient", lambda *_, **__: client)
    settings = WorkloadApiSettings(address=UNIX, jwt_bundles=jwt_bundles)

    async def pause(seconds: float) -> None:
        await (asyncio.Event().wait() if seconds == settings.expiry_tick_s else asyncio.sleep(0))

    source = WorkloadApiSource(settings, clock=lambda: float(NOW), pause=pause)
    running = asyncio.create_task(source.run())
    try:
        client.say(X509, GOOD)
        await until(lambda: source.current is not None)
        yield source, client
    finally:
        running.cancel()
        await asyncio.wait([running])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        for _ in iter(condition, True):
            await asyncio.sleep(0)


@pytest.mark.parametrize("failure", [IdentityDeniedError("denied"), WorkloadApiError("lost")])
async def test_a_denial_withdraws_the_identity_and_a_lost_connection_does_not(
    monkeypatch: pytest.MonkeyPatch, failure: WorkloadApiError
) -> None:
    async with following(monkeypatch) as (source, client):
        client.say(X509, failure)
        await until(lambda: source.last_error == str(failure))
        assert source.counts.lost_connections == 1
        assert (source.current is None) is isinstance(failure, IdentityDeniedError)


@pytest.mark.parametrize("failure", [IdentityDeniedError("denied"), WorkloadApiError("lost")])
async def test_a_denial_takes_the_keys_of_jwt_svids_and_a_lost_connection_does_not(
    monkeypatch: pytest.MonkeyPatch, failure: WorkloadApiError
) -> None:
    async with following(monkeypatch) as (source, client):
        client.say(JWT, BUNDLES)
        await until(lambda: source.jwt_bundles.keys() == {B})
        client.say(JWT, failure)
        await until(lambda: source.last_error == str(failure))
        assert source.jwt_bundles.keys() == (set() if isinstance(failure, IdentityDeniedError) else {B})


async def test_keys_of_jwt_svids_stay_when_a_message_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(monkeypatch) as (source, client):
        client.say(JWT, BUNDLES)
        await until(lambda: source.jwt_bundles.keys() == {B})
        monkeypatch.setattr(workload_update, "MAX_TRUST_DOMAINS", 1)
        both = {"a.test": SIGNER_A.jwt_bundle(), "b.test": SIGNER_B.jwt_bundle()}
        client.say(JWT, workload_pb.JWTBundlesResponse(bundles=both))
        await until(lambda: source.counts.discarded == 1)
        assert source.jwt_bundles.keys() == {B}
        monkeypatch.setattr(workload_update, "MAX_TRUST_DOMAINS", 2)
        client.say(JWT, workload_pb.JWTBundlesResponse(bundles=both))
        await until(lambda: source.jwt_bundles.keys() == {A, B})


@pytest.mark.parametrize("wanted", [True, False])
async def test_keys_of_jwt_svids_are_asked_for_where_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    async with following(monkeypatch, jwt_bundles=wanted) as (_, client):
        assert client.said.keys() == ({X509, JWT} if wanted else {X509})


@pytest.mark.parametrize(
    "answer", [IdentityDeniedError("denied"), WorkloadApiError("lost"), workload_pb.JWTSVIDResponse()]
)
async def test_a_workload_without_a_jwt_svid_is_not_ready(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    async with following(monkeypatch) as (source, client):
        client.answer = answer
        with pytest.raises(Unavailable) as refused:
            await source.jwt_svid("x")
        assert refused.value.reason is Reason.NOT_READY
        svid = SIGNER_A.issue_jwt(SELF, "x")
        client.answer = workload_pb.JWTSVIDResponse(svids=[workload_pb.JWTSVID(spiffe_id=SELF, svid=svid)])
        assert await source.jwt_svid("x") == svid
