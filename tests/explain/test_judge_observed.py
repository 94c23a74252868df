from dataclasses import replace
from typing import Any

import pytest

from delegation_core.inbound_routes import InboundRoutes
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.policy import Deny, Policy
from delegation_core.records.reading import Record
from sidecar.explain.judge_observed import passes_observed
from tests.core.world import NOW, PLANNER, POLICY, SEARCH, TO_CRM, WRITER
from tests.explain.judged import inbound, outbound

WITHOUT: dict[str, Any] = {"decision": "observed_deny", "subject": None, "verified": None}


def observing(until: int = NOW + 9, policy: Policy = POLICY) -> Policy:
    return replace(
        policy,
        inbound=InboundRoutes([replace(SEARCH, observe_until=until)]),
        outbound=OutboundRoutes([replace(TO_CRM, observe_until=until)]),
    )


LAWFUL = [
    pytest.param(inbound(**WITHOUT, reason="no_token"), id="without-a-token"),
    pytest.param(inbound(decision="observed_deny", reason="insufficient_scope"), id="with-a-token"),
    pytest.param(inbound(**WITHOUT, reason="no_client_cert", peer=None), id="without-tls"),
    pytest.param(outbound(**WITHOUT, reason="no_request_context"), id="call"),
]


@pytest.mark.parametrize("record", LAWFUL)
def test_a_refused_call_passes_while_its_route_observes(record: Record) -> None:
    assert passes_observed(record, observing(), record.reason or "")
    assert not passes_observed(record, observing(until=NOW), record.reason or "")
    assert not passes_observed(record, POLICY, record.reason or "")


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(inbound(**WITHOUT, reason="bad_signature"), id="never-relaxed"),
        pytest.param(inbound(**WITHOUT, reason="insufficient_scope"), id="a-token-that-the-record-does-not-hold"),
        pytest.param(inbound(**WITHOUT, reason="no_such_reason"), id="unknown-reason"),
        pytest.param(inbound(**WITHOUT, reason="no_token", path="/other"), id="no-route"),
        pytest.param(inbound(**WITHOUT, reason="no_token", path="/a//b"), id="path"),
        pytest.param(inbound(**WITHOUT, reason="no_token", peer="planner"), id="peer"),
        pytest.param(inbound(**WITHOUT, reason="no_token", ts="today"), id="time"),
        pytest.param(inbound(**WITHOUT | {"decision": "deny"}, reason="no_client_cert", peer=None), id="refused-tls"),
        pytest.param(outbound(**WITHOUT, reason="call_not_allowed"), id="call-never-relaxed"),
        pytest.param(outbound(**WITHOUT, reason="no_request_context", route="other"), id="call-without-a-route"),
        pytest.param(outbound(**WITHOUT | {"decision": "deny"}, reason="no_request_context"), id="unknown-token"),
    ],
)
def test_what_no_route_relaxes_or_the_record_does_not_tell_does_not_pass(record: Record) -> None:
    assert not passes_observed(record, observing(), record.reason or "")


@pytest.mark.parametrize(
    ("record", "actor"),
    [
        pytest.param(inbound(**WITHOUT, reason="no_token"), PLANNER, id="request"),
        pytest.param(outbound(**WITHOUT, reason="no_request_context"), WRITER, id="call"),
    ],
)
def test_the_deny_list_is_not_relaxed(record: Record, actor: str) -> None:
    denying = replace(POLICY, deny=Deny(actors=frozenset({actor})))
    assert passes_observed(record, observing(), record.reason or "")
    assert not passes_observed(record, observing(policy=denying), record.reason or "")
