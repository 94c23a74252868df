"""Base of the operations of protocols above HTTP: parses the operation that a request asks for.

Theory of operation. The strict parser reads the whole body, within a limit, before the decision. The operation in the
body selects the route that decides everything else. The stream keeps the same bytes, so that the judged bytes are the
forwarded bytes. The record names operations that the settings list, and no other part of the message. Each protocol
parses its own form in a subclass of ``Operation``.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Final, TypeVar

import orjson

from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.json_rpc import ID_WITHIN, MessageId, MessageRefused, RpcMessage, id_at_beginning, parse_rpc
from delegation_core.operation import OTHER, RouteProtocol
from delegation_core.route import InboundRoute, OutboundRoute
from delegation_core.target import CanonicalTarget
from sidecar.observe.access_log import Entry
from sidecar.proxy.journeys.journey import Journey
from sidecar.proxy.journeys.whole_body import BodyUpTo
from sidecar.wire.message import Field, Request
from sidecar.wire.stream import Stream

RPC_REFUSED: Final = -32050  # of the range that JSON-RPC 2.0 leaves to servers; neither protocol uses it

_Route = TypeVar("_Route", InboundRoute, OutboundRoute)


class Operation(ABC):
    """Operation of a request; empty until ``find``. ``message_id`` is the message's JSON-RPC id, or None.

    ``max_bytes`` limits the body, besides the route's own limit.
    """

    __slots__ = ("code", "facts", "grpc", "json_rpc", "key", "max_bytes", "message", "message_id")

    protocol: ClassVar[RouteProtocol]

    def __init__(self) -> None:
        self.json_rpc = True  # False: another binding of the protocol
        self.grpc = False  # True: a gRPC call
        self.message_id: MessageId = None
        self.message: RpcMessage | None = None
        self.key = OTHER
        self.max_bytes = sys.maxsize
        self.code: int | None = None  # JSON-RPC error code of a refused message; ``facts`` go beside it
        self.facts: Mapping[str, object] = {}

    @property
    def allow(self) -> Collection[str] | None:
        """Methods for the Allow field of a 405; None: those of the route."""
        return None

    def find(
        self, stream: Stream, head: Request, target: CanonicalTarget, route: _Route, entry: Entry, *, below: str | None
    ) -> Journey[_Route]:
        """Parse the operation of a request and return the route of that operation.

        ``below`` is the path relative to the protocol's endpoint, empty at the endpoint. None: the endpoint's path is
        unknown, as for outbound calls; the target's own sidecar knows it.

        Raises:
            Denied: OPERATION_MALFORMED, PROTOCOL_VERSION, OPERATION_REFUSED, PUSH_URL_REFUSED, UPGRADE_REFUSED,
                TOO_LARGE; TIMEOUT or BAD_REQUEST, the body is late or malformed.
        """
        entry.op = OTHER
        if head.upgrade is not None:
            raise Denied(Reason.UPGRADE_REFUSED, "the route's protocol has no upgrades")
        try:
            yield from self._read(stream, head, target, route, below)
        except MessageRefused as refused:
            if refused.id is not None:
                self.message_id = refused.id
            self.code, self.facts = refused.code, refused.facts
            raise
        entry.op = self._label(route.operations)
        entry.operation = self.key
        found = route.for_operation(self.key)
        self._check(route)
        self.message = None  # parsed, it takes many times the bytes of its body, and the answer may take long
        return found

    @abstractmethod
    def _read(
        self,
        stream: Stream,
        head: Request,
        target: CanonicalTarget,
        route: InboundRoute | OutboundRoute,
        below: str | None,
    ) -> Journey[None]:
        """Parse the request into this object. Raises Denied, as ``find``."""

    def _label(self, operations: Any) -> str:
        """Return the operation's name in records."""
        label: str = operations.label(self.key)
        return label

    def _check(self, route: InboundRoute | OutboundRoute) -> None:  # noqa: B027 - few have something to check
        """Check the arguments of a listed operation. Raises Denied, as ``find``."""

    # --- refusals

    def answer(self, error: SidecarError, request_id: str) -> tuple[int, bytes] | None:
        """Return status and body of a refusal in the protocol's own form; None: it has no such form."""
        return self._rpc_status(error), orjson.dumps(self._rpc_error(error, request_id))

    def event(self, error: SidecarError, request_id: str) -> bytes:
        """Return the server-sent event that refuses a message after its answer stream has begun."""
        return b"event: message\ndata: " + orjson.dumps(self._rpc_error(error, request_id)) + b"\n\n"

    def grpc_status(self, _error: SidecarError, code: int, text: str, _request_id: str) -> tuple[int, str, list[Field]]:
        """Return code, message and additional trailers of a gRPC refusal."""
        return code, text, []

    def _rpc_status(self, error: SidecarError) -> int:
        return error.answer.status

    def _rpc_code(self, _error: SidecarError) -> int:
        return self.code or RPC_REFUSED

    def _rpc_data(self, error: SidecarError, request_id: str) -> object:
        return {
            "reason": error.reason,
            "request_id": request_id,
            "status": self._rpc_status(error),
            **self.facts,
        }

    def _rpc_error(self, error: SidecarError, request_id: str) -> dict[str, object]:
        """Return the error of JSON-RPC 2.0 (section 5.1) that answers a refused message."""
        told = {
            "code": self._rpc_code(error),
            "message": text_of(error),
            "data": self._rpc_data(error, request_id),
        }
        return {"jsonrpc": "2.0", "id": self.message_id, "error": told}

    # --- messages

    def _read_message(self, stream: Stream, head: Request, route: InboundRoute | OutboundRoute) -> Journey[RpcMessage]:
        body = yield from self._read_body(stream, head, route)
        message = self.message = parse_rpc(body, max_bytes=route.max_message_bytes)
        self.message_id = message.id
        return message

    def _read_body(
        self, stream: Stream, head: Request, route: InboundRoute | OutboundRoute, *, may_be_empty: bool = False
    ) -> Journey[bytes]:
        """Wait for the whole body of a request. The head must declare JSON in UTF-8, without content coding.

        Raises:
            MessageRefused: OPERATION_MALFORMED, the head declares something else, or no body.
            Denied: TOO_LARGE; or as ``find``, the body is late or malformed.
        """
        if not head.has_body:
            if may_be_empty:
                return b""
            raise MessageRefused("the request has no body")
        if any(value.strip().lower() != b"identity" for value in head.all(b"content-encoding")):
            raise MessageRefused("the message is encoded")
        content_type = text_field(head, b"content-type") or ""
        if content_type != "application/json" and (problem := _problem_of_media(content_type)) is not None:
            raise MessageRefused(problem)
        proven = self.max_bytes >= route.max_message_bytes  # the token was verified, or the agent itself calls
        wait = BodyUpTo(
            stream,
            min(route.max_message_bytes, self.max_bytes),
            look_at=ID_WITHIN if self.json_rpc and proven else 0,
        )
        try:
            body: bytes = yield wait
        except Denied as denied:
            if denied.reason is Reason.TOO_LARGE:
                self.message_id = id_at_beginning(wait.beginning)
            raise
        return body


def _problem_of_media(content_type: str) -> str | None:
    media, _, parameters = content_type.partition(";")
    if media.strip().lower() not in {"application/json", "application/a2a+json"}:
        return "the message is not said to be JSON"
    if parameters.strip().lower().replace('"', "") not in {"", "charset=utf-8"}:
        return "the message is not said to be UTF-8"
    return None


def refuse_body(head: Request) -> None:
    """Refuse a body on a request that must not have one. Raises MessageRefused."""
    if head.has_body:
        raise MessageRefused("a body where none belongs")


def text_field(head: Request, name: bytes) -> str | None:
    """Return the value of a field, or None. Raises Denied (HEADER_MALFORMED) if the field is repeated."""
    value = head.one(name)
    return None if value is None else value.decode("latin-1")


def text_of(error: SidecarError) -> str:
    """Return the text of a refusal for the caller: the answer's text and the reason code."""
    return f"{error.answer.text} ({error.reason})"
