"""Background tasks of a process, in named parts: a part that ends before it is stopped is an error.

A part keeps something current: the identity, the keys, the settings. Without it the process would go on with stale
data, unnoticed. So the end of a part is logged and ends the process with exit code 1.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final

_log: Final = logging.getLogger("sidecar")


class PartEndedError(Exception):
    """A part has ended by itself. If it raised an exception, that is the cause."""

    def __init__(self, part: str) -> None:
        super().__init__(f"{part} has ended by itself")
        self.part = part


class Parts:
    """Starts parts, watches them and stops them. ``error`` names the first part that ended by itself."""

    def __init__(self) -> None:
        self.error: PartEndedError | None = None
        self._names: dict[asyncio.Future[Any], str] = {}
        self._ended = asyncio.Event()

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Run ``work`` as a part; ``name`` appears in the log."""
        part = asyncio.ensure_future(work)
        self._names[part] = name
        part.add_done_callback(self._notice)
        return part

    def stop(self, part: asyncio.Future[Any]) -> None:
        """Cancel one part; do nothing if it was stopped before."""
        if part.done():
            self._notice(part)
        elif self._names.pop(part, None) is not None:
            part.cancel()

    async def run_until(self, *stops: asyncio.Event) -> None:
        """Return once one of ``stops`` is set.

        Raises:
            PartEndedError: a part has ended before.
        """
        waits = [asyncio.ensure_future(event.wait()) for event in (*stops, self._ended)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        """Cancel every part and wait for its end."""
        parts = list(self._names)
        for part in parts:
            self.stop(part)
        await asyncio.gather(*parts, return_exceptions=True)

    def _notice(self, part: asyncio.Future[Any]) -> None:
        name = self._names.pop(part, None)
        if name is None:  # it was stopped, or noticed before
            return
        error = PartEndedError(name)
        error.__cause__ = None if part.cancelled() else part.exception()
        _log.critical("a part of the process has ended by itself", extra={"part": name}, exc_info=error.__cause__)
        self.error = self.error or error
        self._ended.set()


async def run_until_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    """Run ``work`` until ``stop``, then wait to be cancelled: for a part that must pause while the process drains."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
            return
        working.cancel()
        await asyncio.get_running_loop().create_future()
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
