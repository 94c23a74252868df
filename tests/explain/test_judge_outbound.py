from dataclasses import replace
from typing import Any

import pytest

from delegation_core.crossing import Crossing
from delegation_core.errors import Reason
from delegation_core.login_issuer import ScopeFrom
from delegation_core.operation import Operations
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.policy import Deny, Policy
from delegation_core.records.reading import Record, is_own
from sidecar.explain.judge_outbound import CHECKS, judge_outbound
from sidecar.explain.judgement import OK, Outcome
from sidecar.explain.recorded_token import CannotJudgeError
from tests.core.world import ENTRY, IDP, POLICY, TO_CRM, WRITER
from tests.explain.judged import outbound, refused_outbound

LOGIN: dict[str, Any] = {"subject_iss": IDP, "chain": None, "actor": None, "call_in": None, "scope": None, "txn": None}
FIRST: dict[str, Any] = {"chain": [str(WRITER)], "call_in": None, "subject": "idp|alice"}


def with_route(**changes: Any) -> Policy:
    return replace(POLICY, outbound=OutboundRoutes([replace(TO_CRM, **changes)]))


def closed_entry() -> Policy:
    return replace(POLICY, entry=replace(ENTRY, may_call=frozenset()))


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(outbound(), id="for-a-request"),
        pytest.param(outbound(**FIRST), id="for-a-login"),
        pytest.param(outbound(reason="upstream_timeout"), id="and-failed-later"),
    ],
)
def test_a_permitted_call_is_permitted_again(record: Record) -> None:
    judgement = judge_outbound(record, POLICY)
    assert (judgement.judged, judgement.decided_by, judgement.agrees) == (OK, None, True)
    assert [step.check for step in judgement.steps] == [check.name for check in CHECKS]
    assert all(step.saw for step in judgement.steps)


GRANTED: dict[str, Any] = {"chain": [str(WRITER)], "call_in": None, "jti_in": None, "subject": "alice"}


def test_a_call_by_a_user_s_grant_is_judged_by_the_grant() -> None:
    record = outbound(**GRANTED)
    judgement = judge_outbound(record, with_route(token="login"))
    assert (judgement.judged, judgement.agrees) == (OK, True)
    assert "a login of alice" in {step.saw for step in judgement.steps}
    assert judge_outbound(record, closed_logins()).judged == Reason.CALL_NOT_ALLOWED
    denied = replace(with_route(token="login"), deny=Deny(subjects=frozenset({(None, "alice")})))
    assert judge_outbound(record, denied).judged == Reason.POLICY_DENIED


def closed_logins() -> Policy:
    return replace(with_route(token="login"), entry=replace(ENTRY, may_call=frozenset()))


PARTNERS = "https://sts.partner.example"
CROSSING = Crossing(issuer=PARTNERS, subject_prefix="partner:", scopes={"docs.read": frozenset({"crm.read"})})


def test_a_call_across_a_crossing_is_permitted_again_while_the_crossing_is_listed() -> None:
    record = outbound(crossed_from=PARTNERS, subject="partner:alice")
    listed = with_route(crossings={PARTNERS: CROSSING})
    assert judge_outbound(record, listed).judged == OK
    gone = judge_outbound(record, POLICY)
    assert (gone.judged, gone.decided_by) == (Reason.ISSUER_NOT_FOR_ROUTE, "subject's issuer")
    denied = replace(listed, deny=Deny(subjects=frozenset({(PARTNERS, "alice")})))
    assert judge_outbound(record, denied).judged == Reason.POLICY_DENIED
    narrower = with_route(crossings={PARTNERS: replace(CROSSING, scopes={"docs.read": frozenset({"x"})})})
    assert judge_outbound(record, narrower).judged == Reason.INSUFFICIENT_SCOPE


