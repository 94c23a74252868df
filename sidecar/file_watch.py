"""Watches files and reloads the state loaded from them. The old state stays in force until the new one is valid.

Files are polled every few seconds, which works everywhere: a Kubernetes volume changes by swapping a link, and a
network volume sends no notifications. ``FileWatcher.wake`` (SIGHUP) reloads everything at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from delegation_core.errors import ConfigError, Problem

POLL_S: Final = 2.0
MAX_RETRY_S: Final = 60.0
_LOG: Final = logging.getLogger(__name__)


class ReloadCounts(Protocol):
    """Counters of reloads."""

    def reloaded(self, what: str, *, ok: bool) -> None:
        """Count a reload of ``what``; ``ok`` if it succeeded."""
        ...


class ReloadLog(Protocol):
    """Records and counters of reloads."""

    @property
    def metrics(self) -> ReloadCounts:
        """Return the counters."""
        ...

    def event(self, event: str, *, detail: str) -> None:
        """Write one record."""
        ...


@dataclass(slots=True, kw_only=True)
class Watched:
    """State loaded from files, and its reload. ``what`` names it in records.

    ``fingerprint`` returns a value that changes with the files, or raises OSError. ``last`` is the fingerprint from
    before the last load. ``reload`` puts a new state in force, or raises ConfigError and changes nothing.
    """

    what: str
    fingerprint: Callable[[], Hashable]
    last: Hashable
    reload: Callable[[], Awaitable[None]]
    retry_s: float = 0.0  # the last pause before a retry
    retry_at: float | None = None


class FileWatcher:
    """Reloads each ``Watched`` when its files change, one after the other. Every reload is recorded and counted.

    All changes and calls of ``wake`` during a reload cause one more reload, which loads the newest state. A reload that
    fails with a transient error is retried with exponential backoff.
    """

    def __init__(self, watched: Sequence[Watched], log: ReloadLog, *, poll_s: float = POLL_S) -> None:
        self._watched = watched
        self._log = log
        self._poll_s = poll_s
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Reload everything now, even if no file has changed."""
        self._woken.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._sleep()
            everything = self._woken.is_set()
            self._woken.clear()
            for one in self._watched:
                found = await asyncio.to_thread(fingerprint_or_errno, one.fingerprint)  # in a thread: a disk may block
                due = one.retry_at is not None and time.monotonic() >= one.retry_at
                if found != one.last or everything or due:
                    one.last = found  # before the reload: an invalid state is reported once, not at every poll
                    await self._reload(one)

    async def _sleep(self) -> None:
        try:
            async with asyncio.timeout(self._poll_s):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _reload(self, one: Watched) -> None:
        try:
            await one.reload()
        except ConfigError as error:
            self._log.metrics.reloaded(one.what, ok=False)
            self._log.event("config.refused", detail=f"{one.what}: {error}")
            one.retry_s = min(max(2 * one.retry_s, self._poll_s), MAX_RETRY_S) if error.transient else 0.0
            one.retry_at = time.monotonic() + one.retry_s if error.transient else None
            for problem in error.problems:
                _LOG.warning("reload refused; the old state stays in force", extra=_fields(one, problem))
        else:
            one.retry_s, one.retry_at = 0.0, None
            self._log.metrics.reloaded(one.what, ok=True)
            self._log.event("config.reloaded", detail=one.what)
            _LOG.info("reloaded", extra={"what": one.what})


def _fields(one: Watched, problem: Problem) -> dict[str, str]:
    return {"what": one.what, "field": problem.field, "wrong": problem.wrong, "fix": problem.fix}


def fingerprint(path: Path) -> Hashable:
    """Return a value that changes with the file, links followed; the errno if stat fails."""

    def take() -> Hashable:
        status = path.stat()
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size

    return fingerprint_or_errno(take)


def tree_fingerprint(path: Path) -> Hashable:
    """Return the fingerprint of a file, or of all files directly in a folder, without hidden ones."""

    def take() -> Hashable:
        if not path.is_dir():
            return fingerprint(path)
        return tuple((one.name, fingerprint(one)) for one in sorted(path.iterdir()) if not one.name.startswith("."))

    return fingerprint_or_errno(take)


def fingerprint_or_errno(take: Callable[[], Hashable]) -> Hashable:
    """Return the fingerprint that ``take`` returns; the errno if it raises OSError."""
    try:
        return take()
    except OSError as error:
        return error.errno
