"""A fresh login, with one fact changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from delegation_core.decide import check_again, decide_own, decide_verified, delegate
from delegation_core.errors import Denied, Reason
from delegation_core.human import Human
from delegation_core.inbound_routes import InboundRoutes
from delegation_core.keyset import VerificationKey
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.policy import Policy
from delegation_core.reevaluate import inbound_again
from delegation_core.reevaluate_exceptions import own_again
from delegation_core.route import InboundRoute
from delegation_core.verify import VerifiedToken, verify_token
from tests.core.test_connect import KEYS
from tests.core.test_outside import MODEL, OPEN
from tests.core.world import (
    INBOUND_CLAIMS,
    NOW,
    PLANNER,
    POLICY,
    SEARCH,
    STS_TRUST,
    WRITER,
    reason_of,
    signed,
    verification_key,
    verified,
)

HUMAN = Human(max_age_s=120, acr=("phrh", "phr"))
ROUTE = replace(SEARCH, human=HUMAN)
LOGIN = {"auth_time": NOW - 60, "acr": "phr"}
MUTE = object()


def token(**login: Any) -> VerifiedToken:
    claims = {**INBOUND_CLAIMS, **LOGIN, **login}
    return verified({name: value for name, value in claims.items() if value is not MUTE})


def policy(route: InboundRoute) -> Policy:
    return replace(POLICY, inbound=InboundRoutes([route]))


def judge(token: VerifiedToken, route: InboundRoute = ROUTE, now: int = NOW) -> Reason | None:
    return reason_of(lambda: decide_verified(token, peer=PLANNER, route=route, policy=policy(route), now=now))


@pytest.mark.parametrize(
    ("login", "found"),
    [
        pytest.param({}, None, id="as required"),
        pytest.param({"acr": "phrh"}, None, id="the other strength"),
        pytest.param({"auth_time": NOW - 120}, None, id="as old as it may be"),
        pytest.param({"auth_time": NOW + 30}, None, id="by a clock ahead of ours, within the leeway"),
        pytest.param({"auth_time": NOW - 60.5}, None, id="a fraction of a second"),
        pytest.param({"auth_time": NOW - 121}, Reason.STEP_UP_REQUIRED, id="too old"),
        pytest.param({"auth_time": NOW - 120.5}, Reason.STEP_UP_REQUIRED, id="too old by half a second"),
        pytest.param({"auth_time": 0}, Reason.STEP_UP_REQUIRED, id="as old as the epoch"),
        pytest.param({"auth_time": NOW + 31}, Reason.STEP_UP_REQUIRED, id="in the future"),
        pytest.param({"auth_time": MUTE}, Reason.STEP_UP_REQUIRED, id="no time"),
        pytest.param({"auth_time": None}, Reason.STEP_UP_REQUIRED, id="null"),
        pytest.param({"auth_time": True}, Reason.STEP_UP_REQUIRED, id="true"),
        pytest.param({"auth_time": str(NOW - 60)}, Reason.STEP_UP_REQUIRED, id="text"),
        pytest.param({"auth_time": [NOW]}, Reason.STEP_UP_REQUIRED, id="a list"),
        pytest.param({"acr": MUTE}, Reason.STEP_UP_REQUIRED, id="no strength"),
        pytest.param({"acr": "pwd"}, Reason.STEP_UP_REQUIRED, id="another strength"),
        pytest.param({"acr": "PHR"}, Reason.STEP_UP_REQUIRED, id="another case"),
        pytest.param({"acr": "phr phrh"}, Reason.STEP_UP_REQUIRED, id="both in one"),
        pytest.param({"acr": ["phr"]}, Reason.STEP_UP_REQUIRED, id="a list of strengths"),
        pytest.param({"acr": None}, Reason.STEP_UP_REQUIRED, id="no strength at all"),
    ],
)
def test_a_login_is_as_recent_and_as_strong_as_the_route_requires(login: dict[str, Any], found: Reason | None) -> None:
    assert judge(token(**login)) is found
    assert judge(token(**login), SEARCH) is None


@pytest.mark.parametrize(
    ("human", "login"),
    [(Human(max_age_s=120), {"acr": MUTE}), (Human(acr=("phr",)), {"auth_time": MUTE})],
    ids=["age alone", "strength alone"],
)
def test_what_a_route_does_not_ask_for_may_be_missing(human: Human, login: dict[str, Any]) -> None:
    assert judge(token(**login), replace(ROUTE, human=human)) is None
    assert judge(token(auth_time=MUTE, acr=MUTE), replace(ROUTE, human=human)) is Reason.STEP_UP_REQUIRED


def test_authority_is_judged_before_the_login() -> None:
    old = token(auth_time=0)
    assert judge(replace(old, scope=frozenset())) is Reason.INSUFFICIENT_SCOPE
    assert judge(old, replace(ROUTE, peers=frozenset({WRITER}))) is Reason.POLICY_DENIED


def test_a_remembered_permit_ends_when_the_login_is_too_old() -> None:
    permit = decide_verified(token(), peer=PLANNER, route=ROUTE, policy=policy(ROUTE), now=NOW)
    check_again(permit, NOW + 60)
    with pytest.raises(Denied, match="step_up_required"):
        check_again(permit, NOW + 61)
    assert delegate(permit).ends_at == NOW + 61


@pytest.mark.parametrize(
    ("route", "login", "ends_at"),
    [
        (SEARCH, {}, NOW + 290),
        (replace(ROUTE, human=Human(acr=("phr",))), {}, NOW + 290),
        (replace(ROUTE, human=Human(max_age_s=3600)), {}, NOW + 290),
        (ROUTE, {"auth_time": NOW}, NOW + 121),
    ],
    ids=["no login required", "of any age", "the token ends first", "the login is too old first"],
)
def test_authority_ends_with_the_token_or_the_login(route: InboundRoute, login: dict[str, Any], ends_at: int) -> None:
    permit = decide_verified(token(**login), peer=PLANNER, route=route, policy=policy(route), now=NOW)
    assert delegate(permit).ends_at == ends_at


class Keys:
    def find(self, _issuer: str, _kid: str | None) -> VerificationKey:
        return verification_key()

    def known(self, _issuer: str) -> bool:
        return True


@pytest.mark.parametrize(
    ("route", "found"),
    [
        pytest.param(ROUTE, None, id="as before"),
        pytest.param(replace(ROUTE, human=Human(max_age_s=59)), Reason.STEP_UP_REQUIRED, id="a younger login"),
        pytest.param(replace(ROUTE, human=Human(acr=("phrh",))), Reason.STEP_UP_REQUIRED, id="a stronger login"),
    ],
)
def test_a_request_under_way_is_judged_by_the_login_that_is_required_now(
    route: InboundRoute, found: Reason | None
) -> None:
    bearer = signed(INBOUND_CLAIMS | LOGIN)
    kept = verify_token(bearer, issuer=STS_TRUST, key=verification_key(), audiences={str(WRITER)}, now=NOW, slim=True)
    assert kept.claims["auth_time"] == NOW - 60
    permit = decide_verified(kept, peer=PLANNER, route=ROUTE, policy=policy(ROUTE), now=NOW)

    def again(now: int) -> Reason | None:
        return reason_of(
            lambda: inbound_again(
                kept,
                peer=PLANNER,
                route=route,
                keys=Keys(),
                policy=policy(route),
                now=now,
                peer_certificate_sha256="00" * 32,
                ends_at=delegate(permit).ends_at,
            )
        )

    assert again(NOW) is found
    assert again(NOW + 1000) is found  # expiry is no withdrawal: the answer to a request may finish


@pytest.mark.parametrize(
    "wrong", [{}, {"max_age_s": 0}, {"acr": ("",)}, {"acr": ("a b",)}, {"acr": ('a"',)}, {"acr": ("a\\",)}]
)
def test_a_requirement_that_says_nothing_or_cannot_be_told_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"login|max_age_s|acr"):
        Human(**wrong)


def test_the_challenge_tells_what_a_front_app_asks_its_provider_for() -> None:
    assert HUMAN.challenge == (("max_age", "120"), ("acr_values", "phrh phr"))
    assert Human(max_age_s=5).challenge == (("max_age", "5"),)
    assert Human(acr=("phr",)).challenge == (("acr_values", "phr"),)


@pytest.mark.parametrize("later_s", [0, 1000])
def test_a_call_with_a_static_key_ends_with_the_login_and_is_judged_as_of_then(later_s: int) -> None:
    permit = decide_verified(token(), peer=PLANNER, route=ROUTE, policy=policy(ROUTE), now=NOW)
    shown = replace(delegate(permit), may_call=OPEN, came_by=None)
    outside = replace(POLICY, outbound=OutboundRoutes([MODEL]))
    path = "/v1/messages"
    own = decide_own(shown, MODEL, method="POST", path=path, policy=outside, now=NOW)
    assert own.ends_at == NOW + 61
    own_again(own, keys=KEYS, policy=outside, now=NOW + later_s)
    with pytest.raises(Denied, match="token_expired"):
        decide_own(shown, MODEL, method="POST", path=path, policy=outside, now=NOW + 61)