@pytest.mark.parametrize(
    ("record", "policy", "check"),
    [
        pytest.param(refused_outbound("path_refused", path="/a//b", route=None), POLICY, "target", id="path"),
        pytest.param(refused_outbound("target_denied", route=None), POLICY, "route", id="no-route"),
        pytest.param(refused_outbound("own_authority_refused"), with_route(token="self"), "own authority", id="self"),
        pytest.param(
            refused_outbound("policy_denied"), replace(POLICY, deny=Deny(txns=frozenset({"txn-1"}))), "deny list",
            id="deny-list",
        ),
        pytest.param(
            refused_outbound("issuer_not_for_route", subject_iss="https://else.example"), POLICY, "subject's issuer",
            id="issuer",
        ),
        pytest.param(
            refused_outbound("sts_unavailable"),
            replace(POLICY, token_services=frozenset()),
            "subject's issuer",
            id="no-exchange",
        ),
        pytest.param(refused_outbound("insufficient_scope", scope=["a"]), POLICY, "scope to ask for", id="scope"),
        pytest.param(refused_outbound("call_not_allowed", **LOGIN), closed_entry(), "may_call", id="entry"),
    ],
)  # fmt: skip
def test_the_check_that_refused_is_found_again(record: Record, policy: Policy, check: str) -> None:
    judgement = judge_outbound(record, policy)
    assert (judgement.decided_by, judgement.agrees) == (check, True)
    assert judge_outbound(outbound(), POLICY).agrees


@pytest.mark.parametrize(
    ("reason", "check", "changes"),
    [
        pytest.param("no_request_context", "handle or login", {"verified": False, "subject": None}, id="handle"),
        pytest.param("bad_signature", "handle or login", {"verified": False}, id="a-login-that-did-not-verify"),
        pytest.param("call_not_allowed", "may_call", {}, id="may-call"),
        pytest.param("token_expired", "time left", {}, id="expired"),
        pytest.param("calls_exhausted", "calls left", {}, id="budget"),
        pytest.param("exchange_denied", "exchange", {}, id="refused-by-the-token-service"),
        pytest.param("sts_no_act", "exchange", {}, id="a-lying-token-service"),
        pytest.param("overloaded", "request", {}, id="overloaded"),
    ],
)
def test_what_a_record_cannot_prove_stands_by_its_word(reason: str, check: str, changes: dict[str, Any]) -> None:
    judgement = judge_outbound(refused_outbound(reason, **changes), POLICY)
    assert (judgement.judged, judgement.decided_by, judgement.agrees) == (None, check, True)


@pytest.mark.parametrize(
    ("record", "policy", "judged"),
    [
        pytest.param(outbound(), with_route(token="self"), Reason.OWN_AUTHORITY_REFUSED, id="allowed-then"),
        pytest.param(outbound(), with_route(scopes=frozenset({"x"})), Reason.INSUFFICIENT_SCOPE, id="scopes-changed"),
        pytest.param(outbound(**FIRST), closed_entry(), Reason.CALL_NOT_ALLOWED, id="the-entry-opens-it-no-more"),
        pytest.param(refused_outbound("insufficient_scope"), POLICY, OK, id="refused-then"),
    ],
)
def test_a_judgement_that_differs_says_so(record: Record, policy: Policy, judged: str) -> None:
    judgement = judge_outbound(record, policy)
    assert (judgement.judged, judgement.agrees) == (judged, False)


def test_what_a_login_is_worth_is_judged_where_the_record_holds_what_it_is_drawn_from() -> None:
    users = replace(ENTRY.issuers[IDP], scope_from=ScopeFrom(claim="scope", map={"staff": frozenset({"docs.read"})}))
    policy = replace(POLICY, entry=replace(ENTRY, issuers={IDP: users}))
    record = refused_outbound("insufficient_scope", **{**LOGIN, "scope": ["staff"]})
    assert judge_outbound(record, policy).judged == Reason.INSUFFICIENT_SCOPE
    unknown = refused_outbound("policy_denied", **LOGIN)
    assert judge_outbound(unknown, POLICY).judged == OK
    worthless = replace(users, scope_from=ScopeFrom(claim="scope", map={"staff": frozenset()}))
    nothing = replace(POLICY, entry=replace(ENTRY, issuers={IDP: worthless}))
    assert judge_outbound(record, nothing).judged == Reason.INSUFFICIENT_SCOPE
    with pytest.raises(CannotJudgeError, match=r"worth what its .* says"):
        judge_outbound(refused_outbound("insufficient_scope", **LOGIN), POLICY)


def test_the_first_call_of_a_chain_is_judged_by_what_was_asked_for() -> None:
    assert judge_outbound(outbound(**FIRST, scope_needed=["other"]), POLICY).judged == Reason.INSUFFICIENT_SCOPE


