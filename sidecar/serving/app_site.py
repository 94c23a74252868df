"""Runs aiohttp applications on our listeners: requests are not logged, and content is not decompressed.

The library's own log quotes unparsable input, which may hold a token. Every answered request has a record, and
handlers report bugs themselves.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from aiohttp import web

_SILENT: Final = logging.getLogger(f"{__name__}.silent")
_SILENT.disabled = True

_KEEP_ALIVE_S: Final = 75.0
_CUT_OFF_S: Final = 0.1  # at the end: a client that reads no answer must not keep us from ending


def quiet_runner(
    app: web.Application, *, keep_alive_s: float = _KEEP_ALIVE_S, shutdown_s: float = _CUT_OFF_S
) -> web.AppRunner:
    """Make the runner of an application. Requests in progress at its end have ``shutdown_s`` to finish."""
    return web.AppRunner(
        app,
        access_log=None,
        logger=_SILENT,
        keepalive_timeout=keep_alive_s,
        shutdown_timeout=shutdown_s,
        auto_decompress=False,  # 58 KB of gzip hold the loop for 0.4 s
    )


class QuietProtocol(web.RequestHandler):
    """aiohttp's protocol with the options of ``quiet_runner``; base class for protocols with answers of their own."""

    __slots__ = ()

    def __init__(self, server: web.Server) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=_SILENT,
            logger=_SILENT,
            keepalive_timeout=_KEEP_ALIVE_S,
            auto_decompress=False,
        )


class AppSite:
    """Makes the connections of one listener; see ``PageSite``."""

    def __init__(self, app: web.Application) -> None:
        self._runner = quiet_runner(app, keep_alive_s=15.0)

    async def open(self) -> None:
        """Prepare the application."""
        await self._runner.setup()

    def __call__(self) -> asyncio.Protocol:
        """Make the protocol of one more connection."""
        assert self._runner.server is not None  # noqa: S101 - open() has made it
        return self._runner.server()

    async def close(self) -> None:
        """Close the application."""
        await self._runner.cleanup()
