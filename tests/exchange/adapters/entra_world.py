"""An entry that takes logins of an Entra tenant for its blueprint, and asks the same tenant for tokens."""

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
from delegation_core.profile_presets import PRESETS
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.exchange.adapters.adapter import ClientAuth
from sidecar.exchange.client_auth import ClientAuthSettings
from tests.exchange.world import World, authority, policy, route, running
from tests.fakes.entra_tenant import AGENT, BLUEPRINT, CRM_API, FOR_EXCHANGE, FRONT, EntraTenant, TenantMint, login
from tests.fakes.lying_sts import serving
from tests.fakes.tokens import ISSUER, NOW, WRITER, TokenMint

TENANT: Final = TenantMint()
_LOGINS: Final = replace(
    PRESETS["oidc-access-token"], subject_claim="oid", scope_claim="scp", algorithms=frozenset({"RS256"})
)


def entry_policy(table: dict[str, SpiffeId] | None = None) -> Policy:
    """Return the policy of an entry; ``table`` are the workloads of agent identities."""
    mapped: dict[tuple[str | None, str], SpiffeId] = {
        (None, client): workload for client, workload in (table or {AGENT: WRITER}).items()
    }
    profile = replace(PRESETS["entra"], actor_table=mapped)
    user = UserIssuer(
        trusted=TENANT.trusted(_LOGINS, actor_trust_domains=frozenset[TrustDomain]()),
        kind=LoginKind.ACCESS_TOKEN,
        client_id=FRONT,
        scope_from=ScopeFrom(claim="scp", map={"crm.read": frozenset({"crm.read"})}),
    )
    entry = Entry(issuers={ISSUER: user}, may_call=frozenset({"crm"}))
    return replace(policy(), issuers={ISSUER: TENANT.trusted(profile)}, entry=entry)


def login_plan(by: Policy, mint: TokenMint = TENANT, *, audience: str = CRM_API, **changes: Any) -> Plan:
    """Return the plan for alice's first call, by her token for the blueprint."""
    bearer = parse_bearer(mint.mint(login(**changes), mint.header(typ="JWT")))
    delegation = decide_entry(bearer, key=mint.key, policy=by, now=NOW)
    return plan_outbound(delegation, route(audience=audience), policy=by, now=NOW)


@asynccontextmanager
async def at_tenant(
    tenant: EntraTenant | None = None,
    *,
    on_a_connection: bool = False,
    options: dict[str, str] | None = None,
    **auth: Any,
) -> AsyncIterator[World]:
    """Run an exchange that asks the tenant; ``auth`` changes our authentication there."""
    sts = tenant or EntraTenant(mint=TENANT, bundle=authority())
    lawful: dict[str, Any] = {"method": ClientAuth.JWT_SVID, "audience": FOR_EXCHANGE, "client_id": BLUEPRINT}
    settings: dict[str, Any] = {
        "adapter": "entra-agent-id",
        "client_auth": ClientAuthSettings(**{**lawful, **auth}),
        "options": {"agent_id": AGENT, **(options or {})},
    }
    async with AsyncExitStack() as stack:
        if on_a_connection:
            world = World(server=await stack.enter_async_context(serving(sts)), **settings)
        else:
            world = World(sts=sts, **settings)
        yield await stack.enter_async_context(running(world))


def tenant_of(world: World) -> EntraTenant:
    assert isinstance(world.sts, EntraTenant)
    return world.sts
