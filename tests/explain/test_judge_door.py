from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from delegation_core.errors import Reason
from delegation_core.operation import Operations
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.policy import Policy
from delegation_core.records.reading import Record
from sidecar.explain.explanation import explain
from sidecar.explain.judge_door import CHECKS, is_at_door, judge_door
from sidecar.explain.judgement import OK, Outcome
from sidecar.explain.recorded_token import CannotJudgeError
from tests.core.test_door import WITH_DOOR
from tests.core.world import IDP, POLICY, TO_CRM, WRITER
from tests.explain.judged import outbound, refused_outbound

SEARCH: Final = replace(TO_CRM, host=None, prefix="/crm", scopes=frozenset({"crm.read"}))
TOOLS: Final = replace(SEARCH, protocol="mcp", operations=Operations({"tools/list": SEARCH}))
AT: Final[dict[str, Any]] = {
    "source": "192.0.2.7", "method": "POST", "path": "/crm/mcp", "op": "tools/list", "call_in": None, "txn": None,
}  # fmt: skip
LOGIN: Final[dict[str, Any]] = {
    **AT, "chain": None, "actor": None, "subject_iss": IDP, "scope": ["sales"], "client_id": "an-ide"
}  # fmt: skip


def with_door(**route: Any) -> Policy:
    return replace(WITH_DOOR, outbound=OutboundRoutes([replace(TOOLS, **route)]))


def called(**changes: Any) -> Record:
    """Return the record of a call that the door let through: its issued token's subject has the mesh's spelling."""
    return outbound(**{**AT, "chain": [str(WRITER)], "subject": "idp|alice", **changes})


def test_the_caller_s_address_tells_a_request_at_the_door_from_a_call_of_the_agent_s() -> None:
    assert is_at_door(called())
    assert not is_at_door(called(source=None))
    assert not is_at_door(called(direction="inbound"))


def test_a_permitted_call_is_permitted_again_by_every_check() -> None:
    judgement = judge_door(called(), with_door())
    assert (judgement.judged, judgement.decided_by, judgement.agrees) == (OK, None, True)
    assert [step.check for step in judgement.steps] == [check.name for check in CHECKS]
    assert all(step.saw for step in judgement.steps)


def test_a_login_is_judged_by_what_it_is_worth() -> None:
    refused = refused_outbound("insufficient_scope", **{**LOGIN, "scope": ["openid"]})
    judgement = judge_door(refused, with_door())
    assert (judgement.judged, judgement.decided_by) == (Reason.INSUFFICIENT_SCOPE, "scope to ask for")
    assert judge_door(refused_outbound("insufficient_scope", **LOGIN), with_door()).judged == OK


@pytest.mark.parametrize(
    ("changes", "reason", "check"),
    [
        pytest.param({"path": "/crm//mcp"}, Reason.PATH_REFUSED, "target", id="path"),
        pytest.param({"path": "/else"}, Reason.NO_ROUTE, "route", id="no-route"),
        pytest.param({"path": "/.sidecar/subject"}, Reason.NO_ROUTE, "route", id="a-path-of-ours"),
        pytest.param({"method": "PUT"}, Reason.METHOD_REFUSED, "method", id="method"),
        pytest.param({"op": "tools/call:drop"}, Reason.OPERATION_REFUSED, "operation", id="operation"),
    ],
)
def test_the_check_that_refused_is_found_again(changes: dict[str, Any], reason: str, check: str) -> None:
    judgement = judge_door(refused_outbound(reason, **{**LOGIN, **changes}), with_door())
    assert (judgement.judged, judgement.decided_by, judgement.agrees) == (reason, check, True)
    assert judge_door(called(), with_door()).agrees


@pytest.mark.parametrize(
    ("reason", "check"),
    [("origin_refused", "page"), ("target_denied", "host"), ("no_token", "handle or login"), ("overloaded", "request")],
)
def test_what_a_record_cannot_prove_stands_by_its_word(reason: str, check: str) -> None:
    record = refused_outbound(reason, **{**AT, "verified": False, "subject": None, "op": None})
    judgement = judge_door(record, with_door())
    assert (judgement.judged, judgement.decided_by, judgement.agrees) == (None, check, True)
    (step,) = [one for one in judgement.steps if one.check == check]
    assert step.outcome is Outcome.DECIDED


def test_settings_without_a_door_judge_nothing_of_it() -> None:
    with pytest.raises(CannotJudgeError, match="settings have none"):
        judge_door(called(), POLICY)
    assert explain(called(), POLICY).not_judged == "it is a request at a door, and these settings have none"
