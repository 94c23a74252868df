"""Forwards a request for an MCP list, and removes operations that the reader may not call from the answer.

The sidecar buffers an answer in JSON, or one event of a stream, up to a limit. It refuses an unreadable answer, because
that could list any operation. It requests an answer without content coding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from delegation_core import mcp
from delegation_core.callable import may_call
from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.mcp_lists import FILTERED, cut_lists
from delegation_core.permit import ObservedPermit, Permit
from delegation_core.route import InboundRoute
from sidecar.features.mcp.event_messages import EventMessages
from sidecar.features.mcp.forwarding import McpForwarding
from sidecar.features.mcp.operation import McpOperation
from sidecar.features.mcp.sessions import RequestSession
from sidecar.features.operations.content import ASKED_FOR, OF_OTHER_CONTENT
from sidecar.identity.tls import guard_of
from sidecar.proxy.journeys.forward import Way
from sidecar.proxy.journeys.headers import without
from sidecar.wire.message import Edits, Response, is_event_stream, new_edits

_LISTING: Final = FILTERED | {mcp.STREAM}  # a resumed stream repeats answers


def forwarding_of(way: Way, session: RequestSession, asked: McpOperation) -> McpForwarding:
    """Return the forwarding of an MCP request; that of a list cuts the list, if the route has ``filter_lists``."""
    permit = way.permit
    if isinstance(permit, Permit | ObservedPermit):
        route = permit.route
        if isinstance(route, InboundRoute) and is_cut(route, asked):
            return ListForwarding(way, session, permit, asked, max_bytes=route.max_message_bytes)
    return McpForwarding(way, session)


def is_cut(route: InboundRoute, asked: McpOperation) -> bool:
    """Return True if the answer to a message must be cut: it may be a list, and the route has ``filter_lists``."""
    return route.filter_lists and asked.key in _LISTING


class ListForwarding(McpForwarding):
    """A request for a list, or for a stream that may repeat a list. Buffers at most ``max_bytes`` of the answer."""

    __slots__ = ("_asked", "_collected", "_events", "_max_bytes", "_reader")

    def __init__(
        self,
        way: Way,
        session: RequestSession,
        reader: Permit | ObservedPermit,
        asked: McpOperation,
        *,
        max_bytes: int,
    ) -> None:
        super().__init__(way, session)
        passes, names, values = self._edits
        self._edits = new_edits((without(passes, ASKED_FOR), (*names, b"accept-encoding"), (*values, b"identity")))
        self._reader = reader
        self._asked = asked
        self._max_bytes = max_bytes
        self._collected: bytearray | None = None
        self._events: EventMessages | None = None

    def rewrite(self, head: Response) -> Edits:
        """Return the edits to the answer's fields; drop those that describe the uncut content."""
        passes, names, values = super().rewrite(head)
        return new_edits((without(passes, OF_OTHER_CONTENT), names, values))

    def on_whole_response(self, head: Response, data: bytes) -> None:
        """Cut a whole answer and pass it back."""
        self._upstream = None  # the connection may serve another request already
        try:
            if data and _is_readable(head):
                data = self._events_of(data) if is_event_stream(head) else self._cut(data)
        except SidecarError as error:
            self._refuse(head, error)
            return
        if data:
            head = replace(head, content_length=len(data), chunked=False)
        super().on_whole_response(head, data)

    def on_response(self, head: Response, data: bytes) -> None:
        """Begin to pass a stream back, or to buffer an answer in JSON."""
        try:
            readable = _is_readable(head)
        except SidecarError as error:
            self._refuse(head, error)
            return
        if not readable:
            super().on_response(head, data)
        elif is_event_stream(head):
            self._events = EventMessages(self._cut, max_bytes=self._max_bytes)
            super().on_response(replace(head, content_length=None), b"")
            self.on_response_data(data)
        else:
            self.response = head
            self._collected = bytearray()
            self.unfinished(head)
            self.on_response_data(data)

    def on_response_data(self, data: bytes) -> None:
        """Pass complete events back, or buffer JSON."""
        if self._over:
            return
        if self._collected is not None:
            self._collected += data
            if len(self._collected) > self._max_bytes:
                self._finish(Denied(Reason.LIST_UNREADABLE, "the list is too long"))
        elif self._events is None:
            super().on_response_data(data)
        elif data:
            try:
                passed = self._events.feed(data)
            except SidecarError as error:
                self._end_events(error)
                return
            if passed:
                super().on_response_data(passed)

    def on_response_end(self) -> None:
        """Cut the buffered JSON and pass it back, or end the stream."""
        self._upstream = None
        if self._collected is not None and self.response is not None:
            self.on_whole_response(self.response, bytes(self._collected))
            return
        try:
            rest = b"" if self._events is None else self._events.rest()
        except SidecarError as error:
            self._end_events(error)
            return
        if rest:
            super().on_response_data(rest)
        super().on_response_end()

    def _cut(self, document: bytes) -> bytes:
        return cut_lists(document, self._may_call, max_bytes=self._max_bytes)

    def _events_of(self, data: bytes) -> bytes:
        events = EventMessages(self._cut, max_bytes=self._max_bytes)
        return events.feed(data) + events.rest()

    def _may_call(self, operation: str) -> bool:
        watch, entry, stream = self._forwarder.watch, self._entry, self._stream
        policy = watch.snapshots.in_force().policy
        return may_call(
            self._reader,
            policy.inbound.find(entry.method or "", entry.path or ""),
            operation,
            policy=policy,
            now=int(watch.wall()),
            peer_certificate_sha256=None if stream.ssl_object is None else guard_of(stream.transport).peer.fingerprint,
        )

    def _refuse(self, head: Response, error: SidecarError) -> None:
        self._entry.responded(head.status)
        self._finish(error)

    def _end_events(self, error: SidecarError) -> None:
        """Cut a stream that has begun; if the request has an id, first send an event that answers it with ``error``."""
        if self._asked.message_id is not None:
            self._stream.send_data(self._asked.event(error, self._entry.request_id))
            self._stream.send_end()
        self.cut(error)


def _is_readable(head: Response) -> bool:
    """Return True if an answer may contain a list and can be cut; False if it cannot contain one.

    Raises:
        Denied: LIST_UNREADABLE, the answer may contain a list and cannot be cut.
    """
    if any(value.strip().lower() != b"identity" for value in head.all(b"content-encoding")):
        raise Denied(Reason.LIST_UNREADABLE, "the answer is encoded, though identity was asked for")
    if is_event_stream(head):
        return True
    kinds = [value.partition(b";")[0].strip().lower() for value in head.all(b"content-type")]
    if kinds == [b"application/json"]:
        return True
    if 200 <= head.status < 300 or b"application/json" in kinds:
        raise Denied(Reason.LIST_UNREADABLE, "the answer is not said to be JSON, or a stream of events")
    return False