def test_a_login_where_none_is_taken_is_refused_again_and_elsewhere_not_judged() -> None:
    record = refused_outbound("not_an_entry", subject=None, verified=None)
    judgement = judge_outbound(record, replace(POLICY, entry=None))
    assert (judgement.decided_by, judgement.agrees) == ("subject's issuer", True)
    with pytest.raises(CannotJudgeError, match="a login was shown"):
        judge_outbound(record, POLICY)


def test_a_route_that_is_no_more_is_looked_for_by_its_prefix() -> None:
    by_prefix = with_route(name="other", host=None, prefix="/crm")
    judgement = judge_outbound(outbound(path="/crm/customers/42"), by_prefix)
    assert judgement.judged == OK


def test_a_route_by_host_that_may_have_been_renamed_is_not_judged() -> None:
    with pytest.raises(CannotJudgeError, match="no route has the recorded name"):
        judge_outbound(outbound(), with_route(name="other"))
    assert judge_outbound(outbound(), with_route(name="other", peer=WRITER)).judged == Reason.TARGET_DENIED


def test_the_inbound_routes_that_open_a_call_are_named() -> None:
    steps = {step.check: step for step in judge_outbound(refused_outbound("call_not_allowed"), POLICY).steps}
    assert "inbound routes that open crm: search" in steps["may_call"].saw
    assert steps["exchange"].outcome is Outcome.NOT_REACHED


OWN: dict[str, Any] = {"op": "own", "subject": str(WRITER), "chain": None, "actor": None, "call_in": None}


def test_a_call_of_the_agent_for_itself_is_judged_by_the_workload_handle() -> None:
    policy = replace(with_route(token="self"), own_may_call=frozenset({"crm"}))
    judgement = judge_outbound(outbound(**OWN), policy)
    assert (judgement.judged, judgement.agrees) == (OK, True)
    closed = judge_outbound(outbound(**OWN), with_route(token="self"))
    assert (closed.judged, closed.decided_by) == ("call_not_allowed", "may_call")
    exchanging = judge_outbound(outbound(**OWN), POLICY)
    assert (exchanging.judged, exchanging.decided_by) == ("own_authority_refused", "own authority")


def test_an_operation_that_the_agent_asked_for_itself_is_judged_as_its_own_call() -> None:
    opening = replace(TO_CRM, operation="initialize")
    open_to_own = replace(opening, for_itself=replace(opening, token="self"))
    search = replace(TO_CRM, operation="tools/call:search")
    operations = Operations({"initialize": open_to_own, "tools/call:search": search})
    policy = replace(with_route(protocol="mcp", operations=operations), own_may_call=frozenset({"crm"}))
    own = {**OWN, "op": "initialize"}
    assert judge_outbound(outbound(**own), policy).judged == OK
    assert judge_outbound(outbound(**{**own, "op": "tools/call:search"}), policy).judged == "own_authority_refused"
    closed = replace(policy, own_may_call=frozenset())
    assert judge_outbound(outbound(**own), closed).judged == "call_not_allowed"
    for_a_user = {**FIRST, "op": "tools/call:search"}
    assert judge_outbound(outbound(**for_a_user), policy).judged == OK


@pytest.mark.parametrize("prefix", ["", "/crm"])
def test_a_call_of_grpc_is_judged_by_its_path(prefix: str) -> None:
    find = "shop.Customers:Find"
    policy = with_route(protocol="grpc", operations=Operations({find: replace(TO_CRM, operation=find)}))
    called = {"method": "POST", "path": f"{prefix}/shop.Customers/Find", "op": "/shop.Customers/Find"}
    assert judge_outbound(outbound(**called), policy).judged == OK
    dropped = refused_outbound("operation_refused", **called | {"path": f"{prefix}/shop.Customers/Drop", "op": "other"})
    judgement = judge_outbound(dropped, policy)
    assert (judgement.judged, judgement.decided_by, judgement.agrees) == ("operation_refused", "operation", True)


def test_a_token_that_only_claims_to_be_the_agents_is_not_judged_as_its_own_call() -> None:
    own = {**OWN, "op": "initialize", "verified": False}
    assert is_own(outbound(**own, subject_iss=None))
    assert not is_own(outbound(**own, subject_iss="https://anybody.example"))
    assert is_own(outbound(**{**own, "verified": True}, subject_iss="https://sts.acme.example"))


def test_a_tunnel_has_no_token_to_judge() -> None:
    with pytest.raises(CannotJudgeError, match="tunnel"):
        judge_outbound(outbound(method="CONNECT", path=None, route="api"), POLICY)
