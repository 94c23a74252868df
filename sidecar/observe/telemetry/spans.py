"""Spans of records. Pure: a record in, one or two spans out.

Names of attributes are those of OpenTelemetry's semantic conventions for HTTP, MCP and GenAI, where they exist; the
others begin with ``delegation.``. Values come from closed sets, are SPIFFE IDs or numbers: no path, no query, no token,
no address and no text of a caller. A subject is a keyed hash.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.sdk.version import __version__ as _sdk_version
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from delegation_core.a2a import OPERATIONS
from delegation_core.errors import Reason
from delegation_core.mcp import DELETE, METHODS, RESPONSE, STREAM
from delegation_core.records.record import OK, Record
from sidecar import __version__
from sidecar.observe.telemetry.entries import SampledSpanId
from sidecar.observe.tracing import Parent, new_span_id

_SCOPE: Final = InstrumentationScope("sidecar", __version__)
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MCP: Final = METHODS - {DELETE, RESPONSE, STREAM}  # those are ours
_KNOWN_METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
_ATTRIBUTES: Final[Mapping[str, str]] = {
    "http.response.status_code": "status",
    "delegation.decision": "decision",
    "delegation.reason": "reason",
    "delegation.direction": "direction",
    "delegation.peer": "peer",
    "delegation.actor": "actor",
    "delegation.chain_depth": "chain_depth",
    "delegation.route": "route",
    "delegation.operation": "op",
    "delegation.request_id": "request_id",
    "delegation.decide_ms": "decide_ms",
    "delegation.upstream_ms": "upstream_ms",
}
_OF_TOKEN: Final = ("delegation.actor", "delegation.chain_depth")
_OF_EXCHANGE: Final[Mapping[str, str]] = {
    "delegation.actor": "workload",
    "delegation.route": "route",
    "delegation.audience": "audience",
    "delegation.request_id": "request_id",
}
_NAMES: Final[Mapping[str, str]] = {
    "tools/call": "gen_ai.tool.name",
    "prompts/get": "gen_ai.prompt.name",
    "resources/read": "mcp.resource.uri",
    "resources/subscribe": "mcp.resource.uri",
    "resources/unsubscribe": "mcp.resource.uri",
}
SUBJECT_HASH: Final = "delegation.subject.hash"

Value = str | bool | int | float


def hash_of(key: bytes, issuer: str, subject: str) -> str:
    """Return the keyed hash of a subject, as ``sidecar audit ratio --hash-key`` computes it."""
    return hmac.digest(key, f"{issuer}\0{subject}".encode("utf-8", "surrogatepass"), "sha256").hex()[:32]


class Spans:
    """Makes spans. ``key`` returns the key of the subjects' hashes; ``run`` names the process.

    ``servers`` returns the host and port to which an outbound route leads, if it is known.
    """

    def __init__(
        self,
        key: Callable[[], bytes],
        run: str,
        service_name: str | None = None,
        servers: Callable[[str], tuple[str, int] | None] = lambda _route: None,
    ) -> None:
        self._key = key
        self._servers = servers
        self._run = run
        self._service_name = service_name
        self._resources: tuple[str | None, Resource] | None = None

    def of(self, record: Record) -> Iterator[ReadableSpan]:
        """Yield the span of a recorded request, and that of its token exchange."""
        span_id = record["span_id"]
        if not isinstance(span_id, SampledSpanId):
            return
        context = _context(record["trace_id"], span_id)
        begins_at = nanoseconds(record["ts"])
        ends_at = begins_at + _ns(record["total_ms"])
        failed = record["decision"] != "observed_deny" and record["reason"] != OK
        yield ReadableSpan(
            name=_name(record),
            context=context,
            parent=None if span_id.parent is None else _context(record["trace_id"], span_id.parent, remote=True),
            resource=self.resource(record["workload"]),
            attributes=self._attributes(record, failed=failed),
            links=_links(span_id.link),
            kind=SpanKind.SERVER if record["direction"] == "inbound" else SpanKind.CLIENT,
            status=_status(record, failed=failed),
            start_time=begins_at,
            end_time=ends_at,
            instrumentation_scope=_SCOPE,
        )
        if record["exchange_ms"] is not None:
            yield self._exchange(record, context, begins_at, ends_at)

    def _exchange(self, record: Record, call: SpanContext, begins_at: int, ends_at: int) -> ReadableSpan:
        """Make the span of a wait for a token: a call is permitted, or refused, in the moment in which it ends."""
        decided = record["decide_ms"]
        until = ends_at if decided is None else begins_at + _ns(decided)
        refused = decided is None
        attributes = {**_pick_attributes(record, _OF_EXCHANGE), "delegation.direction": "outbound"}
        if refused:
            attributes["error.type"] = record["reason"]
        return ReadableSpan(
            name="token exchange",
            context=_context(record["trace_id"], new_span_id()),
            parent=call,
            resource=self.resource(record["workload"]),
            attributes=attributes,
            kind=SpanKind.CLIENT,
            status=Status(StatusCode.ERROR if refused else StatusCode.UNSET),
            start_time=max(begins_at, until - _ns(record["exchange_ms"])),
            end_time=until,
            instrumentation_scope=_SCOPE,
        )

    def _attributes(self, record: Record, *, failed: bool) -> dict[str, Value]:
        attributes = _pick_attributes(record, _ATTRIBUTES) | _of_operation(record["op"])
        method = record["method"]
        attributes["http.request.method"] = method if method in _KNOWN_METHODS else "_OTHER"
        if not record["verified"]:
            for name in _OF_TOKEN:  # of a token that anybody may have written: the actor is any text
                attributes.pop(name, None)
        if record["subject"] is not None and record["verified"]:
            attributes[SUBJECT_HASH] = hash_of(self._key(), record["subject_iss"] or "", record["subject"])
        if record["direction"] == "outbound" and record["route"] is not None:
            server = self._servers(record["route"])
            if server is not None:
                attributes["server.address"], attributes["server.port"] = server
        if record["after_request"]:
            attributes["delegation.after_request"] = True
        if failed:
            attributes["error.type"] = record["reason"]
        elif _is_error(record):
            attributes["error.type"] = str(record["status"])
        return attributes

    def resource(self, workload: str | None) -> Resource:
        """Return the resource of a workload. The environment adds nothing to it."""
        if self._resources is None or self._resources[0] != workload:
            self._resources = workload, _resource(workload, self._run, self._service_name)
        return self._resources[1]


def nanoseconds(ts: str) -> int:
    """Return the time of a record in nanoseconds since the epoch."""
    since = datetime.fromisoformat(ts) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000


def _resource(workload: str | None, run: str, service_name: str | None) -> Resource:
    domain, _, path = (workload or "").removeprefix("spiffe://").partition("/")
    attributes = {
        "service.name": service_name or path or "sidecar",
        "service.version": __version__,
        "service.instance.id": run,
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": _sdk_version,
    }
    if workload is not None:
        attributes |= {"service.namespace": domain, "delegation.workload": workload}
    return Resource(attributes)


def _name(record: Record) -> str:
    """Name a span after the operation, or the method and route, never after a caller's text."""
    op = record["op"] or ""
    if op.partition(":")[0] in _MCP or op in OPERATIONS:
        return str(op.replace(":", " ", 1))
    method = record["method"] if record["method"] in _KNOWN_METHODS else "HTTP"
    return f"{method} {record['route']}" if record["route"] else str(method)


