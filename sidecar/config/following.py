"""What is read from files, followed as the files change: the old state stays in force until a new one is proven good.

Files are looked at every few seconds, because that is what works everywhere: a Kubernetes volume changes by swapping a
link, a network volume tells nobody. ``wake`` (SIGHUP) reads everything again at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sidecar.errors import ConfigError, Problem

if TYPE_CHECKING:
    from sidecar.sts.records import EventLog

POLL_S: Final = 2.0
_LOG: Final = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Followed:
    """One thing that is read from files. ``what`` names it in records.

    ``look`` gives something that differs whenever the files do (or raises OSError), ``seen`` is what it gave before the
    state in force was read. ``load`` reads the files and puts them in force, or raises ConfigError and changes nothing.
    """

    what: str
    look: Callable[[], Hashable]
    seen: Hashable
    load: Callable[[], Awaitable[None]]


class Follower:
    """Follows all of them, one after the other; every reload and every refusal is a record and is counted."""

    def __init__(self, followed: Sequence[Followed], log: EventLog, *, poll_s: float = POLL_S) -> None:
        self._followed = followed
        self._log = log
        self._poll_s = poll_s
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Read everything again now, changed or not."""
        self._woken.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            await self._sleep()
            everything = self._woken.is_set()
            self._woken.clear()
            for one in self._followed:
                await self._follow(one, anyway=everything)

    async def _sleep(self) -> None:
        try:
            async with asyncio.timeout(self._poll_s):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _follow(self, one: Followed, *, anyway: bool) -> None:
        seen = seen_by(one.look)
        if seen == one.seen and not anyway:
            return
        one.seen = seen  # what is bad is told once, not at every look
        try:
            await one.load()
        except ConfigError as error:
            self._log.metrics.reloaded(ok=False)
            self._log.event("config.refused", detail=f"{one.what}: {error}")
            for problem in error.problems:
                _LOG.warning("what changed is refused and nothing changes", extra=_fields(one, problem))
        else:
            self._log.metrics.reloaded(ok=True)
            self._log.event("config.reloaded", detail=one.what)
            _LOG.info("reloaded", extra={"what": one.what})


def _fields(one: Followed, problem: Problem) -> dict[str, str]:
    return {"what": one.what, "field": problem.field, "wrong": problem.wrong, "cure": problem.cure}


def look_at(path: Path) -> Hashable:
    """Something that differs whenever the file does, also where it is reached by a link.

    Raises:
        OSError: it is not there.
    """
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def seen_by(look: Callable[[], Hashable]) -> Hashable:
    """What ``look`` gives; where it gives nothing, the kind of error."""
    try:
        return look()
    except OSError as error:
        return error.errno
