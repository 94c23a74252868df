"""Streams an authorised request to its upstream and the answer back. Takes a permit: no permit, no bytes upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from sidecar.delegation.decide import IssuedPermit, Permit
from sidecar.errors import Denied, Reason, SidecarError
from sidecar.identity.svid import VerifiedPeer
from sidecar.identity.tls import guard_of
from sidecar.observe.access_log import Entry
from sidecar.proxy.journey import Waiter
from sidecar.proxy.snapshot import Snapshot
from sidecar.proxy.standing import stands
from sidecar.proxy.streams import Streams
from sidecar.wire.body import Pump
from sidecar.wire.exchange import ServerExchange
from sidecar.wire.head import RequestHead, ResponseHead, is_event_stream
from sidecar.wire.pool import Origin, UpstreamPool

_PERMITS: Final = (Permit, IssuedPermit)

AnswerLines = Callable[[ResponseHead], bytes]


class Forwarder:
    """What requests are sent to upstreams with. ``answer_lines`` makes of an answer's head the lines that may pass.

    ``max_stream_s`` is the longest an answer may take that outlives its token.
    """

    __slots__ = ("answer_lines", "max_stream_s", "pool", "streams")

    def __init__(self, pool: UpstreamPool, answer_lines: AnswerLines, streams: Streams, *, max_stream_s: float) -> None:
        self.pool = pool
        self.answer_lines = answer_lines
        self.streams = streams
        self.max_stream_s = max_stream_s


class Forwarding(Pump):
    """The wait for one whole answer: it ends with the upstream's status once that has passed.

    ``target`` and ``lines`` are what goes upstream, complete but for the fields that state the body's length.

    The wait raises:
        SidecarError: UPSTREAM_*, TIMEOUT or TOO_LARGE (the body), PEER_GONE, or why it may not go on. If
            ``exchange.status`` is set by then, an answer had begun and was cut, else the caller must answer.
    """

    __slots__ = ("_entry", "_forwarder", "_lasting", "_permit", "_waiter")

    _waiter: Waiter | None  # from when it begins

    def __init__(
        self,
        forwarder: Forwarder,
        permit: Permit | IssuedPermit,
        exchange: ServerExchange,
        head: RequestHead,
        entry: Entry,
        origin: Origin,
        target: bytes,
        lines: bytes,
    ) -> None:
        if not isinstance(permit, _PERMITS):
            raise TypeError("nothing is forwarded without a permit")
        Pump.__init__(self, exchange, head, forwarder.pool, origin, target, lines)
        self._forwarder = forwarder
        self._permit = permit
        self._entry = entry
        self._lasting: _Lasting | None = None

    def begin(self, waiter: Waiter) -> None:
        """Send the request."""
        self._waiter = waiter
        self._entry.forwarded()
        self.start()

    def cancel(self) -> None:
        """Give it up."""
        self._waiter = None
        self.cut(Denied(Reason.PEER_GONE))

    def rewrite(self, head: ResponseHead) -> bytes:
        """What may pass of the answer's lines."""
        self._entry.responded(head.status)
        return self._forwarder.answer_lines(head)

    def unfinished(self, head: ResponseHead) -> None:
        """From now on the answer is one that lasts."""
        if _streams(head):
            self._entry.opened()
        if self.upstream is None:
            return
        self._lasting = _Lasting(
            self._permit,
            self._exchange,
            self._entry,
            self,
            endless=head.status == 101 or (self._head.method == "GET" and is_event_stream(head)),
            stops_at=self._forwarder.streams.monotonic() + self._forwarder.max_stream_s,
        )
        self._forwarder.streams.add(self._lasting)

    def done(self, error: SidecarError | None) -> None:
        """The journey goes on."""
        if self._lasting is not None:
            self._forwarder.streams.discard(self._lasting)
            self._lasting = None  # it knows this object: a circle would keep both until the garbage collector comes by
        waiter = self._waiter
        if waiter is None:
            return
        if error is not None:
            waiter.fail(error)
        else:
            waiter.resume(self._exchange.status)


class _Lasting:
    """An answer under way that did not end with its beginning, as ``Streams`` watches it."""

    __slots__ = (
        "_entry",
        "_exchange",
        "_permit",
        "_pump",
        "direction",
        "endless",
        "peer_expires_at",
        "stops_at",
        "token_expires_at",
        "transport",
    )

    def __init__(
        self,
        permit: Permit | IssuedPermit,
        exchange: ServerExchange,
        entry: Entry,
        pump: Pump,
        *,
        endless: bool,
        stops_at: float,
    ) -> None:
        self._permit = permit
        self._entry = entry
        self._pump = pump
        self._exchange = exchange
        self.direction = entry.direction
        self.endless = endless
        self.stops_at = stops_at
        self.token_expires_at = float(permit.token.expires_at)
        upstream = pump.upstream if isinstance(permit, IssuedPermit) else None
        self.transport: asyncio.BaseTransport = exchange.transport if upstream is None else upstream.transport
        peer = _peer_on(self.transport)
        self.peer_expires_at = float("inf") if peer is None else float(peer.not_after)

    def judge(self, snapshot: Snapshot, now: int) -> None:
        peer = _peer_on(self.transport)
        stands(
            self._permit,
            snapshot,
            method=self._entry.method or "",
            path=self._entry.path or "",
            now=now,
            peer_certificate_sha256=None if peer is None else peer.fingerprint,
        )

    def end(self, error: SidecarError) -> None:
        self._pump.end(error)

    def cut(self, error: SidecarError) -> None:
        try:
            self._exchange.stop(error)
        finally:
            self._exchange.cut_off()


def _peer_on(transport: asyncio.BaseTransport) -> VerifiedPeer | None:
    """The peer of a connection; None without TLS."""
    return None if transport.get_extra_info("ssl_object") is None else guard_of(transport).peer


def _streams(head: ResponseHead) -> bool:
    """Whether nobody can tell when this answer will end."""
    return head.chunked or head.content_length is None or is_event_stream(head)
