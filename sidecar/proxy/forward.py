"""Streams an authorised request to its upstream and the answer back. Takes a permit: no permit, no bytes upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from sidecar.delegation.decide import IssuedPermit, Permit
from sidecar.errors import Denied, Reason, SidecarError
from sidecar.identity.handshake import PeerGuard
from sidecar.identity.tls import guard_of
from sidecar.observe.access_log import Entry
from sidecar.observe.record import Direction
from sidecar.proxy.journey import Waiter
from sidecar.proxy.snapshot import Snapshot
from sidecar.proxy.standing import judge_call, judge_request
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

    __slots__ = (
        "_entry",
        "_forwarder",
        "_lasts",
        "_permit",
        "_waiter",
        "direction",
        "endless",
        "peer_expires_at",
        "stops_at",
        "token_expires_at",
        "transport",
    )

    _waiter: Waiter | None  # from when it begins

    # From when its answer lasts, as ``Streams`` watches it.
    direction: Direction
    endless: bool
    peer_expires_at: float
    stops_at: float
    token_expires_at: float
    transport: asyncio.BaseTransport

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
        self._lasts = False

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
        """From now on the answer is one that lasts, and watched."""
        if _streams(head):
            self._entry.opened()
        upstream = self.upstream
        if upstream is None:
            return
        permit, streams = self._permit, self._forwarder.streams
        self.direction = self._entry.direction
        self.endless = head.status == 101 or (self._head.method == "GET" and is_event_stream(head))
        self.stops_at = streams.monotonic() + self._forwarder.max_stream_s
        self.token_expires_at = float(permit.token.expires_at)
        self.transport = upstream.transport if isinstance(permit, IssuedPermit) else self._exchange.transport
        guard = _guard_on(self.transport)
        self.peer_expires_at = float("inf") if guard is None else float(guard.until)
        self._lasts = True
        streams.add(self)

    def done(self, error: SidecarError | None) -> None:
        """The journey goes on."""
        if self._lasts:
            self._forwarder.streams.discard(self)
        waiter = self._waiter
        if waiter is None:
            return
        if error is not None:
            waiter.fail(error)
        else:
            waiter.resume(self._exchange.status)

    # --- for ``Streams``, of an answer that lasts

    def judge(self, snapshot: Snapshot, now: int) -> None:
        """Return if the request would be permitted now as well. Raises ``SidecarError``."""
        permit = self._permit
        if isinstance(permit, IssuedPermit):
            next_hop = _guard_on(self.transport)
            judge_call(permit, None, next_hop, snapshot, now)
        else:
            guard = guard_of(self._exchange.transport)
            method, path = self._entry.method or "", self._entry.path or ""
            judge_request(permit, guard, snapshot, method=method, path=path, now=now)

    def cut_off(self, error: SidecarError) -> None:
        """End it with the caller's connection, whatever else fails."""
        try:
            self._exchange.stop(error)
        finally:
            self._exchange.cut_off()


def _guard_on(transport: asyncio.BaseTransport) -> PeerGuard | None:
    """What proved the peer of a connection; None without TLS."""
    return None if transport.get_extra_info("ssl_object") is None else guard_of(transport)


def _streams(head: ResponseHead) -> bool:
    """Whether nobody can tell when this answer will end."""
    return head.chunked or head.content_length is None or is_event_stream(head)
