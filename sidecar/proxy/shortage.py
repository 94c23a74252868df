"""What is done while memory is short: nobody more comes in, and who holds memory without using it goes.

That is a connection on which no request is served, then an answer that its peer does not take: up to a MiB each. While
there is hardly any the peer is given no time to take it: better some are cut than that the kernel ends us all.

Looked at four times a second, and more often while it may become short at once; never by a request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from sidecar.observe.access_log import TICK_S
from sidecar.proxy.listener import Listener
from sidecar.proxy.memory import Memory
from sidecar.proxy.memory_use import give_back

_log: Final = logging.getLogger("sidecar")

_URGENT_S: Final = 0.05
_MIB: Final = 1024 * 1024


class Shortage:
    """Looks at ``memory`` and tells the listeners. Memory that was freed is given back to the system by ``give``."""

    def __init__(self, memory: Memory, listeners: Sequence[Listener], *, give: Callable[[], None] = give_back) -> None:
        self._memory = memory
        self._listeners = listeners
        self._give = give

    async def run(self) -> None:
        """Look and act until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_URGENT_S if self._memory.urgent else TICK_S)

    def look(self) -> None:
        """Look once, and act on it."""
        memory = self._memory
        was_short = memory.short
        if memory.look():
            self._give()  # some milliseconds: what was freed counts as used until then
            memory.look()
        if memory.short:
            if not was_short:
                self._say(logging.WARNING, "memory is short: no more connections are taken")
            for listener in self._listeners:
                listener.tighten(at_once=memory.hardly_any)
        elif was_short:
            for listener in self._listeners:
                listener.relax()
            self._say(logging.INFO, "there is memory again")

    def _say(self, level: int, what: str) -> None:
        memory = self._memory
        extra = {"used_mib": memory.used_bytes // _MIB, "limit_mib": memory.limit_bytes // _MIB}
        _log.log(level, what, extra=extra)
