"""Records as OCSF events: what each class requires, the arithmetic of its ids, and user and agent apart."""

from __future__ import annotations

from typing import Any, Final

import pytest

from delegation_audit.export.ocsf import ocsf_event
from delegation_core.records.reading import record_of
from delegation_core.records.record import EVENTS
from tests.audit.export.evidence import members

# Of the OCSF schema 1.8: the required attributes of a class besides those of every class.
BASE: Final = ("class_uid", "category_uid", "activity_id", "type_uid", "time", "severity_id", "metadata")
REQUIRED: Final = {
    6003: ("actor", "api", "src_endpoint"),
    3002: ("user", "service"),
    4001: ("src_endpoint", "dst_endpoint"),
    6002: ("app",),
}


def event_of(**fields: Any) -> dict[str, Any]:
    told = members(**fields)
    return ocsf_event(record_of(told), told)


@pytest.mark.parametrize("name", EVENTS)
def test_each_event_has_what_its_class_requires(name: str) -> None:
    event = event_of(event=name)
    assert set(BASE) | set(REQUIRED[event["class_uid"]]) <= event.keys()
    assert event["category_uid"] == event["class_uid"] // 1000
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert {"version", "product"} <= event["metadata"].keys()
    assert None not in event.values()


def test_the_user_and_the_agent_are_apart() -> None:
    actor = event_of()["actor"]
    assert actor["app_uid"] == "spiffe://acme.example/agent/writer"
    assert actor["user"] == {"uid": "alice", "domain": "https://sts.acme.example", "type_id": 0}
    assert "ai_agent" not in event_of()  # not in the released schema


def test_a_refusal_is_a_failure_that_was_denied() -> None:
    lawful, refused = event_of(), event_of(decision="deny", reason="act_missing", detail="no act")
    assert (lawful["status_id"], lawful["action_id"], lawful["disposition_id"]) == (1, 1, 1)
    assert (refused["status_id"], refused["action_id"], refused["disposition_id"]) == (2, 2, 2)
    assert (refused["status_code"], refused["status_detail"]) == ("act_missing", "no act")
    assert lawful["metadata"]["profiles"] == ["security_control"]


@pytest.mark.parametrize(
    ("method", "activity"), [("GET", 2), ("HEAD", 2), ("POST", 1), ("PATCH", 3), ("DELETE", 4), ("OPTIONS", 99)]
)
def test_the_method_is_the_activity(method: str, activity: int) -> None:
    assert event_of(method=method)["type_uid"] == 600300 + activity


def test_an_outbound_call_names_the_next_hop_as_its_destination_and_the_token_it_carried() -> None:
    event = event_of(direction="outbound", peer="spiffe://acme.example/tool/erp", jti_out="j2")
    assert event["src_endpoint"]["svc_name"] == "spiffe://acme.example/tool/crm"
    assert event["dst_endpoint"]["svc_name"] == "spiffe://acme.example/tool/erp"
    assert event["api"]["token"]["uid"] == "j2"


def test_an_exchange_is_no_impersonation() -> None:
    event = event_of(event="token.exchanged", subject="alice", decision="allow")
    assert (event["class_uid"], event["activity_id"], event["user"]["uid"]) == (3002, 4, "alice")
    assert "account_switch_type_id" not in event


@pytest.mark.parametrize(
    ("source", "endpoint"),
    [
        ("10.1.2.3:50412", {"ip": "10.1.2.3", "port": 50412}),
        ("[::1]:7", {"ip": "::1", "port": 7}),
        (None, {"svc_name": "unknown"}),
    ],
)
def test_a_refused_connection_names_where_it_came_from(source: str | None, endpoint: dict[str, Any]) -> None:
    event = event_of(event="connection.refused", source=source, decision="deny", reason="bad_svid")
    assert event["src_endpoint"] == endpoint


def test_the_chain_is_kept_whole() -> None:
    assert event_of()["unmapped"]["chain"] == [
        "spiffe://acme.example/agent/writer",
        "spiffe://acme.example/agent/planner",
    ]
