"""Records as ECS events: user and agent in separate fields, words from ECS's own lists, and nothing lost."""

from __future__ import annotations

from typing import Any, Final

import pytest

from delegation_audit.export.ecs import ecs_event, milliseconds_of
from delegation_core.records.reading import record_of
from delegation_core.records.record import EVENTS
from tests.audit.export.evidence import members

# Of the ECS reference: event.category, and the values of event.type that it expects beside each.
CATEGORIES: Final = {
    "iam": "admin change creation deletion group info user",
    "api": "access admin allowed change creation deletion denied end info start user",
    "authentication": "start end info",
    "configuration": "access change creation deletion info",
    "network": "access allowed connection denied end info protocol start",
    "process": "access change end info start",
}


def event_of(**fields: Any) -> dict[str, Any]:
    told = members(**fields)
    return ecs_event(record_of(told), told)


def test_the_agent_performs_and_the_users_rights_are_used() -> None:
    event = event_of()
    assert event["user"] == {
        "id": "spiffe://acme.example/agent/writer",
        "effective": {"id": "alice", "domain": "https://sts.acme.example"},
    }
    assert event["related"]["user"] == [
        "alice",
        "spiffe://acme.example/agent/writer",
        "spiffe://acme.example/agent/planner",
    ]


def test_without_an_actor_the_user_is_no_performer() -> None:
    event = event_of(actor=None, chain=None, decision="deny", reason="act_missing")
    assert event["user"]["id"] == "spiffe://acme.example/agent/writer"  # the peer, which presented the token
    assert event["user"]["effective"]["id"] == "alice"
    assert (event["event"]["outcome"], event["event"]["reason"]) == ("failure", "act_missing")
    assert event["event"]["type"] == ["access", "denied"]


def test_times_are_in_the_units_of_the_schema() -> None:
    event = event_of()
    assert (event["@timestamp"], event["event"]["duration"]) == ("2026-11-24T21:04:05.123456Z", 1_250_000)
    assert milliseconds_of("2026-11-24T21:04:05.123456Z") == 1795554245123


@pytest.mark.parametrize("name", EVENTS)
def test_each_event_has_a_category_and_a_type_that_go_together(name: str) -> None:
    event = event_of(event=name)["event"]
    (category,) = event["category"]
    assert set(event["type"]) <= set(CATEGORIES[category].split())
    assert event["kind"] == "event"
    assert event["outcome"] in {"success", "failure", "unknown"}


def test_every_key_is_in_the_event_and_no_null() -> None:
    event = event_of(call_in="c1", scope=["crm.read"], detail="why")
    assert {"call_in": "c1", "scope": ["crm.read"], "detail": "why", "txn": "t1"}.items() <= event["sidecar"].items()
    assert None not in event["sidecar"].values()
    assert "trace" not in event
