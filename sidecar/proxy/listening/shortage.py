"""Load shedding while memory is short: first caches, then lingering handles, then connections.

If caches and lingering handles free too little, new connections are refused, and idle connections and unread answers
(up to a MiB each) are cut. With hardly any memory left, answers to slow readers are cut too: otherwise the kernel ends
the process.

While memory is nearly short, each answer gets a smaller buffer and fewer handshakes run at a time; connections stay.
Otherwise a flood could use the rest within one event-loop iteration, before the next reading.

Memory is read four times a second, and more often while it is nearly short; requests never read it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Final

from sidecar.libc_memory import give_back, keep_large_ones_apart
from sidecar.observe.access_log import TICK_S
from sidecar.proxy.journeys.caches import Caches
from sidecar.proxy.listening.listener import Listener
from sidecar.proxy.listening.memory_pressure import Memory
from sidecar.wire.pool import UpstreamPool

_log: Final = logging.getLogger("sidecar")

_URGENT_S: Final = 0.05
_LOOKS_PER_GIFT: Final = 20
_MIB: Final = 1024 * 1024


class Shortage:
    """Reads ``memory`` and adjusts caches, listeners and pools. ``give`` returns freed memory to the system.

    ``prepare`` is called once, when memory is first nearly short: later large allocations can then be returned.
    """

    def __init__(
        self,
        memory: Memory,
        listeners: Sequence[Listener],
        pools: Sequence[UpstreamPool],
        caches: Caches,
        *,
        give: Callable[[], None] = give_back,
        prepare: Callable[[], None] = keep_large_ones_apart,
    ) -> None:
        self._memory = memory
        self._listeners = listeners
        self._pools = pools
        self._caches = caches
        self._give = give
        self._prepare = prepare
        self._prepared = False
        self._braced = False
        self._looks = itertools.count()

    async def run(self) -> None:
        """Call ``look`` periodically until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_URGENT_S if self._memory.nearly_short else TICK_S)

    def room_for(self, size: int) -> bool:
        """Return True if a child process may use ``size`` bytes; evict from caches and handles if necessary."""
        memory = self._memory
        memory.look()
        for handles in (False, True):
            if not memory.has_room(size) and self._caches.shed(memory.limit_bytes, handles=handles):
                self._give()
                memory.look()
        return memory.has_room(size)

    def look(self) -> None:
        """Read the memory use once, and act on it."""
        memory = self._memory
        was_short = memory.short
        if memory.look() or (memory.nearly_short and next(self._looks) % _LOOKS_PER_GIFT == 0):
            self._give()  # some milliseconds; freed memory counts as used until it is returned
            memory.look()
        for handles in (False, True):
            if memory.short and self._caches.shed(memory.limit_bytes, handles=handles):
                self._give()
                memory.look()
        self._tell(memory, was_short=was_short)

    def _tell(self, memory: Memory, *, was_short: bool) -> None:
        if memory.short and not was_short:
            self._say(logging.WARNING, "memory is short: new connections are refused")
        elif was_short and not memory.short:
            self._say(logging.INFO, "memory is no longer short")
        if memory.nearly_short and not self._prepared:
            self._prepared = True
            self._prepare()
        for listener in self._listeners:
            if memory.short:
                listener.tighten(at_once=memory.hardly_any)
            elif memory.nearly_short and (was_short or not self._braced):
                listener.brace()
            elif self._braced and not memory.nearly_short:
                listener.relax()
        for pool in self._pools:
            pool.hold(little=memory.nearly_short)
        self._braced = memory.nearly_short

    def _say(self, level: int, what: str) -> None:
        memory = self._memory
        extra = {"used_mib": memory.used_bytes // _MIB, "limit_mib": memory.limit_bytes // _MIB}
        _log.log(level, what, extra=extra)
