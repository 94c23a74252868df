"""Adapters over two authorization servers, on real connections: each verifies every signature and refuses by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from delegation_core.errors import Reason, SidecarError
from delegation_core.plan import Plan
from delegation_core.policy import Policy
from sidecar.exchange.adapters.adapter import ClientAuth
from sidecar.exchange.client_auth import ClientAuthSettings
from sidecar.exchange.sts import EndpointSettings
from sidecar.identity.endpoint import Endpoint
from tests.exchange.adapters.test_id_jag_04 import by_client, login_plan
from tests.exchange.adapters.test_identity_chaining import HOME, crossing_plan
from tests.exchange.world import LOGIN, World, authority, policy, running
from tests.fakes.grant_servers import ID_JAG, JWT, TYPE, Granting, Server, Taking, serving
from tests.fakes.lying_sts import LyingSts
from tests.fakes.lying_sts import Server as PlainServer
from tests.fakes.tokens import CRM, ISSUER, PLANNER, WRITER, TokenMint

pytestmark = pytest.mark.integration

AT_SECOND = TokenMint()


@dataclass
class Two:
    """Both servers, and the sidecar's side of the exchange."""

    first: Granting
    second: Taking
    world: World

    async def reason(self, plan: Plan, by: Policy) -> Reason:
        with pytest.raises(SidecarError) as caught:
            await self.world.exchange.exchange(plan, by)
        return caught.value.reason


def jwt_svid(server: Server, client_id: str, **changes: Any) -> ClientAuthSettings:
    return ClientAuthSettings(
        **{"method": ClientAuth.JWT_SVID, "audience": server.mint.issuer, "client_id": client_id, **changes}
    )


@asynccontextmanager
async def two_servers(adapter: str, endpoint: str, first: Granting, second: Taking, **auth: Any) -> AsyncIterator[Two]:
    """Run both servers and an exchange that asks them. ``auth`` changes our authentication at the second."""
    async with AsyncExitStack() as stack:
        for server in (first, second):
            await stack.enter_async_context(serving(server))
        at_first = EndpointSettings(
            endpoint=Endpoint(url=first.url), client_auth=jwt_svid(first, first.clients.get(str(WRITER), "front"))
        )
        world = World(
            server=PlainServer(LyingSts()),
            adapter=adapter,
            token_endpoint=second.url,
            client_auth=jwt_svid(second, second.clients.get(str(WRITER), str(WRITER)), **auth),
            endpoints={endpoint: at_first},
        )
        yield Two(first, second, await stack.enter_async_context(running(world)))


def idp(**changes: Any) -> Granting:
    lawful: dict[str, Any] = {
        "mint": LOGIN,
        "bundle": authority(),
        "clients": {str(WRITER): "front"},
        "kind": ID_JAG,
        "audiences": {ISSUER: {"front": str(WRITER)}},
        "subjects": {f"{TYPE}id_token": LOGIN},
    }
    return Granting(**{**lawful, **changes})


def home(**changes: Any) -> Granting:
    lawful: dict[str, Any] = {
        "mint": HOME,
        "bundle": authority(),
        "clients": {str(WRITER): str(WRITER)},
        "kind": JWT,
        "audiences": {ISSUER: {}},
        "subjects": {f"{TYPE}access_token": HOME},
    }
    return Granting(**{**lawful, **changes})


def second(granting: TokenMint, **changes: Any) -> Taking:
    lawful: dict[str, Any] = {
        "mint": AT_SECOND,
        "bundle": authority(),
        "clients": {str(WRITER): str(WRITER)},
        "granting": granting,
        "resources": frozenset({str(CRM)}),
    }
    return Taking(**{**lawful, **changes})


async def test_an_id_token_becomes_an_access_token_of_the_other_domain() -> None:
    async with two_servers("id-jag-04", "idp", idp(), second(LOGIN)) as two:
        token = (await two.world.exchange.exchange(login_plan(), by_client())).permit.token
        assert (token.issuer, token.subject, token.actor_id) == (ISSUER, "user-4711", WRITER)
        assert [len(two.first.asked), len(two.second.asked)] == [1, 1]
        assert two.first.refused == two.second.refused == []
        assert two.world.source.audiences == [LOGIN.issuer, ISSUER]  # an assertion for each server


async def test_a_chain_goes_on_in_the_other_domain() -> None:
    both = home(), second(HOME, kind=JWT, prefix="home:")
    async with two_servers("identity-chaining", "home", *both) as two:
        token = (await two.world.exchange.exchange(crossing_plan(), policy())).permit.token
        assert (token.issuer, token.subject, token.actor_id) == (ISSUER, "home:user-4711", WRITER)
        assert token.chain is not None
        assert token.chain.subjects == (WRITER, PLANNER)


OTHER = TokenMint("https://idp.example", key=9)


