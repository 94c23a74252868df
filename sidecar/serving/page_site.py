"""Serves pages with the HTTP engine of the data plane, which has deadlines and a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from sidecar.observe.pages import Pages
from sidecar.wire.connections import Connections
from sidecar.wire.h1_server import ServerConnection
from sidecar.wire.limits import ServerLimits

_CUT_OFF_S: Final = 0.1  # at the end: a client that reads no answer must not keep us from ending


class PageSite:
    """Makes the connections of one listener. ``keep_alive_s``: an idle connection is closed after that time."""

    def __init__(self, pages: Pages, *, keep_alive_s: float = 15.0) -> None:
        self._pages = pages
        self._limits = ServerLimits(keep_alive_timeout_s=keep_alive_s)
        self._connections: Connections[ServerConnection] = Connections()

    async def open(self) -> None:
        """Does nothing: pages need no preparation."""

    def __call__(self) -> asyncio.Protocol:
        """Make the protocol of one more connection."""
        return ServerConnection(self._pages, self._limits, self._connections)

    async def close(self) -> None:
        """Close: wait briefly for answers in progress, then abort every connection."""
        self._connections.drain(0.0)
        await self._pages.finish(_CUT_OFF_S)
        for connection in self._connections:
            connection.finish()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._connections.wait_for_empty(), _CUT_OFF_S)
        for connection in self._connections:
            connection.cut_off()
