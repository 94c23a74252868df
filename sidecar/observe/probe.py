"""The probe listener: metrics and health, and nothing else, so that it may face a pod's network."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from aiohttp import hdrs, web

from sidecar.observe.metrics import CONTENT_TYPE, Metrics

# The library's own log quotes what it could not parse.
_SILENT: Final = logging.getLogger(f"{__name__}.silent")
_SILENT.disabled = True


def probe_app(metrics: Metrics, missing: Callable[[], list[str]]) -> web.Application:
    """``/livez``: the loop turns. ``/readyz``: 503 with a line for each thing ``missing``, or 200. ``/metrics``."""

    async def live(_request: web.Request) -> web.Response:
        return web.Response(text="live\n")

    async def ready(_request: web.Request) -> web.Response:
        lacking = missing()
        return web.Response(status=503 if lacking else 200, text="".join(f"{word}\n" for word in lacking or ["ready"]))

    async def scrape(_request: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/livez", live)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/metrics", scrape)
    return app


class Probe:
    """Serves a probe application until closed. ``address`` holds the real port where 0 was asked for."""

    def __init__(self, app: web.Application, host: str, port: int) -> None:
        self.address = (host, port)
        self._runner = web.AppRunner(app, access_log=None, logger=_SILENT, keepalive_timeout=15.0)

    async def open(self) -> None:
        """Start to listen.

        Raises:
            OSError: the address is taken or not ours.
        """
        await self._runner.setup()
        await web.TCPSite(self._runner, *self.address).start()
        host, port = self._runner.addresses[0][:2]
        self.address = (str(host), int(port))

    async def close(self) -> None:
        """Stop."""
        await self._runner.cleanup()