@pytest.mark.parametrize(
    ("first", "taking", "reason", "refused"),
    [
        pytest.param(
            idp(clients={str(WRITER): "another"}), second(LOGIN), "exchange_denied", (["invalid_grant"], []),
            id="the ID token of another client",
        ),
        pytest.param(
            idp(clients={str(PLANNER): "front"}), second(LOGIN), "sts_error", (["invalid_client"], []),
            id="an unknown client",
        ),
        pytest.param(
            idp(audiences={}), second(LOGIN), "exchange_denied", (["invalid_target"], []), id="an unknown audience"
        ),
        pytest.param(
            idp(subjects={f"{TYPE}saml2": LOGIN}), second(LOGIN), "exchange_denied", (["invalid_request"], []),
            id="no ID tokens",
        ),
        pytest.param(
            idp(subjects={f"{TYPE}id_token": OTHER}), second(LOGIN), "exchange_denied", (["invalid_request"], []),
            id="a login elsewhere",
        ),
        pytest.param(
            idp(audiences={ISSUER: {"front": "somebody"}}), second(LOGIN), "sts_actor_mismatch", ([], []),
            id="mapped to another client: never sent on",
        ),
        pytest.param(
            idp(), second(OTHER), "exchange_denied", ([], ["invalid_grant"]), id="a signature of nobody's"
        ),
        pytest.param(
            idp(), second(LOGIN, kind=JWT), "exchange_denied", ([], ["invalid_grant"]), id="no ID-JAGs"
        ),
        pytest.param(
            idp(changes={"exp": 1}), second(LOGIN), "exchange_denied", ([], ["invalid_grant"]), id="expired"
        ),
        pytest.param(
            idp(), second(LOGIN, resources=frozenset()), "exchange_denied", ([], ["invalid_target"]),
            id="an unknown resource",
        ),
        pytest.param(
            idp(), second(LOGIN, changes={"sub": "local-7"}), "sts_subject_mismatch", ([], []), id="a local name"
        ),
        pytest.param(
            idp(), second(LOGIN, changes={"exp": 1_790_086_400}), "sts_lifetime", ([], []), id="a token for a day"
        ),
    ],
)  # fmt: skip
async def test_an_id_jag_is_refused_where_the_real_servers_refuse_it(
    first: Granting, taking: Taking, reason: str, refused: tuple[list[str], list[str]]
) -> None:
    first, taking = replace(first, asked=[], refused=[]), replace(taking, asked=[], refused=[], used=set())
    async with two_servers("id-jag-04", "idp", first, taking) as two:
        assert await two.reason(login_plan(), by_client()) == reason
        assert (two.first.refused, two.second.refused) == refused


@pytest.mark.parametrize(
    ("first", "taking", "reason", "refused"),
    [
        pytest.param(
            home(subjects={f"{TYPE}access_token": OTHER}), second(HOME, kind=JWT, prefix="home:"), "exchange_denied",
            (["invalid_request"], []), id="a token of another issuer",
        ),
        pytest.param(
            home(audiences={}), second(HOME, kind=JWT, prefix="home:"), "exchange_denied", (["invalid_target"], []),
            id="an unknown server",
        ),
        pytest.param(
            home(), second(OTHER, kind=JWT, prefix="home:"), "exchange_denied", ([], ["invalid_grant"]),
            id="no trust between the domains",
        ),
        pytest.param(
            home(), second(HOME, kind=JWT, prefix="home:", clients={str(PLANNER): str(PLANNER)}), "sts_error",
            ([], ["invalid_client"]), id="an unknown client beyond the border",
        ),
        pytest.param(home(), second(HOME, kind=JWT), "sts_subject_mismatch", ([], []), id="no prefix"),
        pytest.param(
            home(changes={"act": {"sub": str(WRITER)}}), second(HOME, kind=JWT, prefix="home:"), "sts_chain_broken",
            ([], []), id="the first server drops the chain",
        ),
        pytest.param(
            home(changes={"act": {"sub": str(PLANNER)}}), second(HOME, kind=JWT, prefix="home:"),
            "sts_actor_mismatch", ([], []), id="the first server names another actor",
        ),
        pytest.param(
            home(changes={"sub": "mallory"}), second(HOME, kind=JWT, prefix="home:"), "sts_subject_mismatch",
            ([], []), id="the first server names another user",
        ),
    ],
)  # fmt: skip
async def test_a_chain_ends_where_the_real_servers_end_it(
    first: Granting, taking: Taking, reason: str, refused: tuple[list[str], list[str]]
) -> None:
    first, taking = replace(first, asked=[], refused=[]), replace(taking, asked=[], refused=[], used=set())
    async with two_servers("identity-chaining", "home", first, taking) as two:
        assert await two.reason(crossing_plan(), policy()) == reason
        assert (two.first.refused, two.second.refused) == refused


async def test_an_assertion_for_another_server_authenticates_nobody() -> None:
    async with two_servers("id-jag-04", "idp", idp(), second(LOGIN), audience="https://other.example") as two:
        assert await two.reason(login_plan(), by_client()) is Reason.STS_ERROR
        assert two.second.refused == ["invalid_client"]


async def test_a_redirect_of_either_server_is_not_followed() -> None:
    for moved in ("first", "second"):
        async with two_servers("id-jag-04", "idp", idp(), second(LOGIN)) as two:
            server = two.first if moved == "first" else two.second
            server.redirect = "http://127.0.0.1:1/"
            assert await two.reason(login_plan(), by_client()) is Reason.STS_REDIRECT
            assert len(two.second.asked) == (0 if moved == "first" else 1)
