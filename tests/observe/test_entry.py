from collections.abc import AsyncIterator

import pytest

from delegation_core.decide import accept_issued, decide_inbound
from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.permit import IssuedPermit, Permit
from delegation_core.plan import Plan
from sidecar.observe.access_log import AccessLog
from sidecar.observe.attribution import facts_of_issued
from sidecar.observe.metrics import Metrics
from tests.core.world import (
    CRM,
    FRONT,
    IDP,
    INBOUND_CLAIMS,
    ISSUED_CLAIMS,
    LOGIN_CLAIMS,
    NOW,
    PLANNER,
    POLICY,
    SEARCH,
    STS,
    WRITER,
    plan,
    signed,
    verification_key,
    verified,
)
from tests.fakes.sink import FakeSink


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink()


@pytest.fixture
async def log(sink: FakeSink) -> AsyncIterator[AccessLog]:
    log = AccessLog(sink, run="r1", metrics=Metrics())
    log.metrics.declare_routes("inbound", ["search"])
    yield log
    await log.close()


def permit() -> Permit:
    bearer = signed(INBOUND_CLAIMS)
    return decide_inbound(bearer, peer=PLANNER, route=SEARCH, key=verification_key(), policy=POLICY, now=NOW)


def issued_permit(planned: Plan) -> IssuedPermit:
    return accept_issued(signed(ISSUED_CLAIMS), plan=planned, key=verification_key(), policy=POLICY, now=NOW)


def test_a_permitted_request_is_attributed_to_subject_and_whole_chain(sink: FakeSink, log: AccessLog) -> None:
    permitted = permit()
    entry = log.reserve()
    entry.attribute(permitted)
    entry.close()
    (record,) = sink.wait_for_records(1)
    said = {
        "decision": "allow",
        "reason": "ok",
        "peer": PLANNER,
        "subject": "alice",
        "subject_iss": STS,
        "actor": PLANNER,
        "chain": [PLANNER, FRONT],
        "chain_depth": 2,
        "client_id": PLANNER,
        "audience": WRITER,
        "scope": ["crm.read", "docs.read"],
        "scope_needed": ["docs.read"],
        "route": "search",
        "jti_in": "token-2",
        "jti_out": None,
        "parent_jti": "token-1",
        "txn": "txn-1",
        "fp": permitted.token.fingerprint,
        "verified": True,
    }
    assert {name: record[name] for name in said} == said
    assert permitted.token.raw.encode() not in sink.data


def test_an_outbound_record_names_the_issued_token_and_the_one_it_came_from(sink: FakeSink, log: AccessLog) -> None:
    permitted = issued_permit(plan())
    entry = log.reserve("outbound")
    entry.attribute_token(verified(INBOUND_CLAIMS))
    entry.permitted(facts_of_issued(permitted))
    entry.close()
    (record,) = sink.wait_for_records(1)
    said = {
        "decision": "allow",
        "peer": CRM,
        "actor": WRITER,
        "chain": [WRITER, PLANNER, FRONT],
        "audience": CRM,
        "scope": ["crm.read"],
        "scope_needed": ["crm.read"],
        "route": "crm",
        "jti_in": "token-2",
        "jti_out": "token-3",
        "parent_jti": "token-2",
        "fp": permitted.token.fingerprint,
    }
    assert {name: record[name] for name in said} == said


def test_an_issued_token_without_parent_still_leads_back_to_the_one_it_came_from(
    sink: FakeSink, log: AccessLog
) -> None:
    bearer = signed({name: value for name, value in ISSUED_CLAIMS.items() if name != "parent_jti"})
    entry = log.reserve("outbound")
    permit = accept_issued(bearer, plan=plan(), key=verification_key(), policy=POLICY, now=NOW)
    entry.permitted(facts_of_issued(permit))
    entry.close()
    (record,) = sink.wait_for_records(1)
    assert (record["jti_in"], record["parent_jti"]) == ("token-2", "token-2")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param(Unavailable(Reason.UPSTREAM_TIMEOUT), 504, id="the-upstream-failed"),
        pytest.param(Denied(Reason.PEER_GONE), None, id="the-peer-went-away"),
    ],
)
def test_after_a_permit_the_decision_stands_and_the_reason_says_how_it_ended(
    error: Denied | Unavailable, status: int | None, sink: FakeSink, log: AccessLog
) -> None:
    entry = log.reserve()
    entry.attribute(permit())
    entry.refuse(error)
    entry.close()
    (record,) = sink.wait_for_records(1)
    assert (record["decision"], record["reason"], record["status"]) == ("allow", error.reason, status)


