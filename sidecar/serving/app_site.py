"""Serves an application of aiohttp's at a listener of ours."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from aiohttp import web

# The library's own log quotes input that it could not parse.
_SILENT: Final = logging.getLogger(f"{__name__}.silent")
_SILENT.disabled = True

_CUT_OFF_S: Final = 0.1  # at the end: a client that reads no answer must not keep us from ending


class AppSite:
    """Makes the connections of one listener; see ``PageSite``."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_SILENT,
            keepalive_timeout=15.0,
            shutdown_timeout=_CUT_OFF_S,
            auto_decompress=False,  # 58 KB of gzip hold the loop for 0.4 s
        )

    async def open(self) -> None:
        """Prepare the application."""
        await self._runner.setup()

    def __call__(self) -> asyncio.Protocol:
        """Make the protocol of one more connection."""
        assert self._runner.server is not None  # noqa: S101 - open() has made it
        return self._runner.server()

    async def close(self) -> None:
        """End."""
        await self._runner.cleanup()
