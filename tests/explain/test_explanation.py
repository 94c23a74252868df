import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import Denied, Reason
from delegation_core.policy import Deny
from delegation_core.records.reading import Record, record_of
from delegation_core.revocation import NO_NAMES, Use
from sidecar.explain import judge_door, judge_exchange, judge_inbound, judge_outbound
from sidecar.explain.explanation import NOT_IN_SETTINGS, explain
from sidecar.explain.judgement import Check
from sidecar.explain.recorded_token import token_of
from tests.audit.evidence import record
from tests.core.world import CRM, PLANNER, POLICY
from tests.explain.judged import inbound, refused_outbound

DENY_FILE = Path("/etc/sidecar/deny.json")
NO_REFUSAL = {
    # after the permit: the decision stays allow
    Reason.NEXT_HOP_REFUSED, Reason.UPSTREAM_ABORTED, Reason.UPSTREAM_BAD_RESPONSE, Reason.UPSTREAM_IDENTITY,
    Reason.UPSTREAM_TIMEOUT, Reason.UPSTREAM_UNREACHABLE, Reason.LIST_UNREADABLE, Reason.CREDENTIAL_EXPOSED,
    # of other events, or of logins, which are not judged
    Reason.TLS_VERSION, Reason.ORDER_REFUSED, *(reason for reason in Reason if reason.startswith("login_")),
}  # fmt: skip
DENIES = {
    "actor": Deny(actors=frozenset({str(PLANNER)})),
    "txn": Deny(txns=frozenset({"txn-1"})),
    "jti": Deny(jtis=frozenset({"token-1"})),
    "subject": Deny(subjects=frozenset({(None, "alice")})),
}


def reasons(checks: tuple[Check, ...]) -> frozenset[Reason]:
    return frozenset().union(*(check.reasons for check in checks))


@pytest.mark.parametrize("reason", list(Reason))
def test_each_reason_is_judged_by_settings_or_in_none_or_refuses_nothing(reason: Reason) -> None:
    of_requests = reasons((*judge_inbound.CHECKS, *judge_outbound.CHECKS, *judge_door.CHECKS))
    of_exchanges = reasons((*judge_exchange.CHECKS, *judge_exchange.OWN_CHECKS))
    assert of_exchanges & NOT_IN_SETTINGS.keys() == {Reason.REVOKED, Reason.AUDIT_UNAVAILABLE}
    lists = (of_requests, of_exchanges - of_requests - NOT_IN_SETTINGS.keys(), NOT_IN_SETTINGS.keys(), NO_REFUSAL)
    assert [reason in one for one in lists].count(True) == 1, (
        f"explain must know {reason} once: in a Check of sidecar/explain/judge_*.py, in the order of the sidecar's own"
        " checks; in NOT_IN_SETTINGS of sidecar/explain/explanation.py, if no settings tell of it; or in NO_REFUSAL of"
        " this test, if it only ends a permitted request"
    )


@pytest.mark.parametrize("reason", sorted(NOT_IN_SETTINGS))
@pytest.mark.parametrize("side", ["inbound", "outbound"])
def test_a_fact_that_settings_do_not_hold_is_not_judged(reason: Reason, side: str) -> None:
    one = inbound(decision="deny", reason=reason) if side == "inbound" else refused_outbound(reason)
    explanation = explain(one, POLICY)
    assert explanation.verdict() == f"recorded: deny {reason}; not judged again: {NOT_IN_SETTINGS[reason]}"
    assert explanation.agrees
    earlier = explain(replace(one, path="/%2e%2e/x"), POLICY)  # no order was ever asked for
    assert earlier.verdict().startswith(f"recorded: deny {reason}; judged again: deny path_refused")
    assert not earlier.agrees


@pytest.mark.parametrize("reason", sorted(NO_REFUSAL))
def test_a_refusal_for_what_happens_only_after_a_permit_is_judged_and_contradicted(reason: Reason) -> None:
    assert not explain(inbound(decision="deny", reason=reason), POLICY).agrees
    assert explain(inbound(reason=reason), POLICY).agrees


def test_a_revoked_request_is_a_question_to_the_token_service() -> None:
    told = explain(inbound(decision="deny", reason="revoked"), POLICY).verdict()
    assert "the order is in no settings (reason revoked); ask the token service: `sidecar sts revoke --list " in told


@pytest.mark.parametrize("reason", ["revoked", "revocations_stale"])
def test_a_revoked_request_stays_unjudged_if_only_a_later_check_refuses_it_now(reason: str) -> None:
    scopeless = inbound(decision="deny", reason=reason, scope=[])
    assert explain(scopeless, POLICY).judgement is None
    assert explain(scopeless, replace(POLICY, deny=DENIES["txn"])).judgement is not None  # it is in these settings


