from __future__ import annotations

import base64
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final

import pytest

from delegation_core.decide import decide_observed, decide_observed_call, decide_plain
from delegation_core.errors import Denied, Reason
from delegation_core.observed import RELAXED, is_jwt, issuers_in, jwt_of, observed_bearer
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.reevaluate_exceptions import observed_again, observed_call_again
from delegation_core.verify import ANY_AUDIENCE, verify_token
from tests.core.world import (
    INBOUND_CLAIMS,
    NOW,
    PLANNER,
    POLICY,
    SEARCH,
    STS,
    STS_TRUST,
    TO_CRM,
    reason_of,
    signed,
    verification_key,
)

TOKEN = signed(INBOUND_CLAIMS).raw
UNTIL: Final = NOW + 100
OBSERVING: Final = replace(SEARCH, observe_until=UNTIL)
WATCHED: Final = replace(TO_CRM, observe_until=UNTIL)
VERIFIED: Final = verify_token(
    signed(INBOUND_CLAIMS), issuer=STS_TRUST, key=verification_key(), audiences=ANY_AUDIENCE, now=NOW
)
NARROW: Final = Denied(Reason.INSUFFICIENT_SCOPE)
BY_PLANNER: Final[dict[str, Any]] = {"token": VERIFIED, "peer": PLANNER, "route": OBSERVING, "policy": POLICY}


@pytest.mark.parametrize(
    "credential",
    ["sk-live-1", "a.b", "xoxb-1.2.3", "SG.abc.def", "eyJhbGciOiJub25lIn0", "AIza.", ".", "..", "\u00e9.x.y", ""],
)
def test_what_has_no_head_of_a_jwt_is_none(credential: str) -> None:
    assert not is_jwt(credential)


@pytest.mark.parametrize(
    "credential",
    [
        TOKEN,
        TOKEN.rpartition(".")[0],
        f"{TOKEN}.x.y",
        "eyJhbGciOiJub25lIn0..",
        "eyJhbGciOiJub25lIn0=.x.y",
        base64.urlsafe_b64encode(b" \n{}").decode() + ".x.y",
    ],
)
def test_what_begins_as_a_jwt_is_one_however_broken(credential: str) -> None:
    assert is_jwt(credential)


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"session={TOKEN}; see www.acme.example",
        f"v1.{TOKEN}.tail",
        TOKEN.partition(".")[2],
        TOKEN.split(".")[1],
        "e30." + base64.urlsafe_b64encode(f'{{"iss":"x","iss":"{STS}","iss":1}}'.encode()).decode() + ".",
    ],
    ids=["alone", "within", "with-a-prefix", "without-its-head", "its-claims-alone", "doubled-member"],
)
def test_the_issuer_of_a_token_is_found_within_a_text(text: str) -> None:
    assert STS in issuers_in(text)


def test_a_long_text_is_scanned_once() -> None:
    text = "a" * 1_000_000  # a search that begins again at each character would not end
    assert issuers_in(f"{text} {TOKEN}") == {STS}
    assert not is_jwt(text)


@pytest.mark.parametrize("text", ["", "sk-live-1", "www.acme.example", STS, "eyJhbGciOiJub25lIn0.x.y", "W10.WzFd."])
@pytest.mark.parametrize("nested", ["", ".eyJzdWJfaWQiOnsiaXNzIjoieCJ9fQ.", ".W3siaXNzIjoieCJ9XQ."])
def test_what_is_no_token_has_no_issuer(text: str, nested: str) -> None:
    assert issuers_in(f"{text} e30{nested}") == set()


def test_two_credentials_are_no_jwt_and_refused() -> None:
    bearer = f"Bearer {TOKEN}".encode()
    found = jwt_of([bearer])
    assert found is not None
    assert found.raw == TOKEN
    assert jwt_of([]) is None
    with pytest.raises(Denied) as refused:
        jwt_of([bearer, bearer])
    assert refused.value.reason is Reason.HEADER_MALFORMED


def test_the_closed_list_is_the_documented_one() -> None:
    assert {
        "no_token", "malformed_token", "act_missing", "actor_mismatch", "wrong_audience", "insufficient_scope",
        "policy_denied",
    } == RELAXED  # fmt: skip


@pytest.mark.parametrize("reason", sorted(set(Reason) - RELAXED))
def test_any_other_reason_stays(reason: Reason) -> None:
    with pytest.raises(Denied, match=reason):
        observed_bearer(Denied(reason), [f"Bearer {TOKEN}".encode()])


def test_a_jwt_that_is_shown_is_read_and_another_credential_is_not() -> None:
    denied = Denied(Reason.MALFORMED_TOKEN)
    assert observed_bearer(denied, [b"Bearer sk-live-1"]) is None
    assert observed_bearer(Denied(Reason.NO_TOKEN), []) is None
    found = observed_bearer(Denied(Reason.ACT_MISSING), [f"Bearer {TOKEN}".encode()])
    assert found is not None
    assert found.raw == TOKEN
    with pytest.raises(Denied, match="malformed_token"):
        observed_bearer(denied, [f"Bearer {TOKEN}.x".encode()])


