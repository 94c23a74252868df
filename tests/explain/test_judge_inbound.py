from dataclasses import replace
from typing import Any

import pytest

from delegation_core.errors import Reason
from delegation_core.human import Human
from delegation_core.inbound_routes import InboundRoutes
from delegation_core.operation import Operations
from delegation_core.policy import Deny, Policy
from delegation_core.spiffe_id import TrustDomain
from sidecar.explain.judge_inbound import CHECKS, judge_inbound
from sidecar.explain.judgement import OK, Outcome
from sidecar.explain.recorded_token import CannotJudgeError
from tests.core.world import CRM, IDP, PLANNER, POLICY, SEARCH, STS, STS_TRUST
from tests.explain.judged import inbound

OTHER = "spiffe://other.example/agent/planner"


def with_route(**changes: Any) -> Policy:
    return replace(POLICY, inbound=InboundRoutes([replace(SEARCH, **changes)]))


def with_issuer(**changes: Any) -> Policy:
    return replace(POLICY, issuers={STS: replace(STS_TRUST, **changes)})


def deny(**changes: Any) -> Policy:
    return replace(POLICY, deny=Deny(**changes))


def test_a_permitted_request_is_permitted_again() -> None:
    judgement = judge_inbound(inbound(), POLICY)
    assert (judgement.recorded, judgement.judged, judgement.decided_by, judgement.agrees) == (OK, OK, None, True)
    assert [step.check for step in judgement.steps] == [check.name for check in CHECKS]
    assert all(step.saw for step in judgement.steps)
    assert {step.outcome for step in judgement.steps} == {Outcome.HELD, Outcome.TOLD}


@pytest.mark.parametrize(
    ("changes", "policy", "reason", "check"),
    [
        pytest.param({"path": "/a/../b"}, POLICY, "path_refused", "target", id="path"),
        pytest.param({"path": "/other"}, POLICY, "no_route", "route", id="no-route"),
        pytest.param({"method": "GET"}, POLICY, "method_refused", "route", id="method"),
        pytest.param({"subject_iss": IDP}, POLICY, "wrong_issuer", "issuer", id="issuer"),
        pytest.param(
            {}, with_route(issuers=frozenset()), "issuer_not_for_route", "issuer", id="issuer-of-another-route"
        ),
        pytest.param({"audience": str(CRM)}, POLICY, "wrong_audience", "audience", id="audience"),
        pytest.param({}, deny(actors=frozenset({PLANNER})), "policy_denied", "deny list", id="deny-list-actor"),
        pytest.param({}, deny(txns=frozenset({"txn-1"})), "policy_denied", "deny list", id="deny-list-txn"),
        pytest.param({}, deny(jtis=frozenset({"token-1"})), "policy_denied", "deny list", id="deny-list-parent"),
        pytest.param({}, deny(subjects=frozenset({(STS, "alice")})), "policy_denied", "deny list", id="deny-subject"),
        pytest.param({"chain": None, "actor": None}, POLICY, "act_missing", "delegation", id="no-actor"),
        pytest.param({"peer": str(CRM)}, POLICY, "actor_mismatch", "actor is the peer", id="another-peer"),
        pytest.param({"actor": "a-uuid"}, POLICY, "actor_mismatch", "actor is the peer", id="an-actor-not-mapped"),
        pytest.param(
            {"peer": OTHER, "actor": OTHER, "chain": [OTHER]}, POLICY, "policy_denied", "issuer's trust domains",
            id="trust-domain",
        ),
        pytest.param({"scope": ["all", "docs.read"]}, POLICY, "scope_above_ceiling", "issuer's ceiling", id="ceiling"),
        pytest.param({}, with_route(peers=frozenset({CRM})), "policy_denied", "route's peers", id="peer-of-the-route"),
        pytest.param({"scope": ["crm.read"]}, POLICY, "insufficient_scope", "scopes", id="scope"),
    ],
)  # fmt: skip
def test_the_check_that_refused_is_found_again(
    changes: dict[str, Any], policy: Policy, reason: str, check: str
) -> None:
    judgement = judge_inbound(inbound(decision="deny", reason=reason, **changes), policy)
    assert (judgement.judged, judgement.decided_by, judgement.agrees) == (reason, check, True)
    outcomes = [step.outcome for step in judgement.steps]
    where = outcomes.index(Outcome.DECIDED)
    assert set(outcomes[:where]) <= {Outcome.HELD, Outcome.TOLD}
    assert set(outcomes[where + 1 :]) <= {Outcome.NOT_REACHED}
    assert judgement.steps[where].saw


