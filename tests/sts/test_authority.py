from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from delegation_core.act import ActChain, Actor
from delegation_core.errors import Denied, Reason
from delegation_core.login_issuer import LoginKind
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import VerifiedToken
from sidecar.sts.authority import authority_of, login_issuer_for
from sidecar.sts.rules import SelfDelegation
from tests.fakes.sts import CRM_URL, FRONT, LOGIN, OTHER_LOGIN, scopes, small_policy
from tests.fakes.tokens import CRM, ISSUER, NOW, PLANNER, WRITER

DELEGATED: Final = VerifiedToken(
    raw="",
    fingerprint="",
    issuer=ISSUER,
    subject="alice",
    audience=WRITER,
    scope=scopes("docs.read"),
    expires_at=NOW + 100,
    txn="txn-1",
    sub_id=(LOGIN, "alice"),
    chain=ActChain((Actor(PLANNER),), {"sub": PLANNER}),
    claims={},
)
LOGGED_IN: Final = replace(
    DELEGATED,
    issuer=LOGIN,
    audience="front-app",
    sub_id=None,
    chain=None,
    claims={"groups": ["staff"]},
    scope=frozenset(),
)


@pytest.mark.parametrize(
    ("token", "client", "change", "reason"),
    [
        pytest.param(DELEGATED, WRITER, {"audience": CRM}, Reason.NOT_YOUR_TOKEN, id="issued to another workload"),
        pytest.param(
            DELEGATED, WRITER, {"audience": "front-app"}, Reason.NOT_YOUR_TOKEN, id="issued to an application"
        ),
        pytest.param(DELEGATED, WRITER, {"chain": None}, Reason.NOT_AN_ENTRY, id="without an actor"),
        pytest.param(DELEGATED, WRITER, {"expires_at": NOW}, Reason.TOKEN_EXPIRED, id="expired now"),
        pytest.param(
            LOGGED_IN, FRONT, {"audience": FRONT}, Reason.NOT_YOUR_TOKEN, id="a login at the workload's own name"
        ),
        pytest.param(LOGGED_IN, FRONT, {"client_id": "other"}, Reason.NOT_YOUR_TOKEN, id="a login at another client"),
        pytest.param(
            LOGGED_IN,
            FRONT,
            {"claims": {**LOGGED_IN.claims, "cid": "other"}},
            Reason.NOT_YOUR_TOKEN,
            id="a login that names two clients",
        ),
        pytest.param(LOGGED_IN, FRONT, {"issuer": OTHER_LOGIN}, Reason.NOT_AN_ENTRY, id="a login elsewhere"),
        pytest.param(LOGGED_IN, FRONT, {"chain": DELEGATED.chain}, Reason.TOKEN_TYPE, id="a login with an actor"),
        pytest.param(LOGGED_IN, FRONT, {"expires_at": NOW}, Reason.TOKEN_EXPIRED, id="a login that ended now"),
    ],
)
def test_a_token_that_stands_for_nothing_is_refused_and_its_twin_is_read(
    token: VerifiedToken, client: SpiffeId, change: dict[str, Any], reason: Reason
) -> None:
    with pytest.raises(Denied) as refused:
        authority_of(replace(token, **change), client=client, policy=small_policy(), now=NOW)
    assert refused.value.reason is reason
    assert authority_of(token, client=client, policy=small_policy(), now=NOW).subject == "alice"


def test_a_target_owns_its_other_names_too() -> None:
    token = replace(DELEGATED, audience=CRM_URL)
    assert authority_of(token, client=CRM, policy=small_policy(), now=NOW).txn == "txn-1"


def test_what_a_delegated_token_stands_for_is_what_it_says() -> None:
    authority = authority_of(DELEGATED, client=WRITER, policy=small_policy(), now=NOW)
    assert (authority.issuer, authority.subject, authority.sub_id) == (LOGIN, "alice", (LOGIN, "alice"))
    assert (authority.scope, authority.expires_at, authority.txn) == (scopes("docs.read"), NOW + 100, "txn-1")


def test_a_login_is_worth_what_its_issuers_map_says_and_starts_a_transaction() -> None:
    authority = authority_of(LOGGED_IN, client=FRONT, policy=small_policy(), now=NOW)
    assert (authority.scope, authority.txn) == (scopes("docs.read crm.read"), None)
    assert (authority.issued_subject, authority.sub_id) == ("alice", (LOGIN, "alice"))


