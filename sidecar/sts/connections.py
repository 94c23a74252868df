"""What the HTTP library leaves open: how many connections there are at once, and how long a request's head may take.

Each connection's protocol is wrapped in one that counts it and watches the clock while no request of it is served.
Clients keep theirs for the next exchange, so at the limit the one that has lain idle for longest makes room: its client
opens another when it needs one. A request that has begun to arrive is never ended for somebody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, cast

from aiohttp import web

from sidecar.errors import Reason

HEAD_TIMEOUT_S: Final = 10.0
IDLE_S: Final = 1.0  # since its last answer, before a connection makes room: the answer must have left us

OnCut = Callable[[Reason, str | None], None]
"""Told why a connection was cut, and the other end's address."""


class Connections:
    """Makes the protocols of one listener, around those of ``make``: at most ``limit`` at once.

    Above it an idle connection makes room for a new one; where none is idle, the new one is cut.
    """

    def __init__(
        self, make: Callable[[], asyncio.Protocol], *, limit: int, head_timeout_s: float, on_cut: OnCut
    ) -> None:
        self.idle_s = IDLE_S
        self.open = 0
        self.limit = limit
        self.head_timeout_s = head_timeout_s
        self.on_cut = on_cut
        self._make = make
        self._idle: dict[_Watched, float] = {}  # and since when; longest first

    def __call__(self) -> asyncio.Protocol:
        """One more connection was accepted."""
        return _Watched(self._make(), self)

    def admit(self) -> bool:
        """Count one more connection, if there is room or some can be made."""
        if self.open >= self.limit:
            longest, since = next(iter(self._idle.items()), (None, 0.0))
            if longest is None or asyncio.get_running_loop().time() - since < self.idle_s:
                return False
            longest.make_room()
        self.open += 1
        return True

    def leave(self, connection: _Watched) -> None:
        """A connection is gone: count it no more."""
        self._idle.pop(connection, None)
        self.open -= 1

    def rest(self, connection: _Watched) -> None:
        """A connection was answered and is kept."""
        self._idle[connection] = asyncio.get_running_loop().time()

    def wake(self, connection: _Watched) -> None:
        """A request begins to arrive on a connection."""
        self._idle.pop(connection, None)


class _Watched(asyncio.Protocol):
    """One connection. The clock runs from its start, and from the first byte after each answer, to a whole head."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections
        self._counted = False
        self._serving = False
        self._deadline: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._connections.admit():
            self._cut(Reason.OVERLOADED)
            return
        self._counted = True
        self._inner.connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        if not self._counted:
            return
        if self._deadline is None and not self._serving:
            self._watch()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._counted else None

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self.head_arrived()
        if self._counted:
            self._counted = False
            self._connections.leave(self)
            self._inner.connection_lost(error)

    def head_arrived(self) -> None:
        """A request is being served: it has deadlines of its own."""
        self._serving = True
        self._connections.wake(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def answered(self) -> None:
        """The request is over; the next one may come, or none."""
        self._serving = False
        if self._counted:
            self._connections.rest(self)

    def make_room(self) -> None:
        """End for a new connection's sake. Its place is free at once: the transport may take its time."""
        self._counted = False
        self._connections.leave(self)
        self._inner.connection_lost(None)
        if self._transport is not None:
            self._transport.abort()

    def _watch(self) -> None:
        self._connections.wake(self)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._connections.head_timeout_s, self._cut, Reason.TIMEOUT)

    def _cut(self, reason: Reason) -> None:
        if self._transport is not None:
            address = self._transport.get_extra_info("peername")
            self._connections.on_cut(reason, f"{address[0]}:{address[1]}" if address else None)
            self._transport.abort()


@web.middleware
async def head_has_arrived(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Stops the clock while a request is served: there is one to serve, so its head is complete."""
    protocol = None if request.transport is None else request.transport.get_protocol()
    if not isinstance(protocol, _Watched):
        return await handler(request)
    protocol.head_arrived()
    try:
        return await handler(request)
    finally:
        protocol.answered()
