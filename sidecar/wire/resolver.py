"""Resolver of upstream names: a slow or dead resolver costs its callers a deadline, and other calls nothing.

Theory of operation. The system's ``getaddrinfo`` knows hosts files, search domains and all else that an operator set
up, but it has no deadline, cannot be cancelled and reports no TTL. So each lookup runs in a daemon thread of its own:
at most ``max_lookups`` of them, one per name however many callers wait, and each caller stops waiting at its deadline.
No call waits for a lookup that already hangs: later callers get the last good addresses at once, or an error. Only
names in the settings are looked up, so they bound the cache.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Annotated, Final, Literal

from delegation_core.errors import Reason, Unavailable
from sidecar.libc_memory import LOOKUP_THREAD

LookupResult = Literal["ok", "failed", "timeout", "stale"]
Lookup = Callable[[str], Sequence[str]]

MAX_ADDRESSES: Final = 64  # addresses kept for one name; an answer may hold thousands
_GIVEN_UP_S: Final = 30.0  # a thread that has hung for so long is abandoned, and another looks the name up
_NO_SUCH_NAME: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY})


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverSettings:
    """Settings of name lookup. Times in seconds.

    Addresses serve for ``cache_s``, as the system's resolver reports no TTL. While lookups get no answer, the last good
    ones serve for ``max_stale_s`` more; not if the name is gone. A failure is cached for ``failure_cache_s``. A lookup
    has ``timeout_s``; at most ``max_lookups`` run at once, hanging ones included.
    """

    timeout_s: Annotated[float, "timeout of a lookup"] = 2.0
    cache_s: Annotated[float, "how long addresses are cached"] = 30.0
    failure_cache_s: Annotated[float, "how long a failure is cached"] = 1.0
    max_stale_s: Annotated[float, "how long the last good addresses are used beyond that while lookups fail"] = 300.0
    max_lookups: Annotated[int, "the most concurrent lookups, hanging ones included"] = 8

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"{field.name} must be more than zero")


class _Name:
    """Result of the last lookups of one name."""

    __slots__ = ("addresses", "failed_at", "failure", "found_at", "landing", "looked_at")

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ()
        self.found_at = 0.0
        self.failure: Unavailable | None = None
        self.failed_at = 0.0
        self.landing: asyncio.Future[None] | None = None  # of the lookup in progress
        self.looked_at = 0.0  # when that began


class Resolver:
    """Looks names up for one event loop. ``counts`` has a counter for each ``LookupResult``."""

    def __init__(
        self,
        settings: ResolverSettings | None = None,
        *,
        counts: dict[LookupResult, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
        lookup: Lookup | None = None,
    ) -> None:
        self._settings = settings or ResolverSettings()
        self._counts = new_counts() if counts is None else counts
        self._clock = clock
        self._lookup = lookup or look_up
        self._names: dict[str, _Name] = {}
        self._queue: deque[tuple[str, _Name]] = deque()
        self.running = 0  # threads, hanging ones included

    async def addresses(self, host: str) -> tuple[str, ...]:
        """Return the addresses of ``host`` in the order of preference, at least one; an IP literal is its own.

        Raises:
            Unavailable: UPSTREAM_UNREACHABLE, there is none; UPSTREAM_TIMEOUT, none came in time.
        """
        if is_address(host):
            return (host,)
        settings, now = self._settings, self._clock()
        name = self._names.setdefault(host, _Name())
        if name.addresses and now - name.found_at < settings.cache_s:
            return name.addresses
        if name.failure is not None and now - name.failed_at < settings.failure_cache_s:
            return self._last_good(name, name.failure)
        landing = self._landing(host, name, now)
        left = name.looked_at + settings.timeout_s - now
        if left > 0:
            await asyncio.wait([landing], timeout=left)
        if not landing.done():
            self._counts["timeout"] += 1
            return self._last_good(name, Unavailable(Reason.UPSTREAM_TIMEOUT, "no address in time"))
        landing.result()
        if name.failure is not None:
            return self._last_good(name, name.failure)
        return name.addresses

    def doubt(self, host: str) -> None:
        """Cache the addresses of ``host`` only as long as a failure: no connection to them succeeded."""
        name = self._names.get(host)
        if name is not None:
            settings = self._settings
            name.found_at = min(name.found_at, name.looked_at + settings.failure_cache_s - settings.cache_s)

    def _last_good(self, name: _Name, failure: Unavailable) -> tuple[str, ...]:
        """Return the last good addresses instead of a failure, if they are not too old."""
        age = self._clock() - name.found_at
        if not name.addresses or age >= self._settings.cache_s + self._settings.max_stale_s:
            raise Unavailable(failure.reason, failure.detail)
        self._counts["stale"] += 1
        return name.addresses

    def _landing(self, host: str, name: _Name, now: float) -> asyncio.Future[None]:
        """Return the future of the lookup in flight; start one if needed."""
        if name.landing is None or now - name.looked_at >= _GIVEN_UP_S:
            name.landing = asyncio.get_running_loop().create_future()
            name.looked_at = now
            self._queue.append((host, name))
            self._begin()
        return name.landing

    def _begin(self) -> None:
        while self._queue and self.running < self._settings.max_lookups:
            host, name = self._queue.popleft()
            if name.landing is None:  # it waited so long that another lookup began and ended
                continue
            self.running += 1
            loop = asyncio.get_running_loop()
            work = (loop, host, name, name.landing)
            try:
                threading.Thread(target=self._work, args=work, daemon=True, name=LOOKUP_THREAD).start()
            except RuntimeError:  # the system has no more threads
                loop.call_soon(self._landed, name, name.landing, OSError("no thread"))

    def _work(self, loop: asyncio.AbstractEventLoop, host: str, name: _Name, landing: asyncio.Future[None]) -> None:
        """Look a name up, in a thread of its own."""
        try:
            outcome: Sequence[str] | Exception = self._lookup(host)
        except Exception as error:  # noqa: BLE001 - judged where it lands
            outcome = error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(self._landed, name, landing, outcome)

    def _landed(self, name: _Name, landing: asyncio.Future[None], outcome: Sequence[str] | Exception) -> None:
        self.running -= 1
        if name.landing is landing:
            name.landing = None
        if isinstance(outcome, OSError | UnicodeError):
            self._failed(name, outcome)
        elif isinstance(outcome, Exception):
            if not landing.done():
                landing.set_exception(outcome)  # a bug: it ends the waiting calls, and stays visible
        elif not outcome:
            self._failed(name, socket.gaierror(socket.EAI_NODATA, "no usable address"))
        else:
            self._counts["ok"] += 1
            name.addresses, name.found_at, name.failure = tuple(outcome[:MAX_ADDRESSES]), self._clock(), None
        if not landing.done():
            landing.set_result(None)
        self._begin()

    def _failed(self, name: _Name, error: OSError | UnicodeError) -> None:
        self._counts["failed"] += 1
        gone = isinstance(error, UnicodeError) or (isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_NAME)
        if gone:
            name.addresses = ()
        detail = "the name has no address" if gone else "the name cannot be looked up"
        name.failure, name.failed_at = Unavailable(Reason.UPSTREAM_UNREACHABLE, detail), self._clock()


def new_counts() -> dict[LookupResult, int]:
    """Return a zero for every result."""
    return {"ok": 0, "failed": 0, "timeout": 0, "stale": 0}


def is_address(host: str) -> bool:
    """True if this is an IP literal, which needs no lookup."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def look_up(host: str) -> list[str]:
    """Look a name up with the system. Blocks for any time. Link-local addresses are left out: they need an interface.

    Raises:
        OSError: there is no address, or no answer.
        UnicodeError: IDNA cannot express the name.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [text for text in dict.fromkeys(str(row[4][0]) for row in found) if "%" not in text]
