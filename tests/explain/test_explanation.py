import json

import pytest

from sidecar.audit.records import record_of
from sidecar.errors import Reason
from sidecar.explain.explanation import explain
from tests.audit.evidence import record
from tests.delegation.world import CRM, POLICY
from tests.explain.judged import inbound, refused_outbound


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