@pytest.mark.parametrize(
    ("withdrawn", "ends_by_it", "decision"),
    [(False, True, "allow"), (True, True, "deny"), (True, False, "allow")],
    ids=["its-time-was-over", "withdrawn", "its-peer-left-first"],
)
def test_the_decision_is_the_one_that_ended_the_request(
    sink: FakeSink, log: AccessLog, withdrawn: bool, ends_by_it: bool, decision: str
) -> None:
    entry, error = log.reserve(), Denied(Reason.POLICY_DENIED)
    entry.attribute(permit())
    entry.opened()
    if withdrawn:
        entry.withdraw(error, begun=True)
    ended = error if ends_by_it else Denied(Reason.PEER_GONE)
    entry.refuse(ended)
    entry.close()
    opened, record = sink.wait_for_records(2)
    assert (opened["decision"], opened["reason"]) == ("allow", "ok")
    assert (record["decision"], record["reason"], record["decide_ms"] is None) == (decision, ended.reason, False)


def test_a_permit_that_is_withdrawn_before_the_first_byte_is_none(sink: FakeSink, log: AccessLog) -> None:
    entry, error = log.reserve(), Denied(Reason.POLICY_DENIED)
    entry.attribute(permit())
    entry.withdraw(error, begun=False)
    entry.refuse(error)
    entry.close()
    (record,) = sink.wait_for_records(1)
    assert (record["decision"], record["reason"], record["decide_ms"]) == ("deny", "policy_denied", None)


def test_a_verified_token_alone_is_no_permit(sink: FakeSink, log: AccessLog) -> None:
    entry = log.reserve()
    entry.attribute_token(verified(INBOUND_CLAIMS))
    entry.refuse(Denied(Reason.POLICY_DENIED))
    entry.close()
    (record,) = sink.wait_for_records(1)
    assert (record["decision"], record["verified"], record["subject"]) == ("deny", True, "alice")
    assert log.metrics.finished.counted().chain_depth.total == 0


def test_what_a_token_says_that_did_not_verify_is_marked(sink: FakeSink, log: AccessLog) -> None:
    entry = log.reserve()
    entry.claim_unverified(signed(INBOUND_CLAIMS))
    entry.refuse(Denied(Reason.BAD_SIGNATURE))
    entry.close()
    (record,) = sink.wait_for_records(1)
    assert (record["verified"], record["subject"], record["actor"]) == (False, "alice", PLANNER)
    assert record["chain"] == [PLANNER, FRONT]


def test_claims_of_odd_types_are_left_out_while_they_are_not_verified(sink: FakeSink, log: AccessLog) -> None:
    odd = {**INBOUND_CLAIMS, "sub": 7, "aud": ["a"], "jti": True, "scope": {"a": 1}, "act": "me", "txn": None}
    entry = log.reserve()
    entry.claim_unverified(signed(odd))
    entry.close()
    (record,) = sink.wait_for_records(1)
    assert [record[name] for name in ("subject", "audience", "jti_in", "scope", "chain", "txn")] == [None] * 6


def test_a_token_that_verifies_after_all_replaces_what_it_claimed(sink: FakeSink, log: AccessLog) -> None:
    entry = log.reserve()
    entry.claim_unverified(signed({**INBOUND_CLAIMS, "sub": "mallory"}))
    entry.attribute_token(verified(INBOUND_CLAIMS))
    entry.close()
    (record,) = sink.wait_for_records(1)
    assert (record["verified"], record["subject"]) == (True, "alice")


def test_a_login_token_has_no_chain(sink: FakeSink, log: AccessLog) -> None:
    entry = log.reserve("outbound")
    entry.attribute_token(verified(LOGIN_CLAIMS))
    entry.close()
    (record,) = sink.wait_for_records(1)
    assert (record["subject_iss"], record["chain"], record["chain_depth"], record["actor"]) == (IDP, None, None, None)


def test_a_permitted_request_is_counted_with_its_decision_time_and_depth(log: AccessLog) -> None:
    entry = log.reserve()
    entry.attribute(permit())
    entry.close()
    metrics = log.metrics
    assert metrics.requests["inbound", "search", "allow", "ok"] == 1
    finished = metrics.finished.counted()
    assert finished.decision_seconds["inbound"].up_to[-1] == 1
    assert finished.chain_depth.total == 2


def test_hostile_claims_of_a_refused_token_come_out_escaped(sink: FakeSink, log: AccessLog) -> None:
    entry = log.reserve()
    entry.claim_unverified(signed({**INBOUND_CLAIMS, "sub": 'x"\n{"event":"request"}\u202e\x1b[2J'}))
    entry.close()
    (record,) = sink.wait_for_records(1)
    assert record["subject"] == 'x"\\u{a}{"event":"request"}\\u{202e}\\u{1b}[2J'
    assert sink.data.count(b"\n") == 1


def test_a_permitted_request_is_opened_with_all_that_is_known_of_it(sink: FakeSink, log: AccessLog) -> None:
    entry = log.reserve()
    entry.attribute(permit())
    entry.opened()
    entry.close()
    opened, closed = sink.wait_for_records(2)
    assert (opened["event"], opened["decision"], opened["reason"]) == ("request.opened", "allow", "ok")
    assert opened["total_ms"] is None
    later = {"event", "seq", "total_ms", "prev"}
    assert {name: opened[name] for name in opened.keys() - later} == {
        name: closed[name] for name in closed.keys() - later
    }