def denied_by(deny: Deny) -> Record:
    """Return the record of a request that this deny list refused, with the detail of the product's own refusal."""
    with pytest.raises(Denied) as error:
        deny.check(Use(token_of(inbound()), PLANNER, NO_NAMES))
    return inbound(decision="deny", reason="policy_denied", detail=error.value.detail)


@pytest.mark.parametrize("kind", DENIES)
def test_a_denial_by_a_deny_file_that_is_not_here_is_not_judged(kind: str) -> None:
    denied = denied_by(DENIES[kind])
    explanation = explain(denied, POLICY, missing_deny_file=DENY_FILE)
    assert "not judged again: /etc/sidecar/deny.json is the deny file of these settings" in explanation.verdict()
    assert explanation.agrees
    assert not explain(denied, POLICY).agrees  # every row that counts is here
    other = replace(denied, detail="the peer is not listed in the route's peers")
    assert not explain(other, POLICY, missing_deny_file=DENY_FILE).agrees
    in_settings = explain(denied, replace(POLICY, deny=DENIES[kind]), missing_deny_file=DENY_FILE)
    assert "judged again: the same, decided by: deny list" in in_settings.verdict()
    earlier = explain(replace(denied, path="/none"), POLICY, missing_deny_file=DENY_FILE)
    assert "judged again: deny no_route" in earlier.verdict()


@pytest.mark.parametrize("changes", [{"reason": "revoked"}, {"reason": "policy_denied", "detail": "on the deny list"}])
def test_a_permit_is_judged_whatever_it_claims(changes: dict[str, Any]) -> None:
    forged = inbound(decision="allow", peer=str(CRM), **changes)
    assert not explain(forged, POLICY, missing_deny_file=DENY_FILE).agrees


def test_a_refusal_is_explained_with_who_must_act() -> None:
    explanation = explain(inbound(decision="deny", reason="actor_mismatch", peer=str(CRM), detail="x"), POLICY)
    assert explanation.verdict() == (
        "recorded: deny actor_mismatch; judged again: the same, decided by: actor is the peer"
    )
    document = json.loads(json.dumps(explanation.document()))
    assert document["agrees"] is True
    assert document["decided_by"] == "actor is the peer"
    assert document["guidance"]["who"] == ["security"]
    assert document["guidance"]["agent_developer_sees"].endswith("403 `actor_mismatch`")
    assert document["recorded"] == {"decision": "deny", "reason": "actor_mismatch", "detail": "x"}
    assert any("signature" in sentence for sentence in document["unprovable"])


def test_a_record_that_the_policy_contradicts_is_called_that() -> None:
    explanation = explain(inbound(peer=str(CRM)), POLICY)
    assert not explanation.agrees
    assert explanation.verdict() == (
        "recorded: allow ok; judged again: deny actor_mismatch, decided by: actor is the peer."
        " The settings have changed since, or are not this workload's, or the record is false"
    )


def test_what_cannot_be_proven_is_said_to_be_the_records_word() -> None:
    explanation = explain(refused_outbound("calls_exhausted"), POLICY)
    assert explanation.verdict() == ("recorded: deny calls_exhausted; decided by: calls left, as the record says")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({"event": "connection.refused", "reason": "bad_svid"}, "is not a request of an agent", id="event"),
        pytest.param({"direction": None}, "whether the request was inbound or outbound", id="no-direction"),
        pytest.param({"direction": "outbound", "path": "/.sidecar/subject"}, "a login was shown", id="login"),
        pytest.param({"op": "GetAgentCard"}, "an agent's card was asked for", id="card"),
        pytest.param({"decision": None, "reason": None}, "there was no decision yet", id="undecided"),
        pytest.param({"peer": None}, "the record names no peer", id="no-peer"),
    ],
)
def test_what_is_not_judged_says_why_and_is_explained_all_the_same(changes: dict[str, object], why: str) -> None:
    explanation = explain(inbound(**{"decision": "deny", "reason": "act_missing", **changes}), POLICY)
    assert why in explanation.verdict()
    assert explanation.judgement is None
    assert explanation.agrees
    assert (explanation.guidance is None) is (explanation.record.reason is None)


def test_without_settings_the_reason_alone_is_explained() -> None:
    explanation = explain(inbound(decision="deny", reason="act_missing"), None)
    assert explanation.reason is Reason.ACT_MISSING
    assert "there are no settings to judge by; --config names" in explanation.verdict()


@pytest.mark.parametrize("reason", ["ok", None, "no_such_code"])
def test_what_is_no_reason_code_has_no_advice(reason: str | None) -> None:
    assert explain(inbound(reason=reason), POLICY).guidance is None


def test_an_event_without_reason_is_explained_too() -> None:
    started = record_of(record(event="started", ts="t", run="r", seq=1))
    assert explain(started, POLICY).document()["checks"] == []
