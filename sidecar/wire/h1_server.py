"""HTTP/1.1 server connections: requests in, answers out, limits and deadlines.

Usage: a listener makes ``ServerConnection(handler, limits, connections)`` per accepted socket, ``connections`` being
one ``Connections`` registry per listener. For each request ``handler.on_request(exchange)`` is called inside
``data_received`` with a whole valid head, one at a time and in order; the handler answers through the exchange, now or
later, by ``answer(...)`` or ``send_head, send_data …, send_end``. ``handler.on_refused(exchange, error)`` is called
instead when no request came of it; it must ``answer()``, or only write its record when ``exchange.gone``. Pipelined
requests wait until the answer before them has ended. No task, future or timer is made per request.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final, cast

from sidecar.errors import Denied, Reason, SidecarError
from sidecar.wire.connections import Connections
from sidecar.wire.ending import Ending
from sidecar.wire.exchange import BodySink, RequestHandler, ServerExchange
from sidecar.wire.intake import Intake
from sidecar.wire.kernel import has_left, unread
from sidecar.wire.limits import ServerLimits
from sidecar.wire.outgoing import Outgoing
from sidecar.wire.request import RequestReader
from sidecar.wire.turns import Turn
from sidecar.wire.waits import Pace

__all__ = ["BodySink", "RequestHandler", "ServerConnection", "ServerExchange", "ServerLimits"]

_MAY_WAIT: Final = 16 * 1024  # received and not yet of use, while a request is served: only who reads sees a peer leave


class ServerConnection(asyncio.Protocol):
    """One accepted connection; plain or TLS, on any event loop."""

    def __init__(
        self,
        handler: RequestHandler,
        limits: ServerLimits,
        connections: Connections[ServerConnection],
        *,
        proxy_form: bool = False,
    ) -> None:
        self.transport: asyncio.Transport
        self.writing_paused = False
        self.handler = handler
        self.writes = connections.writes
        self.out = Outgoing()  # of the exchange under way
        self._limits = limits
        self._connections = connections
        self._clock = connections.clock
        self._reader = RequestReader(limits, proxy_form=proxy_form)
        self._rest = b""
        self._exchange: ServerExchange | None = None
        self._advancing = False
        self._its_turn = False
        self._waits_for_turn = False
        self._others_first = False
        self._reading_paused = False
        self._half_closes = False
        self._finishing = False
        self._refused = False
        self._opened_at = 0.0
        self._ages_at = 0.0
        self._moved_at = 0.0
        self._read_at = 0.0
        self._head_began_at = 0.0
        self._body_pace = Pace()
        self._ending = Ending(limits, connections.clock)

    @property
    def exchange(self) -> ServerExchange | None:
        """The request being served, if any."""
        return self._exchange

    @property
    def receiving(self) -> bool:
        """Whether a head has begun to arrive."""
        return self._reader.held > 0

    def stop(self, error: SidecarError) -> None:
        """End the request being served, or refuse the one whose head is arriving, for ``error``; then close."""
        if self._exchange is not None:
            self._exchange.stop(error)
        elif self._reader.first_line_read:
            self._refuse(error)
        self.finish()

    @property
    def waits_since(self) -> float | None:
        """Since when (monotonic seconds) no request is served: it waits for a head, or for the peer to stop.

        None if one is being served, or the connection is closed.
        """
        if self._exchange is not None or self._ending.closed:
            return None
        if self._ending.linger is not None:
            return self._ending.linger.began_at
        return self._head_began_at if self._reader.held else self._moved_at

    @property
    def behind_since(self) -> float | None:
        """Since when (monotonic seconds) the peer takes next to nothing of what it is behind with; None: it is not."""
        return self._ending.behind_since if self.writing_paused or self._ending.closed else None

    @property
    def kept(self) -> bool:
        """Whether it waits for the first byte of another request."""
        return not self._reader.held and self._ending.linger is None and self._moved_at != self._opened_at

    def give_way(self, error: SidecarError) -> None:
        """End at once for another connection. A head that has begun is refused, and so is a request being served."""
        self.stop(error)
        self._cut_off()

    def give_up(self) -> None:
        """Cut it off if only its peer keeps it: it asks for nothing, or does not take the end of what it was given."""
        asks = (self._reader.held or self._rest) and not (self._ending.begun or self.writing_paused)
        if self._exchange is None and not asks:
            self._cut_off()

    def finish(self) -> None:
        """Close the connection after the request being served, at once if there is none and none was just refused."""
        self._finishing = True
        if self._exchange is None and not (
            self._reader.held or self._rest or self._ending.linger or self._ending.closed
        ):
            self._close_idle()

    # --- the event loop's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)
        self._half_closes = transport.get_extra_info("ssl_object") is None
        self._opened_at = self._moved_at = self._clock()
        self._ages_at = self._opened_at + self._limits.max_age_s
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Serve what has come, and write once."""
        self._moved_at = self._read_at = self._clock()
        rest = self._rest
        if rest or self._exchange is not None or self._ending.begun:
            self._receive_more(data)
            return
        self._advancing = True
        try:
            if self._read_head(data) and self._rest:
                self._use_rest()
        finally:
            self._advancing = False
        self._settle()

    def eof_received(self) -> bool:
        """The peer sends no more: an unfinished head is answered, work for it is given up. Whether to keep writing.

        The transport closes, but after a switch of protocols where a connection can be closed by halves.
        """
        self.writes.write_out()
        exchange = self._exchange
        if exchange is not None:
            if self._half_closes and exchange.switched and exchange.end_of_input():
                return True
            self._lose_peer()
        elif self._reader.held and self._ending.linger is None:
            self._refuse(Denied(Reason.BAD_REQUEST, "the request ends inside its head"))
        self._ending.stop()
        return False

    def connection_lost(self, _exc: Exception | None) -> None:
        """The end."""
        self._connections.discard(self)
        self._ending.gone()
        if self._exchange is not None:
            self._lose_peer()
        elif self._reader.first_line_read:
            exchange = ServerExchange(self, None, self._reader.held)
            exchange.gone = True
            self.handler.on_refused(exchange, Denied(Reason.PEER_GONE, "the peer vanished inside a head"))
        self._reader.clear()
        self._rest = b""

    def pause_writing(self) -> None:
        """The peer is slower than we write."""
        self.writing_paused = True
        self._ending.wait_for_peer()
        if self._exchange is not None and self._exchange.sender is not None:
            self._exchange.sender.on_caller_pause()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self.writing_paused = False
        if self._exchange is not None and self._exchange.sender is not None:
            self._exchange.sender.on_caller_resume()
        if self._waits_for_turn and self._exchange is None:
            self._wait_for_turn()

    # --- reading

    def _receive_more(self, data: bytes) -> None:
        """What comes while a request is being served or waits, or is of no use any more."""
        ending = self._ending
        if not ending.begun:
            self._rest = self._rest + data if self._rest else data
            self._its_turn = not self._waits_for_turn
            self.advance()
        elif ending.linger is not None:
            ending.received(self.transport, self._moved_at, len(data))

    def advance(self) -> None:
        """Go on with the bytes at hand as far as possible. Called again from inside itself it does nothing."""
        if self._advancing:
            return
        self._advancing = True
        try:
            self._use_rest()
        finally:
            self._advancing = False
        self._settle()

    def _use_rest(self) -> None:
        while self._rest and not self._ending.begun and self._step():
            pass

    def _step(self) -> bool:
        if self._exchange is not None:
            return self._take_body(self._exchange)
        if self._its_turn:
            data, self._rest = self._rest, b""
            return self._read_head(data)
        self._wait_for_turn()
        return False

    def _settle(self) -> None:
        """What could be used of the bytes was: write what came of it, and read on or not."""
        exchange = self._exchange
        if exchange is not None and (exchange.intake is not None or self.out.pieces):
            exchange.batch_end()
            self._regulate()
        elif self._rest or self._reading_paused:
            self._regulate()

    def _take_body(self, exchange: ServerExchange) -> bool:
        intake = exchange.intake
        if intake is None or self._waits_for_turn:  # another request waits until this one is answered
            return False
        data, self._rest = self._rest, b""
        rest = intake.take(exchange, data)
        if rest is None:
            self._rest = data
            return False
        if self._ending.begun:  # by who takes it
            return False
        self._rest = rest
        if rest and exchange.intake is intake:  # more of the body than is read at a time
            self._wait_for_turn()
            return False
        return True

    def _wait_for_turn(self) -> None:
        """More is here than is served at a time: of requests, or of one's body. Others come first.

        Who takes no answer waits with further requests.
        """
        self._waits_for_turn = True
        if self._exchange is not None or not self.writing_paused:
            self._connections.turns.wait(self._connections.group_of(self), self._take_turn)

    def _take_turn(self) -> None:
        exchange = self._exchange
        if self._waits_for_turn and (exchange is not None or not self.writing_paused):
            self._waits_for_turn = False
            self._its_turn = exchange is None
            self.advance()

    def _regulate(self) -> None:
        """Read on unless enough waits already, or a body is held back: so little more than one read is ever held."""
        exchange = self._exchange
        if exchange is None or self._waits_for_turn:
            pause = bool(self._rest)
        else:
            pause = exchange.body_paused or len(self._rest) > _MAY_WAIT
        if pause != self._reading_paused and not self._ending.closed:
            self._reading_paused = pause
            if pause:
                self.transport.pause_reading()
            else:
                self._moved_at = self._clock()
                self.transport.resume_reading()

    def _read_head(self, data: bytes) -> bool:
        reader = self._reader
        held = reader.held
        try:
            found = reader.read(data)
        except Denied as error:
            self._refuse(error, bytes_in=held + len(data))
            return False
        if found is None:
            if not held:
                self._head_began_at = self._moved_at
            return False
        head, size, self._rest = found
        self._its_turn = False  # what follows in the same bytes waits
        exchange = self._exchange = ServerExchange(self, head, size)
        if head.has_body:
            exchange.intake = Intake(reader.body_of(head))
            self._body_pace.begin(self._moved_at, size)
        self.handler.on_request(exchange)
        return True

    def _refuse(self, error: SidecarError, *, bytes_in: int | None = None) -> None:
        """Nothing that follows on this connection is read as a request. ``bytes_in`` None: an unfinished head's."""
        reader = self._reader
        exchange = ServerExchange(self, reader.refused_head, reader.held if bytes_in is None else bytes_in)
        exchange.closes = True
        reader.clear()
        self._refused = True
        self._exchange = exchange
        self.handler.on_refused(exchange, error)

    def cut_off(self) -> None:
        """End the connection at once. What the kernel takes of what was written still leaves."""
        self.writes.write_out()
        self.transport.abort()

    # --- for the exchange

    def write(self, data: bytes) -> None:
        """Write, at the end of this round of the loop at the latest."""
        self.writes.put_off(self.transport, data)

    def may_keep(self) -> bool:
        """Whether another request may follow the one being served."""
        if self._moved_at >= self._ages_at or self._finishing:
            return False
        if not self._connections.draining:
            return True
        return b"\r\n\r\n" in self._rest and self._connections.may_stay(waiting_since=self._read_at)

    @property
    def has_rest(self) -> bool:
        """Whether bytes wait that were received and not yet used."""
        return bool(self._rest)

    def take_rest(self) -> bytes:
        """The bytes received and not yet used: none of them waits for its turn any more."""
        self._waits_for_turn = False
        data, self._rest = self._rest, b""
        return data

    def take_all(self, length: int | None) -> bytes | None:
        """The bytes received and not yet used, if they are so many; else None. Reading goes on after them."""
        data = self._rest
        if len(data) != length or self._waits_for_turn:
            return None
        self._rest = b""
        if self._reading_paused:
            self._regulate()
        return data

    def let_others_first(self, take: Turn) -> None:
        """Go on with ``take``, for who takes raw bytes, in a turn of this peer's."""
        self._others_first = True
        self._connections.turns.wait(self._connections.group_of(self), partial(self._go_on, take))

    def _go_on(self, take: Turn) -> None:
        self._others_first = False
        take()

    def put_back(self, rest: bytes) -> None:
        """Bytes that belong to what follows."""
        self._rest = rest

    def answered(self, exchange: ServerExchange) -> None:
        """The answer of the current exchange has ended."""
        self._exchange = None
        self._moved_at = self._clock()
        if exchange.intake is not None:
            exchange.intake.sink = None
            self._begin_lingering()
        elif exchange.closes or self._finishing:
            if self._refused or self._rest:
                self._begin_lingering()
            else:
                self._close()
        elif self._rest or self._reading_paused:
            self.advance()

    def cut(self, *, reset: bool) -> None:
        """Close so that an unfinished answer shows; ``reset`` where only a reset can show it (no stated length)."""
        self._exchange = None
        if reset:
            self.writes.write_out()
            self._ending.reset(self.transport)
        else:
            self._close()

    # --- the end

    def _begin_lingering(self) -> None:
        """Answered, but the peer may still be sending."""
        self.writes.write_out()
        self._rest = b""
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()
        self._ending.begin_lingering(self.transport, half_closes=self._half_closes)

    def _close(self) -> None:
        self.writes.write_out()
        self._ending.close(self.transport)

    def _close_idle(self) -> None:
        self.writes.write_out()
        self._ending.close(self.transport, idle_s=self._clock() - self._moved_at)

    def _lose_peer(self, error: SidecarError | None = None) -> None:
        exchange, self._exchange = self._exchange, None
        self._ending.stop()
        if exchange is not None:
            exchange.lose_peer(error)

    def sweep(self, now: float) -> None:
        """Act on the deadlines that have passed."""
        ending = self._ending
        if ending.closed or self.writing_paused:
            if ending.waited_enough(self.transport, now):
                self._lose_peer(Denied(Reason.PEER_SLOW, "it took too little of its answer for too long"))
                self._cut_off()
        elif ending.linger is not None:
            if ending.linger.over(now):
                self._close()
        elif self._exchange is not None:
            if self._has_left_unseen(self._exchange):
                self._lose_peer()
                self._cut_off()
            else:
                self._sweep_body(self._exchange, now)
        elif self._reader.held:
            if now - self._head_began_at > self._limits.head_timeout_s:
                self._refuse(Denied(Reason.TIMEOUT, "the head did not arrive in time"))
        elif self._idle_too_long(now) and not unread(self.transport):  # else it is we who are slow
            self._close_idle()

    def _sweep_body(self, exchange: ServerExchange, now: float) -> None:
        limits, pace = self._limits, self._body_pace
        if not exchange.waits_for_body or self._rest:  # else it is we who are slow
            pace.begin(now, exchange.bytes_in)
        elif pace.lasts(now, exchange.bytes_in, limits.min_rate * limits.body_timeout_s) > limits.body_timeout_s:
            exchange.fail_body(Denied(Reason.TIMEOUT, "the body comes too slowly, or no more"))

    def _has_left_unseen(self, exchange: ServerExchange) -> bool:
        """Whether the peer has left while nobody reads: then no transport tells. Where we read on soon, it will."""
        waits = self._reading_paused and not self._others_first
        return waits and not (self._half_closes and exchange.switched) and has_left(self.transport)

    def _cut_off(self) -> None:
        self._ending.gone()
        self.cut_off()
        self._connections.discard(self)  # uvloop may have closed it without ever telling us

    def _idle_too_long(self, now: float) -> bool:
        fresh = self._moved_at == self._opened_at
        allowed = self._limits.head_timeout_s if fresh else self._limits.keep_alive_timeout_s
        aged = now > self._ages_at
        unwanted = self._connections.no_longer_wanted(now, self._moved_at)
        return aged or unwanted or now - self._moved_at > allowed
