"""Ends connections whose other end is no longer to be believed: trust that changes reaches what already exists.

Every request is judged by the trust of its own moment anyway. This is for what lies between two requests, and for
answers that stream for long: an idle connection ends at the next look, one in use after the exchange in progress, but
no connection outlives its peer's certificate, or the peer's authority, by more than ``GRACE_S`` and a look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final
from weakref import WeakKeyDictionary

from sidecar.errors import Denied, SidecarError, Unavailable
from sidecar.identity.tls import guard_of
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.h1_server import ServerConnection

GRACE_S: Final = 20.0  # for an exchange in progress; with the interval between two looks it stays below 30 s
_AT_A_TIME: Final = 8  # after a change of bundles each look costs 0.3 ms, and requests want the loop too

Connection = ServerConnection | ClientConnection


class TrustWatch:
    """Looks at the connections of one process. ``wall`` tells expiry, ``monotonic`` measures the grace; in seconds.

    ``distrust`` is told of each such connection at every look: what would go on for ever on it has no use for a grace.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
        distrust: Callable[[asyncio.BaseTransport, SidecarError], None] = lambda _transport, _error: None,
        grace_s: float = GRACE_S,
    ) -> None:
        self._wall = wall
        self._distrust = distrust
        self._monotonic = monotonic
        self.grace_s = grace_s
        self._distrusted_at: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()

    async def look(self, connections: Iterable[Connection]) -> None:
        """End every TLS connection whose peer would be refused now."""
        for number, connection in enumerate(tuple(connections), 1):
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)
            if connection.transport.get_extra_info("ssl_object") is None:
                continue
            try:
                guard_of(connection.transport).check(int(self._wall()))
            except Denied as error:
                self._end(connection, error)
            except Unavailable:  # it is our own identity that is gone: requests are refused until it is back
                continue

    def _end(self, connection: Connection, error: Denied) -> None:
        now = self._monotonic()
        since = self._distrusted_at.setdefault(connection, now)
        self._distrust(connection.transport, error)
        if not _in_use(connection):
            connection.cut_off()
        elif now - since >= self.grace_s:
            _cut(connection, error)
        elif isinstance(connection, ServerConnection):
            connection.finish()  # after the exchange in progress; one to a next hop ends when it is idle


def _in_use(connection: Connection) -> bool:
    return connection.exchange is not None if isinstance(connection, ServerConnection) else not connection.usable


def _cut(connection: Connection, error: Denied) -> None:
    serving = connection.exchange if isinstance(connection, ServerConnection) else None
    if serving is not None:
        serving.stop(error)  # so that the record says why
    connection.cut_off()
