"""Callers that reuse their connections and open a new one after an announced last answer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

from tests.integration.world import Kept, World, bearer, mint, until


class Load:
    """Counts ``answered`` requests, and names ``lost`` ones: sent without a good answer."""

    def __init__(self, world: World, port: int, context: ssl.SSLContext) -> None:
        self.answered = 0
        self.lost: list[str] = []
        self.ended: int | None = None
        self._world = world
        self._port = port
        self._context = context
        self._ending = False

    async def run(self, *, callers: int, count: int, then: Callable[[], Awaitable[int]]) -> None:
        """Call over this many connections; after ``count`` answers ``then`` ends the sidecar while the calls continue.

        They stop when no connection is accepted any more.
        """
        calling = [asyncio.ensure_future(self._call()) for _ in range(callers)]
        await until(lambda: self.answered >= count)
        self._ending = True
        self.ended = await then()
        await asyncio.gather(*calling)

    async def _call(self) -> None:
        token = mint()
        while True:
            try:
                async with self._world.kept(self._port, self._context) as kept:
                    await self._call_on(kept, token)
            except OSError as error:  # before anything was sent on it
                if not self._ending:
                    self.lost.append(f"no connection: {error!r}")
                return

    async def _call_on(self, kept: Kept, token: str) -> None:
        last = False
        while not last:
            try:
                answer = await kept.ask(headers=bearer(token))
            except (asyncio.IncompleteReadError, OSError) as error:
                self.lost.append(repr(error))
                return
            if answer.status != 200:
                self.lost.append(f"{answer.status} {answer.reason}")
            self.answered += 1
            last = answer.headers.get("connection") == "close"
