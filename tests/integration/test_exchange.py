"""The exchange over real connections: servers that are not HTTP, do not end, are slow, or are not the token service."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from delegation_core.errors import Reason
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity.tls import server_context
from sidecar_dev.pki import TrustDomainAuthority
from tests.exchange.world import STS, World, authority, plan, policy, reason_of, running
from tests.fakes.lies import WIRE_LIES
from tests.fakes.lying_sts import LyingSts, Wire, serving
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import NOW, WRITER

pytestmark = pytest.mark.integration

OTHER = TrustDomainAuthority(TrustDomain("other.example"))


def sts_context(spiffe_id: SpiffeId = STS, by: TrustDomainAuthority | None = None) -> ssl.SSLContext:
    return server_context(OwnIdentity(by or authority(), spiffe_id))


async def test_an_honest_answer_over_mutual_tls_becomes_a_permit() -> None:
    async with serving(LyingSts(), sts_context()) as server, running(World(server=server, peer=STS)) as world:
        issued = await world.exchange.exchange(plan(), policy())
        assert issued.permit.token.actor_id == WRITER


@pytest.mark.parametrize(("wire", "reason"), WIRE_LIES.values(), ids=WIRE_LIES.keys())
async def test_a_lie_on_the_wire_is_refused_by_its_name_and_nothing_is_kept(wire: Wire, reason: Reason) -> None:
    async with serving(LyingSts()) as server, running(World(server=server, timeout_s=0.5)) as world:
        server.wire = wire
        assert await reason_of(world) is reason
        assert world.exchange.cached(plan(), policy=policy(), now=NOW) is None
        assert server.connections == (2 if reason is Reason.STS_UNAVAILABLE else 1)


async def test_a_service_that_answers_again_is_asked_again() -> None:
    async with serving(LyingSts()) as server, running(World(server=server)) as world:
        server.wire = WIRE_LIES["two lengths"][0]
        assert await reason_of(world) is WIRE_LIES["two lengths"][1]
        server.wire = type(server)(server.sts).wire
        issued = await world.exchange.exchange(plan(), policy())
        assert world.exchange.cached(plan(), policy=policy(), now=NOW) is issued


async def test_nobody_listening_is_unavailable() -> None:
    async with serving(LyingSts()) as server:
        pass
    async with running(World(server=server)) as world:
        assert await reason_of(world) is Reason.STS_UNAVAILABLE


@pytest.mark.parametrize(
    ("spiffe_id", "by"),
    [
        pytest.param(SpiffeId("spiffe://acme.example/sts2"), None, id="another workload"),
        pytest.param(SpiffeId("spiffe://acme.example/sts/x"), None, id="a workload below it"),
        pytest.param(SpiffeId("spiffe://other.example/sts"), OTHER, id="another trust domain"),
    ],
)
async def test_the_token_is_shown_to_nobody_but_the_token_service(
    spiffe_id: SpiffeId, by: TrustDomainAuthority | None
) -> None:
    tls = sts_context(spiffe_id, by)
    async with serving(LyingSts(), tls) as server, running(World(server=server, peer=STS)) as world:
        assert await reason_of(world) is Reason.STS_IDENTITY
    assert server.heads == []


async def test_a_token_service_that_does_not_believe_us_is_unavailable() -> None:
    async with serving(LyingSts(), sts_context()) as server, running(World(server=server, peer=STS)) as world:
        world.source.authority = TrustDomainAuthority(authority().trust_domain)  # the same name, other keys
        world.source.become(WRITER)
        assert await reason_of(world) in {Reason.STS_UNAVAILABLE, Reason.STS_IDENTITY}
    assert server.heads == []


async def test_exchanges_share_a_kept_connection() -> None:
    async with serving(LyingSts(), sts_context()) as server, running(World(server=server, peer=STS)) as world:
        server.keeps = True
        for number in range(3):
            await world.exchange.exchange(plan(jti=f"token-{number}"), policy())
        assert server.connections == 1


async def test_a_service_that_closes_after_each_answer_is_asked_on_new_connections() -> None:
    async with serving(LyingSts()) as server, running(World(server=server, retries=0)) as world:
        for number in range(3):
            await world.exchange.exchange(plan(jti=f"token-{number}"), policy())
        assert server.connections == 3


async def test_a_withdrawn_identity_takes_its_connections_along() -> None:
    async with serving(LyingSts(), sts_context()) as server, running(World(server=server, peer=STS)) as world:
        server.keeps = True
        await world.exchange.exchange(plan(), policy())
        world.source.become(None)
        assert await reason_of(world, plan(jti="token-2")) is Reason.NOT_READY
        world.source.become(WRITER)
        await world.exchange.exchange(plan(jti="token-2"), policy())
        assert server.connections == 2


async def test_the_environment_names_no_proxy_and_no_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login x password y\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with serving(LyingSts()) as server, running(World(server=server)) as world:
        await world.exchange.exchange(plan(), policy())
        (head,) = server.heads
        assert b"authorization" not in head.lower()


async def test_two_answers_at_once_are_not_one_for_the_next_caller() -> None:
    async def twice(writer: asyncio.StreamWriter, answer: bytes) -> None:
        writer.write(answer + answer)

    async with serving(LyingSts()) as server, running(World(server=server)) as world:
        server.wire, server.keeps = twice, True
        for subject in ("user-1", "user-2"):
            issued = await world.exchange.exchange(plan(sub=subject), policy())
            assert issued.permit.token.subject == subject
        assert server.connections == 2


async def test_an_answer_that_comes_after_its_deadline_is_nobodys() -> None:
    async with serving(LyingSts()) as server, running(World(server=server, timeout_s=0.2)) as world:
        server.keeps = True
        await world.exchange.exchange(plan(sub="user-0"), policy())
        server.sts.hold()
        assert await reason_of(world, plan(sub="user-1")) is Reason.STS_TIMEOUT
        server.sts.release()
        issued = await world.exchange.exchange(plan(sub="user-2"), policy())
        assert issued.permit.token.subject == "user-2"
        assert server.connections == 2
