"""Entra's adapter on real connections, against a tenant that refuses what the documentation says it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import Reason
from delegation_core.spiffe_id import TrustDomain
from sidecar.exchange.adapters.adapter import ClientAuth
from sidecar_dev.pki import TrustDomainAuthority
from tests.exchange.adapters.entra_world import TENANT, at_tenant, entry_policy, login_plan, tenant_of
from tests.exchange.world import World, authority, reason_of
from tests.fakes.entra_tenant import AGENT, ALICE, CRM_API, SIBLING, EntraTenant, TenantMint, parent
from tests.fakes.lying_sts import Reply
from tests.fakes.tokens import NOW, PLANNER, WRITER, TokenMint

pytestmark = pytest.mark.integration

BY = entry_policy()
GUID = "99999999-8888-7777-6666-555555555555"


def tenant(**changes: Any) -> EntraTenant:
    return EntraTenant(**{"mint": TENANT, "bundle": authority(), **changes})


async def refusal(world: World, mint: TokenMint = TENANT, **login: Any) -> tuple[Reason, list[int]]:
    """Return our reason and Microsoft's codes."""
    reason = await reason_of(world, login_plan(BY, mint, **login), BY)
    return reason, tenant_of(world).codes


async def test_a_login_becomes_a_token_of_which_the_agent_identity_is_the_actor() -> None:
    async with at_tenant(on_a_connection=True) as world:
        issued = (await world.exchange.exchange(login_plan(BY), BY)).permit.token
        assert (issued.subject, issued.actor_id, issued.audience) == (ALICE, WRITER, CRM_API)
        assert tenant_of(world).codes == []


@pytest.mark.parametrize(
    ("changes", "reason", "code"),
    [
        pytest.param({"federated": str(PLANNER)}, "sts_error", 700213, id="the SVID of another workload"),
        pytest.param(
            {"bundle": TrustDomainAuthority(TrustDomain("acme.example"))}, "sts_error", 700027,
            id="keys of another authority",
        ),
        pytest.param({"bundle": None}, "sts_error", 7000216, id="no federated credential"),
        pytest.param({"agents": frozenset({SIBLING})}, "exchange_denied", 700211, id="an agent of another blueprint"),
        pytest.param({"granted": {}}, "exchange_denied", 500011, id="an unknown resource"),
        pytest.param({"granted": {CRM_API: frozenset()}}, "exchange_denied", 65001, id="no consent"),
        pytest.param({"exposed": frozenset()}, "exchange_denied", 70011, id="an unknown scope"),
        pytest.param({"mfa": True}, "exchange_denied", 50076, id="the user must log in again"),
    ],
)  # fmt: skip
async def test_a_call_is_refused_where_the_tenant_refuses_it(changes: dict[str, Any], reason: str, code: int) -> None:
    async with at_tenant(tenant(**changes), on_a_connection=True) as world:
        assert await refusal(world) == (reason, [code])


@pytest.mark.parametrize(
    ("auth", "reason", "code"),
    [
        pytest.param({"audience": TENANT.issuer}, "sts_error", 700212, id="an assertion for the issuer"),
        pytest.param({"client_id": GUID}, "exchange_denied", 700016, id="an unknown blueprint"),
        pytest.param({"client_id": AGENT}, "exchange_denied", 700016, id="the agent as its own blueprint"),
    ],
)
async def test_only_the_blueprint_opens_the_first_step(auth: dict[str, Any], reason: str, code: int) -> None:
    async with at_tenant(on_a_connection=True, **auth) as world:
        assert await refusal(world) == (reason, [code])


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        pytest.param({"sub": f"/eid1/c/pub/t/x/a/y/{SIBLING}"}, 700213, id="for a sibling"),
        pytest.param({"aud": GUID}, 700213, id="for another blueprint"),
        pytest.param({"exp": NOW}, 700024, id="ended"),
    ],
)
async def test_a_token_of_the_blueprint_is_good_for_one_agent(claims: dict[str, object], code: int) -> None:
    async with at_tenant(on_a_connection=True) as world:
        tenant_of(world).parent = parent(claims)
        assert await refusal(world) == ("sts_error", [code])


async def test_a_user_s_token_must_be_the_tenants_and_for_the_blueprint() -> None:
    for mint, login, code in (
        (TENANT, {"aud": CRM_API}, 500131),
        (TENANT, {"idtyp": "app"}, 240002),
        (TenantMint(key=9), {}, 50013),
    ):
        async with at_tenant(on_a_connection=True) as world:
            assert await refusal(world, mint, **login) == ("exchange_denied", [code])


async def test_the_agents_credential_is_asked_for_once_for_many_logins() -> None:
    async with at_tenant(on_a_connection=True) as world:
        for number in range(3):
            await world.exchange.exchange(login_plan(BY, uti=f"u-{number}"), BY)
        kinds = [form["grant_type"].rpartition(":")[2] for form in world.sts.forms]
        assert kinds == ["client_credentials", *["jwt-bearer"] * 3]


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        pytest.param(Reply(307, (("Location", "http://127.0.0.1:1/"),), b""), "sts_redirect", id="a redirect"),
        pytest.param(Reply(body=b" " * 10_000_000), "sts_too_large", id="a huge body"),
    ],
)
async def test_an_answer_that_leads_elsewhere_or_has_no_end_is_the_last(reply: Reply, reason: str, step: int) -> None:
    async with at_tenant(on_a_connection=True) as world:
        if step == 1:
            tenant_of(world).parent = lambda _sts, _form: reply
        else:
            tenant_of(world).behaviour = lambda _sts, _form: reply
        assert (await refusal(world))[0] == reason
        assert len(world.sts.forms) == step


async def test_a_secret_of_the_blueprint_is_shown_to_the_first_step_alone(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("of the blueprint")
    file.chmod(0o600)
    auth: dict[str, Any] = {"method": ClientAuth.SECRET_POST, "credential_file": str(file), "allow_static": True}
    async with at_tenant(tenant(secret="of the blueprint"), on_a_connection=True, **auth) as world:
        issued = await world.exchange.exchange(login_plan(BY), BY)
        assert issued.permit.token.actor_id == WRITER
        (record,) = [one for one in await world.records() if one["event"] == "token.exchanged"]
        assert str(record["credential"]).startswith("client:client-secret-post:")
        assert [form.get("client_secret") for form in world.sts.forms] == ["of the blueprint", None]
    async with at_tenant(tenant(secret="another"), on_a_connection=True, **auth) as world:
        assert await refusal(world) == ("sts_error", [7000215])
