"""Ends connections whose other end is no longer to be believed: trust that changes reaches what lies between requests.

Every request is judged by the trust of its own moment, and every forwarding is watched (``watch``). What is left are
connections: an idle one ends at the next look, one in use after the exchange in progress. A certificate that has run
out is a reason too, and cuts no exchange.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from sidecar.errors import Denied, Unavailable
from sidecar.identity.tls import guard_of
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.h1_server import ServerConnection

_AT_A_TIME: Final = 8  # after a change of bundles each look costs 0.3 ms, and requests want the loop too

Connection = ServerConnection | ClientConnection


class TrustWatch:
    """Looks at the connections of one process. ``wall`` tells expiry, in seconds."""

    def __init__(self, *, wall: Callable[[], float]) -> None:
        self._wall = wall

    async def look(self, connections: Iterable[Connection]) -> None:
        """End every TLS connection whose peer would be refused now."""
        for number, connection in enumerate(tuple(connections), 1):
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)
            if connection.transport.get_extra_info("ssl_object") is None:
                continue
            try:
                guard_of(connection.transport).check(int(self._wall()))
            except Denied:
                _end(connection)
            except Unavailable:  # it is our own identity that is gone: requests are refused until it is back
                continue


def _end(connection: Connection) -> None:
    if isinstance(connection, ServerConnection):
        if connection.stream is None:
            connection.cut_off()
        else:
            connection.finish()  # after the exchange in progress
    elif connection.usable:
        connection.cut_off()  # one in use ends when it is idle