def test_only_the_registered_entry_may_show_login_tokens() -> None:
    assert login_issuer_for(FRONT, LOGIN, small_policy()).client_id == "front-app"
    for client, issuer in ((PLANNER, LOGIN), (FRONT, OTHER_LOGIN)):
        with pytest.raises(Denied) as refused:
            login_issuer_for(client, issuer, small_policy())
        assert refused.value.reason is Reason.NOT_AN_ENTRY


OWN: Final = replace(DELEGATED, subject=str(PLANNER), client_id=str(PLANNER), sub_id=None, chain=None)
ONWARD: Final = SelfDelegation(workload=PLANNER, actor=WRITER, audience=CRM, scopes=scopes("crm.read"))


def test_a_workload_s_own_token_counts_for_an_actor_that_is_listed_for_it() -> None:
    policy = small_policy(self_delegations=(ONWARD,))
    authority = authority_of(OWN, client=WRITER, policy=policy, now=NOW)
    assert (authority.own, authority.issued_subject, authority.sub_id, authority.txn) == (True, PLANNER, None, "txn-1")
    assert not authority_of(DELEGATED, client=WRITER, policy=policy, now=NOW).own


@pytest.mark.parametrize(
    ("token", "onward", "reason"),
    [
        pytest.param(OWN, None, Reason.NOT_AN_ENTRY, id="nobody is listed"),
        pytest.param(OWN, replace(ONWARD, workload=CRM), Reason.NOT_AN_ENTRY, id="for another workload"),
        pytest.param(OWN, replace(ONWARD, actor=FRONT), Reason.NOT_AN_ENTRY, id="another actor"),
        pytest.param(replace(OWN, subject="alice"), ONWARD, Reason.NOT_AN_ENTRY, id="a user without an actor"),
        pytest.param(replace(OWN, sub_id=(LOGIN, "a")), ONWARD, Reason.NOT_AN_ENTRY, id="with a login behind it"),
        pytest.param(replace(OWN, audience=CRM), ONWARD, Reason.NOT_YOUR_TOKEN, id="issued for another target"),
        pytest.param(replace(OWN, subject=str(WRITER)), ONWARD, Reason.SELF_DELEGATION, id="started by the client"),
        pytest.param(
            replace(OWN, subject=str(WRITER), chain=DELEGATED.chain), ONWARD, Reason.SELF_DELEGATION, id="come back"
        ),
    ],
)
def test_it_starts_no_other_chain(token: VerifiedToken, onward: SelfDelegation | None, reason: Reason) -> None:
    policy = small_policy(self_delegations=() if onward is None else (onward,))
    with pytest.raises(Denied) as refused:
        authority_of(token, client=WRITER, policy=policy, now=NOW)
    assert refused.value.reason is reason


DOOR: Final = "https://tools.acme.example/mcp"


def with_door(**changes: Any) -> Any:
    policy = small_policy()
    entries = {name: replace(entry, door=DOOR) if name == FRONT else entry for name, entry in policy.entries.items()}
    logins = {
        name: replace(login, kind=LoginKind.ACCESS_TOKEN, **changes) for name, login in policy.login_issuers.items()
    }
    return replace(policy, entries=entries, login_issuers=logins)


def test_a_login_for_the_entrys_door_starts_a_chain_whatever_its_client() -> None:
    claims = {**LOGGED_IN.claims, "aud": DOOR, "azp": "an-ide"}
    shown = replace(LOGGED_IN, audience=DOOR, client_id="an-ide", claims=claims)
    policy = with_door()
    assert login_issuer_for(FRONT, LOGIN, policy, claims).audiences == {DOOR}
    assert authority_of(shown, client=FRONT, policy=policy, now=NOW).subject == "alice"
    for changes, against in (
        ({}, small_policy()),
        ({"aud": f"{DOOR}/x"}, policy),
        ({"aud": [DOOR, "front-app"]}, policy),
    ):
        other = replace(shown, claims={**claims, **changes})
        with pytest.raises(Denied) as refused:
            authority_of(other, client=FRONT, policy=against, now=NOW)
        assert refused.value.reason is Reason.NOT_YOUR_TOKEN
    with pytest.raises(Denied) as of_ids:
        login_issuer_for(FRONT, LOGIN, replace(policy, login_issuers=small_policy().login_issuers), claims)
    assert of_ids.value.reason is Reason.NOT_YOUR_TOKEN
