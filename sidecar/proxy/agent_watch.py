"""Watches that somebody listens where the agent should, so that a dead agent is told before a call finds it.

An open connection to the agent is proof enough. Without one, the watch connects and closes again at once, as a TCP
probe of a kubelet does. Until the agent was there once, it is starting, and nothing is said.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from sidecar.wire.pool import Origin, UpstreamPool

LOOK_S: Final = 5.0
_TIMEOUT_S: Final = 2.0
_log: Final = logging.getLogger("sidecar")


class AgentWatch:
    """The state of one agent. ``up`` is None until it was seen once, or where the settings name none."""

    def __init__(self, pool: UpstreamPool, agent: Callable[[], Origin | None]) -> None:
        self.up: bool | None = None
        self._pool = pool
        self._agent = agent

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        agent = self._agent()
        if agent is None:
            self.up = None
            return
        up = len(self._pool.connections) > 0 or await _listens(agent)
        if self.up is not None and up != self.up:
            where = {"address": f"{agent.host}:{agent.port}"}
            if up:
                _log.info("the agent listens again", extra=where)
            else:
                _log.warning("the agent listens no more", extra=where)
        if up or self.up is not None:
            self.up = up


async def _listens(agent: Origin) -> bool:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            _, writer = await asyncio.open_connection(agent.host, agent.port)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True
