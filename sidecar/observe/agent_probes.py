"""Relays the agent's own health checks: a kubelet cannot reach an agent behind its sidecar.

Fixed paths from the settings, GET, no query, and only the status is returned: no request of a peer can look like one of
these, and the prober learns as much as a kubelet. Frequent probes cause no more work: concurrent ones share one answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import aiohttp
from aiohttp import web

TIMEOUT_S: Final = 2.0
_UNAVAILABLE: Final = 503


class AgentProbes:
    """Asks the agent at ``origin``, such as ``http://127.0.0.1:8080``, for ``paths``."""

    def __init__(self, origin: str, paths: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> None:
        self._origin = origin
        self._paths = tuple(paths)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._asking: dict[str, asyncio.Task[int]] = {}

    def add_to(self, app: web.Application) -> None:
        """Serve the paths on the probe listener."""
        for path in self._paths:
            app.router.add_get(path, self._answer, allow_head=False)

    async def status(self, path: str) -> int:
        """Return the agent's status; 503 if it gives none in time."""
        asking = self._asking.get(path)
        if asking is None:
            asking = self._asking[path] = asyncio.ensure_future(self._ask(path))
            asking.add_done_callback(lambda _: self._asking.pop(path, None))
        return await asyncio.shield(asking)

    async def _answer(self, request: web.Request) -> web.Response:
        if request.raw_path not in self._paths:  # with a query, or in another spelling
            raise web.HTTPNotFound
        return web.Response(status=await self.status(request.raw_path))

    async def _ask(self, path: str) -> int:
        try:
            async with (
                aiohttp.ClientSession(trust_env=False, timeout=self._timeout) as session,
                session.get(f"{self._origin}{path}", allow_redirects=False) as answer,
            ):
                return answer.status if answer.status >= 200 else _UNAVAILABLE
        except (aiohttp.ClientError, TimeoutError, OSError):
            return _UNAVAILABLE
