"""Closes connections whose peer is no longer trusted, idle ones too.

``watch`` re-evaluates requests and forwardings; this module closes the connections. An idle connection closes at the
next look, a connection in use after its request in progress. A peer whose certificate has expired is treated alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from delegation_core.errors import Denied, Unavailable
from sidecar.identity.tls import guard_of

_AT_A_TIME: Final = 8  # connections per event-loop iteration: after a change of bundles each check costs 0.3 ms


class Connection(Protocol):
    """A connection of either side."""

    transport: asyncio.Transport

    def end_unused(self) -> None:
        """Close now if no request is in progress, else after the request."""


class TrustWatch:
    """Checks the connections of one process. ``wall`` is the wall clock, in seconds."""

    def __init__(self, *, wall: Callable[[], float]) -> None:
        self._wall = wall

    async def look(self, connections: Iterable[Connection]) -> None:
        """Close every TLS connection whose peer would be refused now."""
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
