"""From a request to the operation that it asks for, on routes of MCP, A2A and gRPC.

Theory of operation. On routes of MCP and A2A a body is read before the decision: whole, within a limit, by the strict
parser. What it asks for selects the route of the operation, by which everything else is decided; the stream holds the
same bytes for the agent, so that it is sent what was judged. The record names operations that the settings list, and
nothing else of the message. A call of gRPC names its operation by its path. Its messages are read on routes of A2A
alone, which has a binding to gRPC.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, TypeVar
from urllib.parse import parse_qsl

from sidecar.delegation import a2a, a2a_grpc, mcp
from sidecar.delegation.a2a_tasks import NOTHING_NAMED, Named, tasks_named
from sidecar.delegation.grpc import key_of_path, label_of
from sidecar.delegation.grpc_messages import HEAD
from sidecar.delegation.json_rpc import (
    ID_WITHIN,
    MessageId,
    MessageRefused,
    RpcMessage,
    id_at_beginning,
    parse_plain_body,
    parse_rpc,
)
from sidecar.delegation.operation import OTHER, RouteProtocol
from sidecar.delegation.push_urls import check_push_urls
from sidecar.delegation.route import InboundRoute, OutboundRoute
from sidecar.delegation.target import CanonicalTarget
from sidecar.errors import Denied, Reason
from sidecar.observe.access_log import Entry
from sidecar.proxy.journeys.journey import BodyUpTo, Journey
from sidecar.wire.grpc import is_grpc
from sidecar.wire.message import Request
from sidecar.wire.stream import Stream

_PARAM: Final = b"mcp-param-"
SESSION_FIELD: Final = b"mcp-session-id"
_OF_SESSIONS: Final = frozenset({SESSION_FIELD, b"last-event-id"})

_Route = TypeVar("_Route", InboundRoute, OutboundRoute)


class Asked:
    """The operation that a request asks for, as far as it was read: ``message_id`` is for the answer to it.

    ``named`` are the tasks and contexts of A2A that it names. No more than ``max_bytes`` of its body is read.
    """

    __slots__ = (
        "code",
        "facts",
        "first_page",
        "first_version",
        "grpc",
        "json_rpc",
        "key",
        "max_bytes",
        "message",
        "message_id",
        "named",
        "posts_alone",
        "protocol",
        "stateless",
        "task",
    )

    def __init__(self, protocol: RouteProtocol) -> None:
        self.protocol = protocol
        self.json_rpc = True  # False: a request of A2A's HTTP+JSON, or by gRPC
        self.grpc = False  # a call of gRPC: of A2A, or of any service
        self.first_page = True  # of a list of A2A: the request has no token of a page
        self.first_version = False  # of A2A: 0.3
        self.message_id: MessageId = None
        self.message: RpcMessage | None = None
        self.key = OTHER
        self.task: str | None = None
        self.stateless = False  # MCP: of a revision without sessions
        self.posts_alone = False  # MCP: the answer is 405 with Allow: POST
        self.named: Named = NOTHING_NAMED
        self.max_bytes = sys.maxsize
        self.code: int | None = None  # of a fault of the message itself, and what is told beside it
        self.facts: Mapping[str, object] = {}


def find_operation(
    asked: Asked,
    stream: Stream,
    head: Request,
    target: CanonicalTarget,
    route: _Route,
    entry: Entry,
    *,
    below: str | None,
) -> Journey[_Route]:
    """Read what a request asks for, and return the route of that operation.

    ``below`` is the path below that of the interface, empty at it. None: it is not known where that begins, as on the
    agent's side; the target's own sidecar knows.

    Raises:
        Denied: OPERATION_MALFORMED, PROTOCOL_VERSION, OPERATION_REFUSED, PUSH_URL_REFUSED, UPGRADE_REFUSED, TOO_LARGE;
            TIMEOUT or BAD_REQUEST, the body is late or malformed.
    """
    entry.op = OTHER
    if head.upgrade is not None:
        raise Denied(Reason.UPGRADE_REFUSED, "the route's protocol has no upgrades")
    try:
        if route.protocol == "grpc":
            _grpc(asked, stream, head, target)
        elif route.protocol == "mcp":
            yield from _mcp(asked, stream, head, route)
        else:
            yield from _a2a(asked, stream, head, target, route, below)
    except MessageRefused as refused:
        if refused.id is not None:
            asked.message_id = refused.id
        asked.code, asked.facts = refused.code, refused.facts
        raise
    assert route.operations is not None  # noqa: S101 - for the type only: a route of a protocol has them
    if asked.protocol == "grpc":
        entry.op = label_of(route.operations, asked.key)
    else:
        entry.op = route.operations.label(asked.key)
    entry.operation = asked.key
    found = route.for_operation(asked.key)
    if asked.protocol == "a2a" and asked.message is not None:
        check_push_urls(asked.key, asked.message.params, route.a2a.push_urls)
    asked.message = None  # it takes many times the bytes of its body, and an answer may last
    return found


def _grpc(asked: Asked, stream: Stream, head: Request, target: CanonicalTarget) -> None:
    """Read the operation of a call of gRPC: its path alone names it.

    Raises:
        Denied: OPERATION_MALFORMED, it is no such call; METHOD_REFUSED.
    """
    if head.method != "POST":
        raise Denied(Reason.METHOD_REFUSED, "calls of gRPC use POST")
    if not (stream.http2 and is_grpc(head)):
        raise Denied(Reason.OPERATION_MALFORMED, "the call is not one of gRPC over HTTP/2")
    asked.grpc = True
    asked.key = key_of_path(target.path, target.query)


def _mcp(asked: Asked, stream: Stream, head: Request, route: InboundRoute | OutboundRoute) -> Journey[None]:
    version = _text(head, b"mcp-protocol-version")
    if head.method not in {"POST", "GET", "DELETE"}:
        raise Denied(Reason.METHOD_REFUSED, "MCP has no such method")
    if head.method != "POST":
        _refuse_body(head)
        mcp.check_version(version)
        asked.stateless = version in mcp.STATELESS
        of_none = head.layout.places.keys().isdisjoint(_OF_SESSIONS)
        if asked.stateless or (head.method == "GET" and of_none):
            asked.posts_alone = True  # clients of every revision work without a stream
            raise Denied(Reason.METHOD_REFUSED, "only a session has a stream of its own, or an end")
        asked.key = mcp.STREAM if head.method == "GET" else mcp.DELETE
        return
    message = yield from _message(asked, stream, head, route)
    method, name = _text(head, b"mcp-method"), _text(head, b"mcp-name")
    params = [(name, head.values[at].decode("latin-1")) for name, at in _params(head.layout.names)]
    asked.stateless = mcp.check_fields(message, version=version, method=method, name=name, params=params)
    asked.key = mcp.operation_of(message, stateless=asked.stateless)


def _a2a(
    asked: Asked,
    stream: Stream,
    head: Request,
    target: CanonicalTarget,
    route: InboundRoute | OutboundRoute,
    below: str | None,
) -> Journey[None]:
    fields = [value.decode("latin-1") for value in head.all(b"a2a-version")]
    if stream.http2 and is_grpc(head):
        yield from _a2a_by_grpc(asked, stream, head, target, route, fields)
        return
    if a2a_grpc.is_path_of_service(target.path):
        raise MessageRefused("the call is not one of gRPC over HTTP/2")
    path = target.path if below is None else below
    asked.json_rpc = path in {"", "/"} or (below is None and not a2a.is_path_of_operation(path))
    parameters = parse_qsl(target.query.decode("latin-1"), keep_blank_values=True)
    query = [value for name, value in parameters if name.casefold() == "a2a-version"]
    asked.first_version = a2a.is_first_version(fields, query)
    if asked.json_rpc:
        if head.method != "POST":
            raise MessageRefused("JSON-RPC is sent by POST")
        message = yield from _message(asked, stream, head, route)
        a2a.check_version(fields, query)  # once the answer can have the message's id
        asked.key = a2a.operation_of(message)
        asked.named = tasks_named(asked.key, message, None, parameters)
        asked.first_page = a2a.is_first_page(message.params.items())
        return
    a2a.check_version(fields, query)
    asked.key, asked.task = a2a.operation_of_path(head.method, path, anywhere=below is None)
    if head.method == "POST":
        body = yield from _body(asked, stream, head, route, may_be_empty=True)
        if body:
            asked.message = RpcMessage(None, None, parse_plain_body(body, max_bytes=route.max_message_bytes))
            a2a.check_params(asked.message)
    else:
        _refuse_body(head)
    asked.named = tasks_named(asked.key, asked.message, asked.task, parameters)
    asked.first_page = a2a.is_first_page(parameters)


def _a2a_by_grpc(
    asked: Asked,
    stream: Stream,
    head: Request,
    target: CanonicalTarget,
    route: InboundRoute | OutboundRoute,
    versions: Iterable[str],
) -> Journey[None]:
    """Read a call of A2A by gRPC: its path names the operation, wherever the interface of the other bindings is."""
    asked.grpc, asked.json_rpc = True, False
    if head.method != "POST":
        raise Denied(Reason.METHOD_REFUSED, "calls of gRPC use POST")
    asked.first_version = a2a_grpc.is_first_version(target.path)  # its refusals have another form
    call = a2a_grpc.call_of_path(target.path, target.query)
    a2a_grpc.check_version(versions, call.version)
    a2a_grpc.check_media(head.all(b"content-type"), (*head.all(b"grpc-encoding"), *head.all(b"content-encoding")))
    if not head.has_body:
        raise MessageRefused("there is no message")
    body: bytes = yield BodyUpTo(stream, min(route.max_message_bytes, asked.max_bytes) + HEAD)
    asked.message = a2a_grpc.message_of(body, call.method)
    asked.key = call.method.operation
    asked.named = tasks_named(asked.key, asked.message, None)
    asked.first_page = a2a.is_first_page(asked.message.params.items())


def _message(asked: Asked, stream: Stream, head: Request, route: InboundRoute | OutboundRoute) -> Journey[RpcMessage]:
    body = yield from _body(asked, stream, head, route)
    message = asked.message = parse_rpc(body, max_bytes=route.max_message_bytes)
    asked.message_id = message.id
    return message


def _body(
    asked: Asked, stream: Stream, head: Request, route: InboundRoute | OutboundRoute, *, may_be_empty: bool = False
) -> Journey[bytes]:
    """Wait for the whole body of a request. It must be JSON as it is, not coded in any way.

    Raises:
        MessageRefused: OPERATION_MALFORMED, it is not.
    """
    if not head.has_body:
        if may_be_empty:
            return b""
        raise MessageRefused("there is no message")
    if any(value.strip().lower() != b"identity" for value in head.all(b"content-encoding")):
        raise MessageRefused("the message is encoded")
    content_type = _text(head, b"content-type") or ""
    if content_type != "application/json" and (fault := _fault_of_media(content_type)) is not None:
        raise MessageRefused(fault)
    proven = asked.max_bytes >= route.max_message_bytes  # its token was valid, or it is the agent's
    wait = BodyUpTo(
        stream,
        min(route.max_message_bytes, asked.max_bytes),
        look_at=ID_WITHIN if asked.json_rpc and proven else 0,
    )
    try:
        body: bytes = yield wait
    except Denied as denied:
        if denied.reason is Reason.TOO_LARGE:
            asked.message_id = id_at_beginning(wait.beginning)
        raise
    return body


def _fault_of_media(content_type: str) -> str | None:
    media, _, parameters = content_type.partition(";")
    if media.strip().lower() not in {"application/json", "application/a2a+json"}:
        return "the message is not said to be JSON"
    if parameters.strip().lower().replace('"', "") not in {"", "charset=utf-8"}:
        return "the message is not said to be UTF-8"
    return None


@lru_cache(maxsize=64)  # by the names of a head, of which a client has few sets
def _params(names: tuple[bytes, ...]) -> list[tuple[str, int]]:
    """Return the rest of the names of ``Mcp-Param-*``, and their places."""
    return [(name[len(_PARAM) :].decode("latin-1"), at) for at, name in enumerate(names) if name.startswith(_PARAM)]


def _refuse_body(head: Request) -> None:
    if head.has_body:
        raise MessageRefused("a body where none belongs")


def _text(head: Request, name: bytes) -> str | None:
    """Return the value of a field that must not be repeated. Raises Denied: HEADER_MALFORMED, it is."""
    value = head.one(name)
    return None if value is None else value.decode("latin-1")
