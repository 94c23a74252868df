"""Spans of records: names, parents, times, errors, and the attributes that there may be."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from delegation_audit.ratio.command import _name_of
from delegation_core.records.record import Record
from sidecar.observe.entry import request_record
from sidecar.observe.telemetry.entries import SampledSpanId
from sidecar.observe.telemetry.spans import SUBJECT_HASH, Spans, hash_of, nanoseconds
from sidecar.observe.tracing import Parent
from tests.observe.test_tracing import PARENT, TRACE

SPAN = "1111111111111111"
KEY = b"k" * 32
SECOND = 1_000_000_000


def record(
    direction: Any = "inbound", *, parent: str | None = PARENT, link: Parent | None = None, **keys: Any
) -> Record:
    of_call: dict[str, Any] = {
        "ts": "2026-11-29T03:00:00.500000Z", "workload": "spiffe://acme.example/agent/writer", "trace_id": TRACE,
        "span_id": SampledSpanId(SPAN, parent, link), "method": "POST", "path": "/draft/42", "route": "draft",
        "decision": "allow", "reason": "ok", "status": 200, "total_ms": 20.5, "verified": True, "subject": "alice",
        "subject_iss": "https://sts.example", "actor": "spiffe://acme.example/agent/planner", "chain_depth": 2,
        "decide_ms": 1.25, "request_id": "r",
    }  # fmt: skip
    return {**request_record(direction, "run"), **of_call, **keys}


def spans(of: Record) -> list[ReadableSpan]:
    return list(Spans(lambda: KEY, "run").of(of))


def one(of: Record) -> tuple[ReadableSpan, dict[str, Any]]:
    (span,) = spans(of)
    return span, dict(span.attributes or {})


def test_a_request_is_a_server_span_below_its_callers() -> None:
    span, attributes = one(record())
    assert (span.name, span.kind) == ("POST draft", SpanKind.SERVER)
    assert span.context is not None
    assert span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}") == (TRACE, SPAN)
    assert (f"{span.parent.span_id:016x}", span.parent.is_remote) == (PARENT, True)
    begins = nanoseconds("2026-11-29T03:00:00.500000Z")
    assert begins % SECOND == SECOND // 2
    assert (span.start_time, span.end_time) == (begins, begins + 20_500_000)
    assert attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "delegation.decision": "allow",
        "delegation.reason": "ok",
        "delegation.direction": "inbound",
        "delegation.actor": "spiffe://acme.example/agent/planner",
        "delegation.chain_depth": 2,
        "delegation.route": "draft",
        "delegation.request_id": "r",
        "delegation.decide_ms": 1.25,
        SUBJECT_HASH: hash_of(KEY, "https://sts.example", "alice"),
    }
    assert dict(span.resource.attributes)["service.name"] == "agent/writer"


def test_a_request_that_is_not_recorded_has_no_span() -> None:
    assert spans(record(span_id=SPAN)) == []
    assert spans(record(span_id=None)) == []


def test_a_root_has_no_parent_and_a_stranger_is_linked() -> None:
    span, _ = one(record(parent=None, link=Parent(TRACE, PARENT, "01")))
    assert span.parent is None
    (link,) = span.links
    assert f"{link.context.span_id:016x}" == PARENT


def test_the_hash_of_a_subject_is_that_of_the_audit() -> None:
    assert hash_of(KEY, "iss", "sub") == _name_of(KEY, with_issuer=True)("iss", "sub")
    assert hash_of(KEY, "iss", "sub") != hash_of(b"j" * 32, "iss", "sub")
    assert hash_of(KEY, "iss", "sub") != hash_of(KEY, "other", "sub")


def test_nothing_of_a_token_that_is_not_proven_is_shown() -> None:
    _, attributes = one(record(verified=False, actor="any text of a caller"))
    assert not attributes.keys() & {SUBJECT_HASH, "delegation.actor", "delegation.chain_depth"}


def test_an_outbound_call_names_the_server_of_its_route_and_no_host_that_an_agent_names() -> None:
    servers = {"draft": ("crm.internal", 7443)}.get
    made = Spans(lambda: KEY, "run", None, servers)

    def server(of: Record) -> list[Any]:
        (span,) = made.of(of)
        return [(span.attributes or {}).get(name) for name in ("server.address", "server.port")]

    assert server(record("outbound", host="attacker.example")) == ["crm.internal", 7443]
    assert server(record("outbound", host="attacker.example", route=None)) == [None, None]
    assert server(record("outbound", route="removed")) == [None, None]
    assert server(record("inbound")) == [None, None]


@pytest.mark.parametrize(
    ("op", "name", "of_operation"),
    [
        (
            "tools/call:search",
            "tools/call search",
            {
                "mcp.method.name": "tools/call",
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": "search",
            },
        ),
        ("tools/list", "tools/list", {"mcp.method.name": "tools/list"}),
        ("prompts/get:poem", "prompts/get poem", {"mcp.method.name": "prompts/get", "gen_ai.prompt.name": "poem"}),
        (
            "resources/read:docs://a",
            "resources/read docs://a",
            {"mcp.method.name": "resources/read", "mcp.resource.uri": "docs://a"},
        ),
        ("SendMessage", "SendMessage", {}),
        ("other", "POST draft", {}),
        ("own", "POST draft", {}),
        (None, "POST draft", {}),
    ],
)
def test_an_operation_has_the_names_of_the_conventions(op: str | None, name: str, of_operation: dict[str, str]) -> None:
    span, attributes = one(record(op=op))
    assert span.name == name
    assert {key: attributes[key] for key in attributes if key.startswith(("mcp.", "gen_ai."))} == of_operation
    assert attributes.get("delegation.operation") == op


@pytest.mark.parametrize(
    ("direction", "keys", "is_error", "kind"),
    [
        ("inbound", {}, False, None),
        ("inbound", {"status": 404}, False, None),
        ("inbound", {"status": 502}, True, "502"),
        ("outbound", {"status": 404}, True, "404"),
        ("inbound", {"decision": "deny", "reason": "act_missing", "status": 403}, False, "act_missing"),
        ("outbound", {"decision": "deny", "reason": "target_denied", "status": 403}, True, "target_denied"),
        ("inbound", {"decision": "deny", "reason": "task_unknown", "status": 200}, False, "task_unknown"),
        ("outbound", {"decision": "deny", "reason": "no_request_context", "status": 200}, True, "no_request_context"),
        ("outbound", {"reason": "next_hop_refused", "status": 200}, True, "next_hop_refused"),
        ("outbound", {"reason": "ok", "status": 200}, False, None),
        ("inbound", {"reason": "peer_gone", "status": None}, True, "peer_gone"),
        ("inbound", {"decision": "observed_deny", "reason": "act_missing"}, False, None),
    ],
)
def test_an_error_is_one_by_the_conventions_and_has_its_reason(
    direction: str, keys: dict[str, Any], is_error: bool, kind: str | None
) -> None:
    span, attributes = one(record(direction, **keys))
    assert (span.status.status_code is StatusCode.ERROR) == is_error
    assert attributes.get("error.type") == kind


def test_text_of_a_caller_is_in_no_span() -> None:
    secret = "SECRET"
    texts: dict[str, Any] = dict.fromkeys(
        ("path", "host", "source", "detail", "credential", "client_id", "call_in", "call_out", "jti_in", "fp"), secret
    )
    for made in spans(record("outbound", method=secret, exchange_ms=1.0, subject=secret, **texts)):
        assert secret not in made.to_json()


def test_a_call_that_waited_for_a_token_has_the_exchange_below_it() -> None:
    call, exchange = spans(record("outbound", exchange_ms=1.0, audience="spiffe://acme.example/tool/crm"))
    assert call.context is not None
    assert exchange.parent is not None
    assert (exchange.name, exchange.kind) == ("token exchange", SpanKind.CLIENT)
    assert exchange.parent.span_id == call.context.span_id
    assert not exchange.parent.is_remote
    assert call.start_time is not None
    assert exchange.start_time == call.start_time + 250_000  # until the permit
    assert exchange.end_time == call.start_time + 1_250_000
    assert dict(exchange.attributes or {})["delegation.audience"] == "spiffe://acme.example/tool/crm"
    assert exchange.status.status_code is StatusCode.UNSET


def test_an_exchange_that_failed_ends_with_its_call() -> None:
    refused: dict[str, Any] = {
        "decision": "deny",
        "reason": "sts_unavailable",
        "status": 503,
        "decide_ms": None,
        "exchange_ms": 30.0,
    }
    call, exchange = spans(record("outbound", **refused))
    assert (exchange.start_time, exchange.end_time) == (call.start_time, call.end_time)  # clocks differ by a little
    assert exchange.status.status_code is StatusCode.ERROR
    assert dict(exchange.attributes or {})["error.type"] == "sts_unavailable"


def test_the_environment_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "secret=1")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "other")
    span, _ = one(record())
    assert set(dict(span.resource.attributes)) == {
        "service.name", "service.namespace", "service.version", "service.instance.id", "delegation.workload",
        "telemetry.sdk.language", "telemetry.sdk.name", "telemetry.sdk.version",
    }  # fmt: skip
    named = Spans(lambda: KEY, "run", "billing").resource(None)
    assert dict(named.attributes)["service.name"] == "billing"