def of_mcp() -> Policy:
    return with_route(protocol="mcp", operations=Operations({"tools/list": replace(SEARCH, operation="tools/list")}))


def test_an_operation_is_judged_after_the_token() -> None:
    refused = inbound(decision="deny", reason="operation_refused", op="tools/call:other")
    judgement = judge_inbound(refused, of_mcp())
    assert (judgement.judged, judgement.decided_by, judgement.agrees) == ("operation_refused", "operation", True)
    where = [step.outcome for step in judgement.steps].index(Outcome.DECIDED)
    assert all(step.saw for step in judgement.steps[: where + 1])


ORDERS = "pkg.Orders:Get"
OF_GRPC = with_route(
    path="/", prefix=True, protocol="grpc", operations=Operations({ORDERS: replace(SEARCH, operation=ORDERS)})
)
REFUSED = {"decision": "deny", "reason": "operation_refused", "op": "other"}


def test_a_call_of_grpc_is_judged_by_its_path() -> None:
    """Its ``op`` has a slash where the key of an operation has a colon."""
    judgement = judge_inbound(inbound(path="/pkg.Orders/Get", op="/pkg.Orders/Get"), OF_GRPC)
    assert (judgement.judged, judgement.agrees) == (OK, True)
    seen = [step.saw for step in judgement.steps if step.check == "operation"]
    assert seen == ["/pkg.Orders/Get among pkg.Orders/Get"]
    refused = judge_inbound(inbound(path="/pkg.Orders/Drop", **REFUSED), OF_GRPC)
    assert (refused.judged, refused.decided_by, refused.agrees) == ("operation_refused", "operation", True)
    listed_since = judge_inbound(inbound(path="/pkg.Orders/Get", **REFUSED), OF_GRPC)
    assert (listed_since.judged, listed_since.agrees) == (OK, False)
    malformed = inbound(path="/nothing", decision="deny", reason="operation_malformed", op="other")
    assert judge_inbound(malformed, OF_GRPC).agrees


@pytest.mark.parametrize("op", [None, "tools/call:other"])
@pytest.mark.parametrize(
    ("reason", "changes"), [("wrong_audience", {"audience": str(CRM)}), ("bad_signature", {}), ("no_token", {})]
)
def test_no_operation_is_judged_where_the_token_was_refused(
    reason: str, changes: dict[str, Any], op: str | None
) -> None:
    record = inbound(decision="deny", reason=reason, verified=False, op=op, **changes)
    judgement = judge_inbound(record, of_mcp())
    assert judgement.agrees is not False
    assert judgement.decided_by != "operation"


def test_of_two_checks_with_one_reason_the_earlier_decided() -> None:
    policy = replace(with_route(peers=frozenset({CRM})), deny=Deny(actors=frozenset({PLANNER})))
    assert judge_inbound(inbound(decision="deny", reason="policy_denied"), policy).decided_by == "deny list"


def test_a_trust_domain_that_the_issuer_lost_decides_before_the_routes_peers() -> None:
    policy = with_issuer(actor_trust_domains=frozenset({TrustDomain("other.example")}))
    judgement = judge_inbound(inbound(decision="deny", reason="policy_denied"), policy)
    assert judgement.decided_by == "issuer's trust domains"


@pytest.mark.parametrize(
    ("changes", "policy", "judged"),
    [
        pytest.param({}, with_route(peers=frozenset({CRM})), "policy_denied", id="allowed-then-and-not-now"),
        pytest.param({"decision": "deny", "reason": "actor_mismatch"}, POLICY, OK, id="refused-then-and-not-now"),
        pytest.param({"decision": "deny", "reason": "no_route"}, POLICY, OK, id="a-route-that-came-later"),
        pytest.param(
            {"decision": "deny", "reason": "insufficient_scope", "peer": str(CRM)}, POLICY, "actor_mismatch",
            id="refused-by-another-check",
        ),
        pytest.param({"decision": "deny", "reason": "no_such_code"}, POLICY, OK, id="a-code-that-there-is-not"),
    ],
)  # fmt: skip
def test_a_judgement_that_differs_says_so(changes: dict[str, Any], policy: Policy, judged: str) -> None:
    judgement = judge_inbound(inbound(**changes), policy)
    assert (judgement.judged, judgement.agrees) == (judged, False)


