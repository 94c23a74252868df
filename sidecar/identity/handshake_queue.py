"""Queue of connections in TLS handshake: starts handshakes in turn, and ends stalled ones.

Theory of operation. A connection passes through stages: *silent*, *partial* (some bytes of a ClientHello), *ready* (all
of it), *running* (TLS). Only the last costs more than a descriptor, so only it has a small limit; many silent
connections are held without delaying others. Each stage keeps its connections in order of arrival, in all and by source
address, so that the first to evict is at its head: no step examines more than one connection of each stage, however
many there are (ADR 0033). Decisions are made by ``sidecar.admission``.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Final

from delegation_core.errors import Reason
from sidecar.admission import ADMIT, WAIT, Evict, Held, Wait, at_limit, on_hello
from sidecar.identity.first_bytes import ENDED, First, Look, Watch, first_of_tls, silent_s
from sidecar.identity.peer_address import peer_address
from sidecar.identity.stages import Arrival, Stage, first_to_evict

SILENT_PATIENCE_S: Final = 0.25  # for a silent peer, while others wait; an honest one takes milliseconds
PATIENCE_S: Final = 1.0  # for a peer that has sent something: milliseconds may be long on a busy machine
EVICTED_PER_S: Final = 1000  # before their handshake, some 50 us each
HANDSHAKES_EVICTED_PER_S: Final = 250  # 0.7 ms each
MOST_CONNECTIONS: Final = 8192  # before and in their handshakes, unless configured
MAX_BEGUN_PER_ITERATION: Final = 4  # handshakes in an event-loop iteration; each costs it about half a millisecond
_LEAST_OF_TIMEOUT: Final = (
    0.5  # connections that came together must not end, and come again, in one event-loop iteration
)
_CAN_WATCH: Final = hasattr(select, "epoll")

OnGivenUp = Callable[[Reason, str, str], None]  # TIMEOUT, OVERLOADED or TLS_VERSION, detail, the peer's address


def host_of(address: str) -> str:
    """Return the host of HOST:PORT."""
    return address.rpartition(":")[0]


class HandshakeQueue:
    """The connections of one listener still in handshake.

    At most ``most`` handshakes run at a time (None: any number). A connection whose ClientHello is complete waits for
    one of them to end, or evicts one that took longer than ``PATIENCE_S``; source addresses take turns. At most
    ``room`` connections are held in all; ``full``: the next waits in the kernel's accept queue, because all are too
    young to evict. Silence in that queue counts. A connection has ``timeout_s`` in all, less a random part of its
    second half. Without ``context`` there is no handshake, only a wait for the ``first`` bytes, if these are awaited.
    ``on_given_up`` is called for each connection that fails here. ``closing_s``: a closed TLS connection is cut after
    this time, with bytes still to be sent or not (None: 30 s).
    """

    def __init__(
        self,
        context: ssl.SSLContext | None,
        *,
        most: int | None,
        timeout_s: float,
        first: Look | None = None,
        room: int = MOST_CONNECTIONS,
        closing_s: float | None = None,
        on_given_up: OnGivenUp | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._first = first_of_tls if context is not None else first
        self._closing_s = None if context is None else closing_s
        self._most = self._most_ever = most
        self._timeout_s = timeout_s
        self._room = room
        self._on_given_up = on_given_up
        self._clock = clock
        self._silent = Stage(SILENT_PATIENCE_S, EVICTED_PER_S)
        self._partial = Stage(PATIENCE_S, EVICTED_PER_S)
        self._ready = Stage(PATIENCE_S, EVICTED_PER_S)
        self._running = Stage(PATIENCE_S, HANDSHAKES_EVICTED_PER_S)
        self._stages = (self._silent, self._partial, self._ready, self._running)
        self._orders = tuple(stage.in_order for stage in self._stages)
        self._watched: dict[int, Arrival] = {}
        self._watch = Watch(self._more_came)
        self._of: dict[str, Arrival] = {}  # the running ones, by the peer's address
        self._silent_since = 0.0  # of the last connection that was silent when accepted
        self._begin: asyncio.Handle | None = None
        self._emptied: asyncio.Event | None = None

    def __len__(self) -> int:
        return sum(map(len, self._orders))

    @property
    def running(self) -> int:
        """The number of handshakes that have begun."""
        return len(self._running.in_order)

    def of(self, host: str) -> int:
        """Return the number of connections of one host."""
        count = 0
        for stage in self._stages:
            own = stage.by_host.get(host)
            if own is not None:
                count += len(own)
        return count

    def running_of(self, host: str) -> int:
        """Return the number of handshakes of one host that have begun."""
        return len(self._running.by_host.get(host, ()))

    def over(self, address: str) -> float:
        """Remove a connection from ``address`` after its handshake; return the seconds it took, 0 if unknown."""
        arrival = self._of.get(address)
        if arrival is None:
            return 0.0
        took_s = self._clock() - arrival.since
        self._forget(arrival)
        return took_s

    def hold_to(self, most: int | None) -> None:
        """Run at most ``most`` handshakes at a time, and never more than configured; None: as many as configured."""
        ever = self._most_ever
        self._most = ever if most is None or ever is None else min(most, ever)
        self._begin_again()

    @property
    def full(self) -> bool:
        """True if the queue is full and every connection is too young to be evicted."""
        if self._first is None or len(self) < self._room:
            return False
        return at_limit(len(self), self._room, self.first_to_evict, WAIT) is WAIT

    @property
    def pending(self) -> int:
        """The number of connections held; 0 if the queue awaits neither first bytes nor handshakes."""
        return 0 if self._first is None else len(self)

    def first_to_evict(self, host: str | None = None) -> Arrival | None:
        """Return the connection, of one source address or of all, with the oldest expired deadline."""
        return None if self._first is None else first_to_evict(self._stages, self._clock(), host)

    def evict(self, arrival: Arrival) -> None:
        """Evict a connection in favour of another."""
        self._end(arrival)
        self._tell(Reason.OVERLOADED, "evicted for another connection", arrival)

    def start(self, accepted: socket.socket, address: str, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        """Add an accepted socket; ``address`` is its peer's.

        A refused connection is reported to ``on_given_up`` or to the context's callback, and its socket is closed.
        """
        now = self._clock()
        timeout_s = self._timeout_s * random.uniform(_LEAST_OF_TIMEOUT, 1.0)  # noqa: S311 - spreads, hides nothing
        arrival = Arrival(accepted, accepted.fileno(), address, host_of(address), protocol, now + timeout_s)
        if self._first is None:
            self._run(arrival)
            return
        if len(self) >= self._room:
            match at_limit(len(self), self._room, self.first_to_evict, ADMIT):
                case Evict(other):
                    self.evict(other)
        first = self._first(accepted) if _CAN_WATCH else First.WHOLE
        if first is First.NOTHING:
            self._silent_since = max(self._silent_since, now - silent_s(accepted))  # the accept queue keeps the order
            self._hold(arrival, self._silent, self._silent_since)
        elif first is First.PART:
            self._hold(arrival, self._partial, now)
        else:
            self._take(arrival, first)

    async def finish(self, timeout_s: float) -> None:
        """Let handshakes finish for ``timeout_s``; then end the rest."""
        if len(self):
            emptied = self._emptied = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(emptied.wait(), timeout_s)
        await self.close()

    async def close(self) -> None:
        """Close all connections held here, and wait until their handshakes have ended."""
        running = self._tasks()
        for stage in self._stages:
            for arrival in tuple(stage.in_order):
                self._end(arrival)
        self._watch.close()
        if self._begin is not None:
            self._begin.cancel()
            self._begin = None
        await asyncio.gather(*running, return_exceptions=True)

    # --- before the handshake

    def _hold(self, arrival: Arrival, stage: Stage, since: float) -> None:
        try:
            self._watch.add(arrival.descriptor)
        except OSError:
            arrival.accepted.close()
            self._tell(Reason.OVERLOADED, "there is no descriptor for a connection", arrival)
            return
        stage.add(arrival, since)
        self._watched[arrival.descriptor] = arrival
        left_s = arrival.deadline - self._clock()
        arrival.timer = asyncio.get_running_loop().call_later(left_s, self._time_out, arrival)

    def _more_came(self, descriptor: int, events: int) -> None:
        arrival = self._watched.get(descriptor)
        if arrival is None or self._first is None:
            return
        first = self._first(arrival.accepted)
        if first is First.PART and events & ENDED:
            first = First.GONE
        if first is First.PART and arrival.stage is self._silent:
            self._silent.discard(arrival)
            self._partial.add(arrival, self._clock())
        elif first not in (First.NOTHING, First.PART):
            self._leave(arrival)
            self._take(arrival, first)
            self._look_whether_empty()

    def _take(self, arrival: Arrival, first: First) -> None:
        """Continue or close a connection by the state of its first bytes."""
        if first is First.WHOLE:
            self._ready.add(arrival, self._clock())
            self._begin_soon()
            return
        arrival.accepted.close()
        if first is First.NO_TLS:
            self._tell(Reason.TLS_VERSION, "the first bytes are not a TLS handshake", arrival)

    def _begin_soon(self) -> None:
        if self._begin is None and self._ready.in_order:
            self._begin = asyncio.get_running_loop().call_soon(self._begin_some)

    def _begin_some(self) -> None:
        """Begin handshakes while there is room, a few per event-loop iteration, so that requests are served."""
        self._begin = None
        loop = asyncio.get_running_loop()
        for _ in range(MAX_BEGUN_PER_ITERATION):
            if not self._ready.in_order:
                return
            decision = on_hello(self.running, self._most, self._oldest_running(), self._clock())
            if isinstance(decision, Wait):
                self._begin = loop.call_later(decision.seconds, self._begin_some)
                return
            arrival = self._ready.next_in_turn()
            if arrival.deadline <= self._clock():
                self._time_out(arrival)
                continue
            if isinstance(decision, Evict):
                self.evict(decision.which)
            self._leave(arrival)
            self._run(arrival)
        if self._ready.in_order:
            self._begin = loop.call_soon(self._begin_some)

    def _oldest_running(self) -> Held[Arrival] | None:
        oldest = self._running.first()
        return None if oldest is None else Held(oldest, oldest.since, self._running.patience_s)

    def _time_out(self, arrival: Arrival) -> None:
        self._end(arrival)
        self._tell(Reason.TIMEOUT, "the handshake took too long", arrival)

    # --- the handshake

    def _run(self, arrival: Arrival) -> None:
        self._running.add(arrival, self._clock())
        self._of[arrival.address] = arrival
        arrival.task = asyncio.get_running_loop().create_task(self._hand_over(arrival))
        arrival.task.add_done_callback(lambda _: self._note_end(arrival))

    async def _hand_over(self, arrival: Arrival) -> None:
        arrival.handed_over = True
        peer_address.set(arrival.address)  # in this task's own context
        tls = self._context is not None
        began_at = self._clock()
        left_s = max(arrival.deadline - began_at, self._timeout_s / 10)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                arrival.protocol,
                arrival.accepted,
                ssl=self._context,
                ssl_handshake_timeout=left_s if tls else None,
                ssl_shutdown_timeout=self._closing_s,
            )
        except (OSError, TimeoutError):  # ssl.SSLError is an OSError
            arrival.accepted.close()
            if tls and self._clock() - began_at > 0.9 * left_s:
                self._tell(Reason.TIMEOUT, "the handshake took too long", arrival)
        except MemoryError:
            arrival.accepted.close()
            self._tell(Reason.OVERLOADED, "there is no memory for a connection", arrival)

    def _note_end(self, arrival: Arrival) -> None:
        self._forget(arrival)
        if not arrival.handed_over:  # it ended before its first step: the loop does not know the socket
            arrival.accepted.close()
        self._look_whether_empty()

    # --- the end

    def _end(self, arrival: Arrival) -> None:
        task = arrival.task
        if task is None:
            self._leave(arrival)
            arrival.accepted.close()
            self._look_whether_empty()
        else:
            self._forget(arrival)
            task.cancel()

    def _leave(self, arrival: Arrival) -> None:
        """Remove a connection from its stage before the handshake."""
        if arrival.stage is not None:
            arrival.stage.discard(arrival)
        if arrival.timer is not None:
            arrival.timer.cancel()
            arrival.timer = None
        if self._watched.pop(arrival.descriptor, None) is not None:
            self._watch.discard(arrival.descriptor)

    def _forget(self, arrival: Arrival) -> None:
        """Remove a handshake that is over."""
        if arrival.stage is None:
            return
        arrival.stage.discard(arrival)
        if self._of.get(arrival.address) is arrival:
            del self._of[arrival.address]
        self._begin_again()

    def _begin_again(self) -> None:
        """Begin waiting handshakes now: a place is free."""
        if self._begin is not None:
            self._begin.cancel()
            self._begin = None
        self._begin_soon()

    def _look_whether_empty(self) -> None:
        if self._emptied is not None and not len(self):
            self._emptied.set()

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [arrival.task for arrival in self._running.in_order if arrival.task is not None]

    def _tell(self, reason: Reason, detail: str, arrival: Arrival) -> None:
        if self._on_given_up is not None:
            self._on_given_up(reason, detail, arrival.address)
