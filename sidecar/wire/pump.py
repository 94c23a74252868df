"""Pump: passes one request to one upstream and its answer back, each direction at the pace of the slower end.

Usage: decide first, then make a subclass's ``(stream, head, pool, origin, target, edits)`` and ``start`` it. ``edits``
are those of the request's fields, Host included. A subclass implements:

- ``rewrite(head)`` returns the edits of the answer's fields;
- ``unfinished(head)`` is called once if the answer did not end with the bytes that brought its head;
- ``done(error)`` is called exactly once, later or within ``start``: with None after a whole answer, else with the
  reason. If ``stream.status`` is 0 then, nothing was sent and ``done`` must answer; else the pump has cut the answer.

``cut(error)`` ends the transfer at once, and ``end(error)`` by the protocol's own goodbye, which may take a moment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from delegation_core.errors import Denied, Reason, SidecarError
from sidecar.wire.dialer import Origin
from sidecar.wire.grpc import is_grpc
from sidecar.wire.h1_fields import edited
from sidecar.wire.lifetimes import Kind
from sidecar.wire.message import Edits, Field, Request, Response, is_event_stream
from sidecar.wire.pool import Cancellable, UpstreamPool
from sidecar.wire.stream import Stream
from sidecar.wire.upstream_errors import StaleConnection, UnseenRequest

if TYPE_CHECKING:
    from sidecar.wire.tunnel import Tunnel

if TYPE_CHECKING:
    from sidecar.wire.upstream import Exchange, Upstream

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110 section 9.2.2


class Pump(ABC):
    """Passes one stream through one upstream connection, with back-pressure both ways.

    ``response``: the upstream's head, once received; ``retried``: a reused connection proved stale.
    """

    __slots__ = (
        "_connecting",
        "_edits",
        "_head",
        "_origin",
        "_over",
        "_pool",
        "_stream",
        "_target",
        "_tunnel",
        "_upstream",
        "response",
        "retried",
    )

    def __init__(
        self,
        stream: Stream,
        head: Request,
        pool: UpstreamPool,
        origin: Origin,
        target: bytes,
        edits: Edits,
    ) -> None:
        self._stream = stream
        self._head = head
        self._pool = pool
        self._origin = origin
        self._target = target
        self._edits = edits
        self.response: Response | None = None
        self.retried = False
        self._over = False
        self._connecting: Cancellable | None = None
        self._upstream: Upstream | None = None
        self._tunnel: Tunnel | None = None

    @abstractmethod
    def rewrite(self, head: Response) -> Edits:
        """Return the edits to the answer's fields."""

    @abstractmethod
    def unfinished(self, head: Response) -> None:
        """Note that more of the answer comes later."""

    @abstractmethod
    def done(self, error: SidecarError | None) -> None:
        """Handle the end of the transfer."""

    def start(self) -> None:
        """Begin: at once on an idle connection, else on a new one."""
        stream = self._stream
        if stream.gone:
            self.on_caller_gone()
            return
        stream.sender = self
        upstream = self._pool.take(self._origin)
        if upstream is None:
            self._connect()
        else:
            self._send(upstream)

    def cut(self, error: SidecarError) -> None:
        """End the transfer at once for ``error``.

        The reader of a stream of events by GET ignores a partial event and reconnects (WHATWG HTML section 9.2.6), so
        the stream may end like a complete one. Any other answer must look truncated, also a stream of events by POST:
        nobody reconnects, and its reader would take a part for the whole.
        """
        if self.response is not None and self._head.method == "GET" and is_event_stream(self.response):
            self._stream.send_end()
        self._finish(error)

    def end(self, error: SidecarError) -> None:
        """End the transfer for ``error``; a WebSocket with Close frames of our own, which may take a moment."""
        if self._tunnel is not None:
            self._tunnel.end(error)
        else:
            self.cut(error)

    @property
    def upstream(self) -> Exchange | None:
        """The connection in use, if there is one."""
        return self._upstream if self._tunnel is None else self._tunnel.upstream

    @property
    def unsent(self) -> bool:
        """True if no byte of the request was sent: it waits for its first connection, or never got one."""
        return self._connecting is not None and not self.retried

    def sent_on(self, upstream: Upstream) -> None:
        """Continue a request already sent by the native engine; only its answer is missing."""
        self._upstream = upstream

    @property
    def kind(self) -> Kind:
        """The kind of its bodies."""
        return self._stream.kind

    @property
    def has_deadline(self) -> bool:
        """True if the caller set a deadline for its answer."""
        return self._stream.has_deadline

    def live_as(self, kind: Kind, *, unbounded: bool = False) -> None:
        """Apply the limits of ``kind`` to both ends from now on."""
        self._stream.live_as(kind, self._pool.stream_idle_s, unbounded=unbounded)

    def _connect(self) -> None:
        self._connecting = self._pool.connect(self._origin, self._connected, self._finish, fresh=self.retried)

    def _connected(self, upstream: Upstream) -> None:
        self._connecting = None
        self._send(upstream)

    def _send(self, upstream: Upstream) -> None:
        self._upstream = upstream
        head, stream = self._head, self._stream
        lines = edited(head, self._edits)
        if head.has_body:
            body = stream.take_whole_body()
            if body is not None:
                upstream.ask(head.method, self._target, lines, self, body=body)
            else:
                upstream.start(head.method, self._target, lines, length=head.content_length, sink=self)
                stream.read_body(self)
        elif head.upgrade is not None:
            from sidecar.wire.websocket import handshake_of

            upstream.ask(head.method, self._target, lines, self, handshake_of(head))
        else:
            upstream.ask(head.method, self._target, lines, self)
        if stream.writing_paused:
            upstream.pause_reading()

    def _finish(self, error: SidecarError | None) -> None:
        if self._over:
            return
        self._over = True
        self._stream.sender = None
        if error is not None:
            self._let_go(error)
        self.done(error)

    def _let_go(self, error: SidecarError) -> None:
        """Abort both directions."""
        if self._connecting is not None:
            self._connecting.cancel()
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            tunnel.cut()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()
        if self._stream.status:
            self.cut_answer(error)

    def cut_answer(self, error: SidecarError) -> None:  # noqa: ARG002
        """End an answer that has begun, for ``error``."""
        self._stream.abort()

    # --- the caller's side

    def on_body(self, data: bytes) -> None:
        """Pass content on."""
        if self._upstream is not None:
            self._upstream.send_body(data)

    def on_body_end(self) -> None:
        """End the request."""
        if self._upstream is not None:
            self._upstream.end_body()

    def on_body_error(self, error: SidecarError) -> None:
        """Cut the request, so that the upstream does not take it for a complete one."""
        self._finish(error)

    def on_body_flush(self) -> None:
        """Write once per batch."""
        if self._upstream is not None:
            self._upstream.flush()

    def on_caller_gone(self, error: SidecarError | None = None) -> None:
        """End the transfer: the caller is gone."""
        self._finish(error or Denied(Reason.PEER_GONE, "the caller went away"))

    def on_caller_pause(self) -> None:
        """Slow the upstream down."""
        if self._upstream is not None:
            self._upstream.pause_reading()

    def on_caller_resume(self) -> None:
        """Resume reading from the upstream."""
        if self._upstream is not None:
            self._upstream.resume_reading()

    # --- the upstream's side

    def on_whole_response(self, head: Response, data: bytes) -> None:
        """Give the answer, with one write."""
        self.response = head
        if head.chunked:
            self._begin_answer(head, data)
            self.on_response_end()
        else:
            self._upstream = None
            self._stream.send_whole(head, self.rewrite(head), data)
            self._over = True
            self._stream.sender = None
            self.done(None)

    def on_response(self, head: Response, data: bytes) -> None:
        """Begin the answer."""
        self.response = head
        if head.status == 101:
            self._switch(head, data)
        else:
            self._begin_answer(head, data)
        if not self._over:
            self.unfinished(head)

    def _begin_answer(self, head: Response, data: bytes) -> None:
        self._stream.send_head(head, self.rewrite(head))
        self._stream.send_data(data)

    def _switch(self, head: Response, data: bytes) -> None:
        """Join both ends by a tunnel: they have agreed on another protocol."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            self._stream.switch_protocols(head, self.rewrite(head))
            self.live_as(Kind.WEBSOCKET)
            from sidecar.wire.tunnel import Tunnel  # of WebSocket alone

            tunnel = self._tunnel = Tunnel(self._stream, upstream, finished=self._finish)
            tunnel.open()
            if data:
                tunnel.on_response_data(data)

    def on_response_data(self, data: bytes) -> None:
        """Pass content back."""
        self._stream.send_data(data)

    def on_response_end(self) -> None:
        """End the answer. Trailers are forwarded only in gRPC, and only fields that pass the edits."""
        upstream, self._upstream = self._upstream, None
        self.end_answer(() if upstream is None else upstream.trailers)

    def end_answer(self, found: Sequence[Field]) -> None:
        """End the answer with the upstream's trailers."""
        if found and self._stream.http2 and self.response is not None and is_grpc(self.response):
            passes = self.rewrite(self.response).passes
            self._stream.send_end([field for field in found if passes(field[0])])
        else:
            self._stream.send_end()
        self._finish(None)

    def on_response_error(self, error: SidecarError) -> None:
        """Fail, or replace a stale connection once, where a retry is safe."""
        upstream, self._upstream = self._upstream, None
        if upstream is None or self.retried or not self._may_repeat(error):
            self._finish(error)
            return
        self.retried = True  # once: an upstream of HTTP/2 may refuse the first stream of a new connection too
        self._pool.counts["retried"] += 1
        self._connect()

    def _may_repeat(self, error: SidecarError) -> bool:
        """True if the request may be sent again; keeps its body for the retry."""
        head = self._head
        if isinstance(error, UnseenRequest) and head.has_body and error.body is not None:
            self._stream.hold_body(error.body)
            return True
        safe = isinstance(error, UnseenRequest) or head.method in _IDEMPOTENT
        return isinstance(error, StaleConnection) and safe and not head.has_body

    def on_response_flush(self) -> None:
        """Write once per batch."""
        self._stream.flush()

    def on_upstream_pause(self) -> None:
        """Slow the caller down."""
        self._stream.pause_body()

    def on_upstream_resume(self) -> None:
        """Resume reading from the caller."""
        self._stream.resume_body()