@pytest.mark.parametrize(
    ("denied", "changes", "passes"),
    [
        pytest.param(NARROW, {}, True, id="lawful"),
        pytest.param(NARROW, {"now": UNTIL - 1}, True, id="in the last second"),
        pytest.param(NARROW, {"now": UNTIL}, False, id="afterwards"),
        pytest.param(NARROW, {"route": SEARCH}, False, id="a route that does not observe"),
        pytest.param(Denied(Reason.REVOKED), {}, False, id="a reason that is never relaxed"),
        pytest.param(Denied(Reason.NO_TOKEN), {"token": None}, True, id="no token"),
        pytest.param(NARROW, {"token": None}, False, id="no token, where the reason is of a token"),
    ],
)
def test_a_request_passes_only_for_a_relaxed_reason_on_a_route_that_observes(
    denied: Denied, changes: dict[str, Any], passes: bool
) -> None:
    asked = BY_PLANNER | {"now": NOW} | changes
    assert reason_of(decide_observed, denied, **asked) == (None if passes else denied.reason)


def test_an_issuers_ceiling_of_scopes_is_never_relaxed() -> None:
    lower = replace(POLICY, issuers={STS: replace(STS_TRUST, scopes=frozenset({"docs.read"}))})
    asked = BY_PLANNER | {"policy": lower, "now": NOW}
    assert reason_of(decide_observed, NARROW, **asked) is Reason.SCOPE_ABOVE_CEILING


# A token of the user alone, as the agent's callers without TLS may have one.
OF_ALICE: Final = replace(VERIFIED, chain=None, actor_id=None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({}, None, id="lawful"),
        pytest.param({"token": None}, None, id="without a token"),
        pytest.param({"token": VERIFIED}, Reason.ACTOR_MISMATCH, id="a delegated token"),
        pytest.param({"until": NOW}, Reason.POLICY_DENIED, id="when requests without TLS have ended"),
        pytest.param({"route": SEARCH}, Reason.POLICY_DENIED, id="a route that does not observe"),
    ],
)
def test_a_request_without_tls_passes_without_an_actor_before_its_day(
    changes: dict[str, Any], reason: Reason | None
) -> None:
    asked = {"token": OF_ALICE, "route": OBSERVING, "policy": POLICY, "now": NOW, "until": UNTIL} | changes
    token = asked.pop("token")
    assert reason_of(decide_plain, token, **asked) is reason


@pytest.mark.parametrize(
    ("denied", "changes", "passes"),
    [
        pytest.param(Reason.NO_REQUEST_CONTEXT, {}, True, id="lawful"),
        pytest.param(Reason.NO_REQUEST_CONTEXT, {"issuers": ("https://api.example",)}, True, id="a strangers' token"),
        pytest.param(Reason.NO_REQUEST_CONTEXT, {"issuers": (STS,)}, False, id="a token of a known issuer"),
        pytest.param(Reason.NO_REQUEST_CONTEXT, {"now": UNTIL}, False, id="afterwards"),
        pytest.param(Reason.NO_REQUEST_CONTEXT, {"route": TO_CRM}, False, id="a route that does not observe"),
        pytest.param(Reason.REVOKED, {}, False, id="a reason that is never relaxed"),
    ],
)
def test_a_call_passes_only_for_a_relaxed_reason_without_a_token_of_ours(
    denied: Reason, changes: dict[str, Any], passes: bool
) -> None:
    asked = {"issuers": (), "route": WATCHED, "policy": POLICY, "now": NOW} | changes
    assert reason_of(decide_observed_call, Denied(denied), **asked) is (None if passes else denied)


KEYS: Final = SimpleNamespace(find=lambda _issuer, _kid: verification_key(), known=lambda _: True)
STRANGERS: Final = replace(POLICY, issuers={}, token_services=frozenset())
SHORTER: Final = replace(OBSERVING, observe_until=UNTIL - 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({}, None, id="lawful"),
        pytest.param({"route": SHORTER}, Reason.INSUFFICIENT_SCOPE, id="the route observes less long"),
        pytest.param({"policy": STRANGERS}, Reason.WRONG_ISSUER, id="an issuer that is no longer trusted"),
    ],
)
def test_an_observed_request_in_flight_is_judged_again(changes: dict[str, Any], reason: Reason | None) -> None:
    permit = decide_observed(NARROW, now=NOW, **BY_PLANNER)
    asked: dict[str, Any] = {"route": OBSERVING, "policy": POLICY, "keys": KEYS, "now": NOW, "plain_until": 0}
    assert reason_of(observed_again, permit, peer_certificate_sha256=None, **asked | changes) is reason


def test_an_observed_call_in_flight_is_judged_again() -> None:
    denied = Denied(Reason.NO_REQUEST_CONTEXT)
    permit = decide_observed_call(denied, issuers=(), route=WATCHED, policy=POLICY, now=NOW)

    def again(route: Any) -> Reason | None:
        return reason_of(observed_call_again, permit, policy=replace(POLICY, outbound=OutboundRoutes([route])), now=NOW)

    assert again(WATCHED) is None
    assert again(replace(WATCHED, observe_until=UNTIL - 1)) is denied.reason
    assert again(replace(WATCHED, audience="another")) is Reason.TARGET_DENIED


def test_a_request_to_the_agent_is_not_judged_again_as_a_call_of_it() -> None:
    permit = decide_observed(NARROW, now=NOW, **BY_PLANNER)
    with pytest.raises(Denied) as refused:
        observed_call_again(permit, policy=POLICY, now=NOW)
    assert refused.value.reason is Reason.TARGET_DENIED
