"""Keycloak's adapters on real connections, against a realm that refuses what a real one refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from delegation_core.errors import Reason
from delegation_core.spiffe_id import TrustDomain
from sidecar_dev.pki import TrustDomainAuthority
from tests.exchange.adapters.keycloak_world import REALM, at_realm, entry_policy, login_plan, realm_of
from tests.exchange.world import World, authority, reason_of
from tests.fakes.keycloak_realm import ACCOUNTS, ALICE, MAY_ACT, KeycloakRealm, own
from tests.fakes.lying_sts import Reply
from tests.fakes.tokens import ABSENT, CRM, PLANNER, WRITER, TokenMint

pytestmark = pytest.mark.integration

POLICIES: Final = {"keycloak-26.7": entry_policy("keycloak-26.7"), "keycloak-26.8": entry_policy("keycloak")}
LOGINS: Final[dict[str, dict[str, Any]]] = {"keycloak-26.7": {}, "keycloak-26.8": {"may_act": MAY_ACT}}
ADAPTERS: Final = sorted(POLICIES)
Change = Callable[[KeycloakRealm], None]


def realm(adapter: str, **changes: Any) -> KeycloakRealm:
    lawful: dict[str, Any] = {"mint": REALM, "bundle": authority(), "delegation": adapter == "keycloak-26.8"}
    return KeycloakRealm(**{**lawful, **changes})


async def refusal(adapter: str, world: World, **login: Any) -> tuple[Reason, list[str]]:
    """Return our reason and the realm's error."""
    by = POLICIES[adapter]
    reason = await reason_of(world, login_plan(by, **{**LOGINS[adapter], **login}), by)
    return reason, realm_of(world).refused


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_login_becomes_a_token_of_the_realm(adapter: str) -> None:
    by = POLICIES[adapter]
    async with at_realm(adapter, on_a_connection=True) as world:
        token = (await world.exchange.exchange(login_plan(by, **LOGINS[adapter]), by)).permit.token
        assert (token.subject, token.actor_id, token.audience) == (ALICE, WRITER, CRM)
        assert token.scope == {"crm.read"}
        assert realm_of(world).refused == []


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize(
    ("changes", "reason", "error"),
    [
        pytest.param({"clients": frozenset({str(CRM)})}, "sts_error", "invalid_client", id="an unknown SVID"),
        pytest.param(
            {"bundle": TrustDomainAuthority(TrustDomain("acme.example"))}, "sts_error", "invalid_client",
            id="keys of another authority",
        ),
        pytest.param({"bundle": None}, "sts_error", "invalid_client", id="no identity provider"),
        pytest.param({"exchanging": frozenset()}, "exchange_denied", "invalid_request", id="exchange is off"),
        pytest.param(
            {"clients": frozenset({str(WRITER)})}, "exchange_denied", "invalid_client", id="an audience that is none"
        ),
        pytest.param({"audiences": {}}, "exchange_denied", "invalid_request", id="an audience out of reach"),
        pytest.param({"scopes": frozenset()}, "exchange_denied", "invalid_scope", id="an unknown scope"),
    ],
)  # fmt: skip
async def test_a_call_is_refused_where_a_realm_refuses_it(
    changes: dict[str, Any], reason: str, error: str, adapter: str
) -> None:
    async with at_realm(adapter, realm(adapter, **changes), on_a_connection=True) as world:
        assert await refusal(adapter, world) == (reason, [error])


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize(
    ("auth", "reason", "error"),
    [
        pytest.param({"audience": "https://other.example"}, "exchange_denied", "invalid_client", id="another audience"),
        pytest.param({"client_id": str(PLANNER)}, "sts_error", "unauthorized_client", id="the name of another client"),
    ],
)
async def test_a_jwt_svid_authenticates_one_client_at_one_issuer(
    auth: dict[str, Any], reason: str, error: str, adapter: str
) -> None:
    async with at_realm(adapter, on_a_connection=True, **auth) as world:
        assert await refusal(adapter, world) == (reason, [error])


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_jwt_svid_that_was_kept_too_long_authenticates_nobody(
    adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue = authority().issue_jwt
    async with at_realm(adapter, on_a_connection=True) as world:
        monkeypatch.setattr(
            world.source.authority, "issue_jwt",
            lambda spiffe_id, audience: issue(spiffe_id, audience, issued_at=1_700_000_000, ttl_s=2**30),
        )  # fmt: skip
        assert await refusal(adapter, world) == ("exchange_denied", ["invalid_client"])


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_login_that_was_not_for_us_or_is_not_the_realms_is_refused(adapter: str) -> None:
    async with at_realm(adapter, on_a_connection=True) as world:
        assert await refusal(adapter, world, aud=[str(CRM)]) == ("sts_error", ["access_denied"])
    async with at_realm(adapter, realm(adapter), on_a_connection=True) as world:
        forged = TokenMint(REALM.issuer, key=9)
        by = replace(POLICIES[adapter])
        reason = await reason_of(world, login_plan(by, forged, **LOGINS[adapter]), by)
        assert (reason, realm_of(world).refused) == ("exchange_denied", ["invalid_request"])


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        pytest.param(Reply(307, (("Location", "http://127.0.0.1:1/"),), b""), "sts_redirect", id="a redirect"),
        pytest.param(Reply(body=b" " * 10_000_000), "sts_too_large", id="a huge body"),
    ],
)
async def test_an_answer_that_leads_elsewhere_or_has_no_end_is_not_read(
    reply: Reply, reason: str, adapter: str
) -> None:
    async with at_realm(adapter, on_a_connection=True) as world:
        realm_of(world).behaviour = lambda _sts, _form: reply
        assert (await refusal(adapter, world))[0] == reason