@pytest.mark.parametrize(
    ("reason", "check"),
    [
        pytest.param(Reason.BAD_SIGNATURE, "signature and times", id="signature"),
        pytest.param(Reason.TOKEN_EXPIRED, "signature and times", id="expiry"),
        pytest.param(Reason.CNF_MISMATCH, "key binding", id="binding"),
        pytest.param(Reason.ACT_TOO_DEEP, "form of act", id="depth"),
        pytest.param(Reason.DRAINING, "request", id="draining"),
    ],
)
@pytest.mark.parametrize("verified", [True, False])
def test_what_a_record_cannot_prove_stands_by_its_word(reason: Reason, check: str, verified: bool) -> None:
    judgement = judge_inbound(inbound(decision="deny", reason=reason, verified=verified), POLICY)
    assert (judgement.judged, judgement.decided_by, judgement.agrees) == (None, check, True)


def test_a_check_before_the_one_that_cannot_be_proven_is_judged() -> None:
    record = inbound(decision="deny", reason="bad_signature", verified=False, subject_iss=IDP)
    assert judge_inbound(record, POLICY).judged == Reason.WRONG_ISSUER


def test_what_an_unverified_token_says_decides_nothing() -> None:
    record = inbound(decision="deny", reason="bad_signature", verified=False, peer=str(CRM), scope=[])
    assert judge_inbound(record, POLICY).decided_by == "signature and times"


def test_a_request_whose_token_was_never_read_stands_by_its_word() -> None:
    record = inbound(decision="deny", reason="no_token", verified=False, subject=None, subject_iss=None, fp=None)
    assert judge_inbound(record, POLICY).decided_by == "bearer"


def test_an_agent_that_acts_for_itself_is_permitted_again_where_the_route_admits_it() -> None:
    record = inbound(subject=str(PLANNER), chain=None, actor=None)
    assert judge_inbound(record, with_route(allow_self=True)).judged == OK
    assert judge_inbound(record, POLICY).judged == Reason.ACT_MISSING


@pytest.mark.parametrize("changes", [{"peer": None}, {"peer": "writer"}, {"ts": "yesterday"}, {"subject_iss": None}])
def test_a_record_that_lacks_what_is_needed_is_not_judged(changes: dict[str, Any]) -> None:
    with pytest.raises(CannotJudgeError):
        judge_inbound(inbound(**changes), POLICY)


def test_the_login_that_a_route_requires_stands_by_the_records_word() -> None:
    policy = with_route(human=Human(max_age_s=60))
    refused = judge_inbound(inbound(decision="deny", reason="step_up_required"), policy)
    assert (refused.judged, refused.decided_by) == (None, "login")
    assert judge_inbound(inbound(), policy).judged == OK
    assert judge_inbound(inbound(scope=["crm.read"]), policy).judged == Reason.INSUFFICIENT_SCOPE


def test_a_permitted_request_that_failed_later_was_permitted() -> None:
    assert judge_inbound(inbound(reason="upstream_timeout"), POLICY).judged == OK


def test_the_audience_of_an_unverified_token_is_judged_and_its_transaction_is_not() -> None:
    unverified = {"decision": "deny", "verified": False}
    wrong = inbound(**unverified, reason="wrong_audience", audience=str(CRM))
    assert judge_inbound(wrong, POLICY).judged == Reason.WRONG_AUDIENCE
    bound = judge_inbound(inbound(**unverified, reason="cnf_mismatch"), deny(txns=frozenset({"txn-1"})))
    assert (bound.judged, bound.decided_by) == (None, "key binding")


@pytest.mark.parametrize("verified", [True, False])
def test_what_a_token_only_claims_is_said_to_be_claimed(verified: bool) -> None:
    record = inbound(decision="deny", reason="wrong_audience", audience=str(CRM), verified=verified)
    saw = {step.check: step.saw for step in judge_inbound(record, POLICY).steps}
    assert ("claimed by an unverified token" in saw["audience"]) is not verified
    assert ("did not verify" in saw["signature and times"]) is not verified
