"""HTTP/2 connections to upstreams: concurrent requests, each an ``H2Exchange`` from the pool.

As in HTTP/1.1 the upstream is not trusted: heads and lengths are checked, floods end the connection, and a truncated
answer is an error. A connection ends after its upstream's GOAWAY, by age, or when idle: begun requests finish, later
ones use another connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from h2.events import (
    DataReceived,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)

from delegation_core.errors import Denied, Reason, SidecarError
from sidecar.wire.connections import Connections
from sidecar.wire.h2_compression import literals
from sidecar.wire.h2_connection import MAY_WAIT, FrameConnection
from sidecar.wire.h2_exchange import H2Exchange
from sidecar.wire.h2_frames import Budget, Code, Frame, FrameReader, H2Error, Kind, flood, last_stream_of
from sidecar.wire.h2_head import response_again, response_of, size_of, trailers_of
from sidecar.wire.h2_session import STREAM_WINDOW, Session
from sidecar.wire.limits import ClientLimits
from sidecar.wire.message import Field

if TYPE_CHECKING:
    from sidecar.wire.upstream import Line, Upstream

_OPENS_WINDOWS: Final = WindowUpdated, RemoteSettingsChanged
MAX_EXCHANGES: Final = 100  # at a time, if the upstream allows as many
_RESETS: Final = 100  # burst of our resets, and half as many a second: below the limit of a peer sidecar
_LATE_HEADS: Final = 2  # per reset stream: the head and trailers of an answer already on its way
_MOST_LATE_HEADS: Final = 400
_LAST_STREAM: Final = 2**31 - 1
_WINDOW: Final = MAX_EXCHANGES * STREAM_WINDOW  # all streams: callers that read slowly must not stop answers of others


class H2ClientConnection(FrameConnection[H2Exchange]):
    """One upstream connection of HTTP/2. ``spare`` returns an exchange for a request."""

    def __init__(
        self,
        limits: ClientLimits,
        connections: Connections[Line],
        *,
        on_idle: Callable[[Upstream], None],
        on_closed: Callable[[Line | Upstream], None],
        max_age_s: float,
    ) -> None:
        session = Session(client_side=True, max_streams=0, max_head_bytes=limits.max_head_bytes, window=_WINDOW)
        super().__init__(connections, session, FrameReader(preface=b"", max_block=2 * limits.max_head_bytes))
        self.scheme = b"http"
        self._limits = limits
        self._on_idle = on_idle
        self._on_closed = self._group = on_closed
        self._max_age_s = max_age_s
        self._exchanges: set[H2Exchange] = set()
        self._idle: set[H2Exchange] = set()  # the exchanges in the pool
        self._touched: set[H2Exchange] = set()
        self._resets = Budget(_RESETS, _RESETS / 2)
        self._late_heads = 0  # allowance for streams that we reset
        self._closed = False
        self._ended = False  # the upstream's FIN arrived after frames that still wait for a turn
        self._ends_later = False  # end after those frames are read: the transport is gone
        self._replied = 0  # bytes of the library's replies to an upstream that reads nothing
        self._given = False  # the pool has received an exchange
        self._most_streams = 1  # until the upstream has sent its settings
        self._opened_at = self._used_at = self._ages_at = 0.0

    # --- for the pool

    def spare(self) -> H2Exchange:
        """Return an unused exchange."""
        exchange = H2Exchange(self, self._limits)
        self._given = True
        self._exchanges.add(exchange)
        self._idle.add(exchange)
        return exchange

    @property
    def accepts(self) -> bool:
        """True if another request may begin now."""
        return (
            not self._closed
            and len(self._streams) < self._most_streams
            and len(self._exchanges) - len(self._idle) < MAX_EXCHANGES  # includes answers that wait for slow callers
            and self._clock() < self._ages_at
            and self._session.highest_outbound_stream_id < _LAST_STREAM - 2
            and not self.transport.is_closing()
        )

    def live_at_most(self, seconds: float) -> None:
        """Limit the age, in seconds, at which another request may begin; never raises the limit."""
        self._ages_at = min(self._ages_at, self._opened_at + seconds)

    def end_unused(self) -> None:
        """Close if idle; otherwise after the requests in progress."""
        if self._streams:
            self._ages_at = self._opened_at
        else:
            self.transport.abort()

    # --- the event loop's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the preface and our settings."""
        self.transport = cast("asyncio.Transport", transport)
        self.scheme = b"http" if transport.get_extra_info("ssl_object") is None else b"https"
        self._opened_at = self._moved_at = self._used_at = self._clock()
        self._ages_at = self._opened_at + self._max_age_s
        self._session.begin()
        self._write()

    def data_received(self, data: bytes) -> None:
        """Read frames."""
        self._moved_at = self._clock()
        if self._closed:
            return
        self._reader.feed(data)
        if not self._queued:
            self._advance()
        self._regulate()

    def eof_received(self) -> None:
        """Handle the upstream's FIN. The transport closes."""
        self._ages_at = self._opened_at
        self._ended = self._queued
        self._closed = not self._queued

    def connection_lost(self, _exc: Exception | None) -> None:
        """Handle the end of the connection. Frames received before a FIN are read first."""
        self._connections.discard(self)
        self._ends_later = self._ended and self._queued
        if not self._ends_later:
            self._end()

    def _end(self) -> None:
        self._ends_later = False
        self._closed = True
        self._lose(lambda _stream_id: True, unseen=False)
        for exchange in tuple(self._exchanges):
            exchange.close()
        self._session.forget()
        self._on_closed(self)

    def pause_writing(self) -> None:
        """Pause the sources of requests: the write buffer is full."""
        self.writing_paused = True
        self._replied = 0
        for exchange in tuple(self._streams.values()):
            exchange.pause_source()

    def resume_writing(self) -> None:
        """Resume the sources of requests."""
        self.writing_paused = False
        self._unblock()
        for exchange in tuple(self._streams.values()):
            exchange.resume_source()

    # --- reading

    @property
    def _alive(self) -> bool:
        return not self._closed

    def _read_batch(self) -> None:
        super()._read_batch()
        touched, self._touched = self._touched, set()
        for exchange in touched:
            exchange.tell()

    def _take_turn(self) -> None:
        super()._take_turn()
        if self._ends_later and not self._queued:
            self._end()

    def _take(self, frame: Frame) -> bool:
        if frame.kind == Kind.GOAWAY:
            last = last_stream_of(frame)
            self._ages_at = self._opened_at
            self._lose(lambda stream_id: stream_id > last, unseen=True)
            return False
        events = self._read_paused(frame) if self.writing_paused else self._session.read(frame.data)
        if not events and frame.ends_head:  # a head on a reset stream: decompressing it cost CPU
            if self._late_heads:
                self._late_heads -= 1
            else:
                self._reader.count_reset(self._moved_at)
        for event in events:
            self._on_event(event)
        return False

    def _read_paused(self, frame: Frame) -> list[Any]:
        """Read a frame of an upstream that reads nothing."""
        before = self._session.size_to_send
        events = self._session.read(frame.data)
        self._replied += self._session.size_to_send - before
        if self._replied > MAY_WAIT:
            raise flood("too many frames that are answered, by an upstream that takes nothing")
        return events

    def _on_event(self, event: object) -> None:
        if isinstance(event, _OPENS_WINDOWS):
            if isinstance(event, RemoteSettingsChanged):
                self._most_streams = self._session.remote_settings.max_concurrent_streams
                self._offer()
            self._windows_opened = True
            return
        stream_id: int = getattr(event, "stream_id", 0) or 0
        exchange = self._streams.get(stream_id)
        if exchange is None:
            if isinstance(event, DataReceived):
                self._session.taken(event.flow_controlled_length, stream_id)
            return
        try:
            self._on_answer(exchange, event)
        except Denied as error:
            exchange.fail(Denied(Reason.UPSTREAM_BAD_RESPONSE, error.detail), Code.PROTOCOL_ERROR)

    def _on_answer(self, exchange: H2Exchange, event: object) -> None:
        limits = self._limits
        self._touched.add(exchange)
        if isinstance(event, ResponseReceived):
            exchange.on_head(response_again(cast("Sequence[Field]", event.headers), limits))
            if event.stream_ended is not None:
                exchange.on_end()
        elif isinstance(event, DataReceived):
            exchange.on_content(event.data, event.flow_controlled_length)
            if event.stream_ended is not None:
                exchange.on_end()
        elif isinstance(event, TrailersReceived):
            fields = cast("Sequence[Field]", event.headers)
            exchange.on_end(trailers_of(fields, max_bytes=limits.max_head_bytes, max_fields=limits.max_fields))
        elif isinstance(event, InformationalResponseReceived):
            response_of(cast("Sequence[Field]", event.headers), limits)
            exchange.on_interim()
        elif isinstance(event, StreamReset):
            self._forget(exchange)
            exchange.on_reset(int(event.error_code))

    # --- for exchanges

    def takes(self, fields: Sequence[Field]) -> bool:
        """True if a head is no larger than the upstream's settings allow."""
        most = self._session.remote_settings.max_header_list_size
        return most is None or size_of(fields) <= most

    def begin(self, exchange: H2Exchange, fields: Sequence[Field], *, ends: bool) -> int:
        """Write the head of a request; offer the pool another exchange if one may begin. Returns the stream id."""
        stream_id = self._session.get_next_available_stream_id()
        self._session.head(stream_id, fields, ends=ends)
        self._streams[stream_id] = exchange
        self._idle.discard(exchange)
        self._write_soon()
        if self.accepts:
            self._offer()
        return stream_id

    def _offer(self) -> None:
        """Offer the pool an exchange if another request may begin; withdraw it if the upstream forbids one."""
        if not self.accepts:
            for exchange in tuple(self._idle):
                exchange.close()
        elif self._given and not self._idle:
            self._on_idle(self.spare())

    def _content_left(self, exchange: H2Exchange, *, told: bool) -> None:
        if not told:
            self._session.send_content(exchange.stream_id, b"", ends=True)
        exchange.go_on()

    def over(self, exchange: H2Exchange, code: int | None) -> None:
        """Finish the stream of an exchange; reset it if ``code`` is given."""
        stream_id = exchange.stream_id
        self._forget(exchange)
        if code is None or self._closed or not stream_id:
            return
        if not self._reset(stream_id, code):
            return
        self._late_heads = min(_MOST_LATE_HEADS, self._late_heads + _LATE_HEADS)
        if not self._resets.spend(self._clock()):
            self._ages_at = self._opened_at  # the upstream might end it for a flood, with the requests of others

    def _forget(self, exchange: H2Exchange) -> None:
        if self._streams.get(exchange.stream_id) is exchange:
            del self._streams[exchange.stream_id]
            self._windows.forget(exchange.stream_id)
            self._used_at = self._clock()

    def keep(self, exchange: H2Exchange) -> None:
        """Return the exchange to the pool; close it if the connection has ended or is too old."""
        if self._closed or self._clock() >= self._ages_at:
            exchange.close()
        else:
            self._idle.add(exchange)
            self._on_idle(exchange)

    def drop(self, exchange: H2Exchange) -> None:
        """Remove the exchange. Closes the connection after the last."""
        self._exchanges.discard(exchange)
        self._idle.discard(exchange)
        self._on_closed(exchange)
        if not self._advancing:
            self._close_if_done()

    # --- the end

    def _lose(self, which: Callable[[int], bool], *, unseen: bool) -> None:
        lost = [exchange for stream_id, exchange in self._streams.items() if which(stream_id)]
        for exchange in lost:
            self._forget(exchange)
            exchange.on_connection_lost(unseen=unseen)

    def _fail(self, fault: H2Error) -> None:
        self._end_for(Denied(Reason.UPSTREAM_BAD_RESPONSE, fault.error.detail))

    def _end_for(self, error: SidecarError) -> None:
        self._write()
        self._closed = True
        for exchange in tuple(self._streams.values()):
            self._forget(exchange)
            exchange.fail(error, None)
        self.transport.abort()

    def _close_if_done(self) -> None:
        """Close if no request is in progress and none may begin."""
        unwanted = self._given and (not self._exchanges or self._clock() >= self._ages_at)
        if unwanted and not (self._closed or self._streams or self.transport.is_closing()):
            self._closed = True
            self._write()
            self.transport.close()

    def sweep(self, now: float) -> None:
        """Act on the deadlines that have passed."""
        literals.sweep(now)
        self._session.forget_heads()
        for exchange in tuple(self._streams.values()):
            exchange.sweep(now)
        silent = now - self._moved_at
        if self._closed:
            if silent > self._limits.idle_timeout_s:
                self.transport.abort()
        elif not self._streams and (now - self._used_at > self._limits.idle_keep_s or now > self._ages_at):
            self._ages_at = self._opened_at
            self._close_if_done()
        elif self._reader.unfinished and not self._queued and silent > self._limits.idle_timeout_s:
            self._end_for(Denied(Reason.UPSTREAM_TIMEOUT, "a head or frame of the upstream stopped coming"))
