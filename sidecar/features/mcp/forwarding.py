"""Forwards an MCP request and its answer, and translates between the peer's bound session id and the agent's own."""

from __future__ import annotations

from dataclasses import replace

from delegation_core import mcp
from delegation_core.errors import Denied
from delegation_core.permit import IssuedPermit
from delegation_core.route import InboundRoute
from sidecar.features.mcp.event_ids import EventIds
from sidecar.features.mcp.sessions import RequestSession
from sidecar.proxy.journeys.forward import Forwarding, Way
from sidecar.wire.message import Edits, Response, is_event_stream


class McpForwarding(Forwarding):
    """An MCP request in a ``session``. Refuses an answer with an invalid session id.

    Event ids are bound to the session, so that no other session can resume its stream.
    """

    __slots__ = ("_answer_edits", "_event_ids", "_listens", "_session")

    def __init__(self, way: Way, session: RequestSession) -> None:
        super().__init__(*way._replace(edits=session.to_agent(way.edits)))
        permit = way.permit
        self._session = session
        route = permit.plan.route if isinstance(permit, IssuedPermit) else permit.route
        self._listens = isinstance(route, InboundRoute) and route.operation == mcp.LISTEN
        self._answer_edits = way.forwarder.answer_edits
        self._event_ids: EventIds | None = None

    @property
    def endless(self) -> bool:
        """True if the forwarding has no natural end: a stream by GET, or of subscriptions (MCP 2026-07-28)."""
        return super().endless or (self._listens and self.response is not None and is_event_stream(self.response))

    def rewrite(self, head: Response) -> Edits:
        """Return the edits to the answer's fields, with the peer's id of the session."""
        super().rewrite(head)
        return self._answer_edits

    def on_whole_response(self, head: Response, data: bytes) -> None:
        """Pass a whole answer back."""
        self._upstream = None  # the connection may serve another request already
        if not self._is_usable(head):
            return
        event_ids = self._session.event_ids() if is_event_stream(head) else None
        if event_ids is not None and data:
            try:
                data = event_ids.feed(data)
            except Denied as error:
                self._refuse_answer(head, error)
                return
            head = replace(head, content_length=len(data), chunked=False)
        super().on_whole_response(head, data)

    def on_response(self, head: Response, data: bytes) -> None:
        """Begin to pass the answer back."""
        if not self._is_usable(head):
            return
        event_ids = self._session.event_ids() if is_event_stream(head) else None
        if event_ids is None:
            super().on_response(head, data)
            return
        super().on_response(replace(head, content_length=None), b"")
        self._event_ids = event_ids
        if data:
            self.on_response_data(data)

    def on_response_data(self, data: bytes) -> None:
        """Pass content back, with bound event ids."""
        if self._event_ids is not None:
            try:
                data = self._event_ids.feed(data)
            except Denied as error:
                self.cut(error)
                return
        if data:
            super().on_response_data(data)

    def _refuse_answer(self, head: Response, error: Denied) -> None:
        self._entry.responded(head.status)
        self._finish(error)

    def _is_usable(self, head: Response) -> bool:
        try:
            self._answer_edits = self._session.from_agent(head, self._forwarder.answer_edits)
        except Denied as error:
            self._refuse_answer(head, error)
            return False
        return True
