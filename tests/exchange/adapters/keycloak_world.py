"""An entry that logs users in at a Keycloak realm and asks the same realm for tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from delegation_core.bearer import parse_bearer
from delegation_core.decide import decide_entry
from delegation_core.login_issuer import LoginKind, ScopeFrom, UserIssuer
from delegation_core.plan import Plan, plan_outbound
from delegation_core.policy import Entry, Policy
from delegation_core.spiffe_id import TrustDomain
from sidecar.exchange.adapters.adapter import ClientAuth
from sidecar.exchange.client_auth import ClientAuthSettings
from tests.exchange.world import World, authority, policy, route, running
from tests.fakes.keycloak_realm import KeycloakRealm, RealmMint, login
from tests.fakes.lying_sts import serving
from tests.fakes.tokens import ISSUER, NOW, TokenMint

REALM: Final = RealmMint()


def entry_policy(profile: str, mint: TokenMint = REALM, *, login_profile: str = "oidc-access-token") -> Policy:
    """Return the policy of an entry whose login issuer is its token service."""
    user = UserIssuer(
        trusted=mint.trusted(login_profile, actor_trust_domains=frozenset[TrustDomain]()),
        kind=LoginKind.ACCESS_TOKEN,
        client_id="front-app",
        scope_from=ScopeFrom(claim="scope", map={"crm.read": frozenset({"crm.read"})}),
    )
    entry = Entry(issuers={ISSUER: user}, may_call=frozenset({"crm"}))
    return replace(policy(), issuers={ISSUER: mint.trusted(profile)}, entry=entry)


def login_plan(by: Policy, mint: TokenMint = REALM, **changes: Any) -> Plan:
    """Return the plan for alice's first call, by her access token."""
    bearer = parse_bearer(mint.mint(login(**changes), mint.header(typ="JWT")))
    return plan_outbound(decide_entry(bearer, key=mint.key, policy=by, now=NOW), route(), policy=by, now=NOW)


@asynccontextmanager
async def at_realm(
    adapter: str, realm: KeycloakRealm | None = None, *, on_a_connection: bool = False, **auth: Any
) -> AsyncIterator[World]:
    """Run an exchange that asks the realm; ``auth`` changes our authentication there."""
    sts = realm or KeycloakRealm(mint=REALM, bundle=authority(), delegation=adapter == "keycloak-26.8")
    lawful: dict[str, Any] = {"method": ClientAuth.JWT_SPIFFE, "audience": ISSUER}
    settings: dict[str, Any] = {"adapter": adapter, "client_auth": ClientAuthSettings(**{**lawful, **auth})}
    async with AsyncExitStack() as stack:
        if on_a_connection:
            world = World(server=await stack.enter_async_context(serving(sts)), **settings)
        else:
            world = World(sts=sts, **settings)
        yield await stack.enter_async_context(running(world))


def realm_of(world: World) -> KeycloakRealm:
    assert isinstance(world.sts, KeycloakRealm)
    return world.sts