@pytest.mark.parametrize(
    "may_act",
    [
        pytest.param(ABSENT, id="none"),
        pytest.param(str(WRITER), id="no object"),
        pytest.param({"client_id": str(WRITER)}, id="no account"),
        pytest.param({**MAY_ACT, "sub": ACCOUNTS[str(PLANNER)]}, id="another account"),
        pytest.param({**MAY_ACT, "client_id": str(PLANNER)}, id="another client"),
        pytest.param({"sub": ALICE}, id="the user"),
    ],
)
async def test_nobody_acts_whom_the_user_did_not_name(may_act: object) -> None:
    async with at_realm("keycloak-26.8", on_a_connection=True) as world:
        assert await refusal("keycloak-26.8", world, may_act=may_act) == ("exchange_denied", ["invalid_request"])


async def test_an_actor_token_that_is_no_token_of_the_realm_acts_for_nobody() -> None:
    async with at_realm("keycloak-26.8", on_a_connection=True) as world:
        realm_of(world).own = own(access_token=TokenMint(REALM.issuer, key=9).mint({"sub": "x"}))
        assert await refusal("keycloak-26.8", world) == ("exchange_denied", ["invalid_request"])


async def test_a_realm_without_the_feature_gives_a_token_without_act_which_is_not_used() -> None:
    async with at_realm("keycloak-26.8", realm("keycloak-26.7"), on_a_connection=True) as world:
        assert await refusal("keycloak-26.8", world) == ("sts_no_act", [])
        assert realm_of(world).forms[1]["actor_token"].count(".") == 2


async def test_the_own_token_is_asked_for_once_for_many_logins() -> None:
    by = POLICIES["keycloak-26.8"]
    async with at_realm("keycloak-26.8", on_a_connection=True) as world:
        for number in range(3):
            await world.exchange.exchange(login_plan(by, may_act=MAY_ACT, jti=f"onrtac:{number}"), by)
        kinds = [form["grant_type"].rpartition(":")[2] for form in world.sts.forms]
        assert kinds == ["client_credentials", *["token-exchange"] * 3]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        pytest.param(Reply(307, (("Location", "http://127.0.0.1:1/"),), b""), "sts_redirect", id="a redirect"),
        pytest.param(Reply(body=b" " * 10_000_000), "sts_too_large", id="a huge body"),
    ],
)
async def test_a_first_answer_that_leads_elsewhere_or_has_no_end_is_the_last(reply: Reply, reason: str) -> None:
    async with at_realm("keycloak-26.8", on_a_connection=True) as world:
        realm_of(world).own = lambda _sts, _form: reply
        assert (await refusal("keycloak-26.8", world))[0] == reason
        assert len(world.sts.forms) == 1