def _of_operation(op: str | None) -> dict[str, Value]:
    """Return the attributes of an operation of MCP. Names are those that the settings list, or ``other``."""
    method, _, name = (op or "").partition(":")
    if method not in _MCP:
        return {}
    attributes: dict[str, Value] = {"mcp.method.name": method}
    if method == "tools/call":
        attributes["gen_ai.operation.name"] = "execute_tool"
    attribute = _NAMES.get(method)
    if attribute is not None and name:
        attributes[attribute] = name
    return attributes


def _is_error(record: Record) -> bool:
    """True for an error by the conventions: inbound a status from 500 on, outbound one from 400 on or a refusal.

    A call of A2A that is refused by an error of JSON-RPC has status 200.
    """
    if record["direction"] == "inbound":
        return (record["status"] or 0) >= 500
    refused = record["decision"] == "deny" or record["reason"] == Reason.NEXT_HOP_REFUSED
    return refused or (record["status"] or 0) >= 400


def _status(record: Record, *, failed: bool) -> Status:
    if _is_error(record) or (failed and record["status"] is None):
        return Status(StatusCode.ERROR)
    return Status(StatusCode.UNSET)


def _links(link: Parent | None) -> tuple[Link, ...]:
    return () if link is None else (Link(_context(link.trace_id, link.span_id, remote=True)),)


def _pick_attributes(record: Record, names: Mapping[str, str]) -> dict[str, Value]:
    return {
        attribute: str(value) if isinstance(value, str) else value
        for attribute, value in ((attribute, record[key]) for attribute, key in names.items())
        if value is not None
    }


def _context(trace_id: str, span_id: str, *, remote: bool = False) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=remote, trace_flags=_SAMPLED)


def _ns(milliseconds: float) -> int:
    return int(milliseconds * 1000 + 0.5) * 1000
