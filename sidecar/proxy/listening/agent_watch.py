"""Watches the agent's port, so that a dead agent is reported before a call fails.

An open connection to the agent proves that it listens. Without one, the watch connects and closes at once, like a
kubelet's TCP probe. Until its first success the agent counts as starting, and nothing is reported.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from sidecar.wire.dialer import Origin
from sidecar.wire.pool import UpstreamPool

LOOK_S: Final = 5.0
_TIMEOUT_S: Final = 2.0
_log: Final = logging.getLogger("sidecar")


class AgentWatch:
    """State of the agent. ``up`` is None until it has listened once, and if the settings name no agent."""

    def __init__(self, pool: UpstreamPool, agent: Callable[[], Origin | None]) -> None:
        self.up: bool | None = None
        self._pool = pool
        self._agent = agent

    async def run(self) -> None:
        """Call ``look`` every ``LOOK_S`` until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Update ``up``; log each change between up and down."""
        agent = self._agent()
        if agent is None:
            self.up = None
            return
        up = self._pool.reaches(agent) or await _listens(agent)
        if self.up is not None and up != self.up:
            where = {"address": f"{agent.host}:{agent.port}"}
            if up:
                _log.info("the agent listens again", extra=where)
            else:
                _log.warning("the agent no longer listens", extra=where)
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
