"""Ends connections whose other end is no longer to be believed: trust that changes reaches what already exists.

Every request is judged by the trust of its own moment anyway. This is for what lies between two requests, and for
answers that stream for long: no connection outlives its peer's certificate, or the peer's authority, by more than the
interval in which this is asked.
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


async def end_distrusted(
    connections: Iterable[ServerConnection | ClientConnection], clock: Callable[[], float]
) -> None:
    """Cut every TLS connection whose peer would be refused now. ``clock`` is wall time in seconds."""
    for number, connection in enumerate(tuple(connections), 1):
        if number % _AT_A_TIME == 0:
            await asyncio.sleep(0)
        if connection.transport.get_extra_info("ssl_object") is None:
            continue
        try:
            guard_of(connection.transport).check(int(clock()))
        except Denied as error:
            _cut(connection, error)
        except Unavailable:  # it is our own identity that is gone: requests are refused until it is back
            continue


def _cut(connection: ServerConnection | ClientConnection, error: Denied) -> None:
    serving = connection.exchange if isinstance(connection, ServerConnection) else None
    if serving is not None and serving.on_stop is not None:
        serving.on_stop(error)  # so that the record says why
    connection.transport.abort()
