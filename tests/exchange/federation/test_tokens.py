"""Federated tokens: cached until shortly before their end, one trade in flight, and no failure kept."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from delegation_core.errors import Reason, Unavailable
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.exchange.federation.tokens import REJECTION_S, FederatedToken, FederatedTokens
from sidecar.exchange.federation.trade import Ask
from sidecar.identity.endpoint import EndpointAnswer, EndpointError, Trouble
from sidecar_dev.pki import TrustDomainAuthority
from tests.exchange.federation.test_adapters import key
from tests.fakes.own_identity import OwnIdentity

WRITER = SpiffeId("spiffe://acme.example/agent/writer")
OTHER = SpiffeId("spiffe://acme.example/agent/other")
KEY = key("openai")


class World:
    """The trades of one workload with a provider that answers as a test says."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.asked: list[Ask] = []
        self.source = OwnIdentity(TrustDomainAuthority(TrustDomain("acme.example")), WRITER)
        self.status, self.content_type = 200, "application/json; charset=utf-8"
        self.failure: Exception | None = None
        self.lives_s = 600
        self.wait = asyncio.Event()
        self.wait.set()
        self.tokens = FederatedTokens(self.source, lambda: self.now, self._answer)

    async def _answer(self, ask: Ask, _ca_file: str | None) -> EndpointAnswer:
        self.asked.append(ask)
        number = len(self.asked)
        await self.wait.wait()
        if self.failure is not None:
            raise self.failure
        said = {"access_token": f"token-number-{number}", "token_type": "bearer", "expires_in": self.lives_s}
        return EndpointAnswer(self.status, self.content_type, None, json.dumps(said).encode())

    async def value(self, **changes: Any) -> bytes:
        return (await self.tokens.of(replace(KEY, **changes))).value


@pytest.fixture
async def world() -> World:
    return World()


async def refused(world: World) -> Unavailable:
    with pytest.raises(Unavailable) as error:
        await world.tokens.of(KEY)
    return error.value


async def test_a_token_is_kept_until_shortly_before_its_end(world: World) -> None:
    assert world.tokens.cached(KEY) is None
    assert await world.value() == b"token-number-1"
    world.now += 569
    assert await world.value() == b"token-number-1"
    world.now += 1
    assert world.tokens.cached(KEY) is None
    assert await world.value() == b"token-number-2"
    assert world.source.audiences == ["aud", "aud"]


async def test_a_token_belongs_to_the_terms_of_its_route_and_to_our_spiffe_id(world: World) -> None:
    assert await world.value() == b"token-number-1"
    assert await world.value(terms=(("service_account_id", "another"),)) == b"token-number-2"
    assert await world.value(endpoint="https://else.example/t") == b"token-number-3"
    world.source.become(OTHER)
    assert await world.value() == b"token-number-4"
    world.source.become(WRITER)
    assert await world.value() == b"token-number-1"


async def test_one_trade_serves_all_calls_that_wait_and_outlives_the_first(world: World) -> None:
    world.wait.clear()
    calls = [asyncio.ensure_future(world.tokens.of(KEY)) for _ in range(3)]
    await asyncio.sleep(0)
    calls[0].cancel()
    await asyncio.sleep(0)
    world.wait.set()
    found = await asyncio.gather(*calls[1:])
    assert [token.value for token in found] == [b"token-number-1"] * 2
    assert len(world.asked) == 1


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"status": 302}, id="redirect"),
        pytest.param({"status": 403}, id="refused"),
        pytest.param({"status": 500}, id="broken"),
        pytest.param({"content_type": "text/html"}, id="html"),
        pytest.param({"content_type": None}, id="no-type"),
        pytest.param({"failure": EndpointError(Trouble.UNREACHABLE)}, id="down"),
        pytest.param({"failure": EndpointError(Trouble.TIMEOUT)}, id="slow"),
        pytest.param({"failure": EndpointError(Trouble.TOO_LARGE)}, id="too-large"),
        pytest.param({"failure": EndpointError(Trouble.IDENTITY)}, id="another-host"),
    ],
)
async def test_a_trade_that_fails_is_kept_nowhere(world: World, change: dict[str, Any]) -> None:
    good = {name: getattr(world, name) for name in change}
    for name, value in change.items():
        setattr(world, name, value)
    assert (await refused(world)).reason is Reason.CREDENTIAL_UNAVAILABLE
    assert (await refused(world)).reason is Reason.CREDENTIAL_UNAVAILABLE
    assert len(world.asked) == 2
    for name, value in good.items():
        setattr(world, name, value)
    assert await world.value() == b"token-number-3"


async def test_without_an_identity_nothing_is_traded(world: World) -> None:
    kept = await world.value()
    world.source.become(None)
    assert world.tokens.cached(KEY) is None
    assert (await refused(world)).reason is Reason.NOT_READY
    world.source.become(WRITER)
    world.source.jwt_refused = True
    assert await world.value() == kept
    world.now += 600
    assert (await refused(world)).reason is Reason.NOT_READY
    assert len(world.asked) == 1


async def test_an_identity_that_changes_during_a_trade_gets_no_token(world: World) -> None:
    world.wait.clear()
    call = asyncio.ensure_future(world.tokens.of(KEY))
    await asyncio.sleep(0)
    world.source.become(OTHER)
    world.wait.set()
    with pytest.raises(Unavailable):
        await call


async def test_a_token_that_the_host_refuses_is_replaced_once_in_a_while(world: World) -> None:
    token = await world.tokens.of(KEY)
    assert isinstance(token, FederatedToken)
    world.tokens.reject(token)
    assert world.tokens.cached(KEY) is token
    world.now += REJECTION_S
    world.tokens.reject(token)
    assert await world.value() == b"token-number-2"
    world.tokens.reject(token)
    assert await world.value() == b"token-number-2"


async def test_no_text_of_a_token_holds_its_value(world: World) -> None:
    assert "token-number" not in repr(await world.tokens.of(KEY))
