"""Ends connections whose other end is no longer trusted: a change of trust reaches idle connections too.

Every request is judged by the trust at its time, and every forwarding is watched (``watch``). Connections are left: an
idle one ends at the next look, one in use after the request in progress. An expired certificate is a reason too, and
cuts no request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from sidecar.errors import Denied, Unavailable
from sidecar.identity.tls import guard_of

_AT_A_TIME: Final = 8  # after a change of bundles each look costs 0.3 ms, and requests need the event loop too


class Connection(Protocol):
    """A connection of either side."""

    transport: asyncio.Transport

    def end_unused(self) -> None:
        """End now if no request is in progress, else as soon as that is over."""


class TrustWatch:
    """Looks at the connections of one process. ``wall`` is the wall clock, in seconds."""

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
                connection.end_unused()
            except Unavailable:  # our own identity is gone: requests are refused until it is back
                continue
