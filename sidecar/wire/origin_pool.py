"""Connections to one origin, and the queue of calls that wait for one of them.

Theory of operation. The connection returned last is reused first, so that the others can age and close. A call that
finds none, or finds calls waiting, joins the queue, and a connection is opened for it. The first free connection, new
or returned by another call, goes to the call that has waited longest. No call passes the queue: with more calls than
connections, a later call would otherwise take a returned connection from a waiting one. A later call gets a connection
at once only if there are more idle connections than waiting calls, which are all served in the next event-loop
iteration. A new connection that is no longer needed is kept, and an attempt that is no longer needed counts for the
next call. So no more connections are opened than there are concurrent calls, and no call waits for a handshake while a
connection is free.

A failed attempt fails one call, the longest waiting of those that waited when it began; the others have attempts and
deadlines of their own. A cancelled call cancels an attempt that is no longer needed.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.wire.dialer import Origin
from sidecar.wire.limits import ClientLimits

if TYPE_CHECKING:
    from sidecar.wire.upstream import Line, Upstream

PoolEvent = Literal["opened", "failed", "retried"]
OnReady: TypeAlias = "Callable[[Upstream], None]"
OnError = Callable[[SidecarError], None]

_STALLED: Final = 0.5  # of the timeout: a slower attempt no longer counts, and the next call starts one of its own


class Waiter:
    """One call in the queue. ``fresh``: a reused connection is not acceptable."""

    __slots__ = ("_pool", "fresh", "on_error", "on_ready", "since", "timer")

    def __init__(self, pool: OriginPool, on_ready: OnReady, on_error: OnError, *, fresh: bool, since: float) -> None:
        self._pool = pool
        self.on_ready = on_ready
        self.on_error = on_error
        self.fresh = fresh
        self.since = since
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Leave the queue."""
        self._pool.leave(self)


class OriginPool:
    """Connections of one key, and the calls that wait for one. ``alive`` includes those in use."""

    __slots__ = (
        "_clock",
        "_counts",
        "_limits",
        "_on_empty",
        "_open",
        "alive",
        "attempts",
        "idle",
        "origin",
        "retired",
        "usual",
        "waiting",
    )

    def __init__(
        self,
        origin: Origin,
        limits: ClientLimits,
        counts: dict[PoolEvent, int],
        clock: Callable[[], float],
        *,
        opened: Callable[[OriginPool], Coroutine[Any, Any, Upstream]],
        on_empty: Callable[[OriginPool], None],
    ) -> None:
        self.origin = origin
        self.idle: list[Upstream] = []
        self.waiting: OrderedDict[Waiter, None] = OrderedDict()  # the longest waiting first
        self.attempts: dict[asyncio.Task[Upstream], float] = {}  # with their start times
        self.alive: set[Line] = set()
        self.retired = False
        self.usual: OrderedDict[Waiter, None] = OrderedDict()  # the waiting calls that accept a reused connection
        self._limits = limits
        self._counts = counts
        self._clock = clock
        self._open = opened
        self._on_empty = on_empty

    def take(self, still_good: Callable[[asyncio.BaseTransport], bool] | None, promised: int = 0) -> Upstream | None:
        """Return the newest usable idle connection, but leave ``promised`` connections to waiting calls; else None."""
        idle = self.idle
        while len(idle) > promised:
            connection = idle.pop()
            if not connection.usable:
                continue
            if still_good is None or still_good(connection.transport):
                return connection
            connection.close()
        return None

    def wait(self, on_ready: OnReady, on_error: OnError, *, fresh: bool) -> Waiter:
        """Join the queue."""
        waiter = Waiter(self, on_ready, on_error, fresh=fresh, since=self._clock())
        loop = asyncio.get_running_loop()
        waiter.timer = loop.call_later(self._limits.connect_timeout_s, self._time_out, waiter)
        self.waiting[waiter] = None
        if not fresh:
            self.usual[waiter] = None
        self._open_what_is_wanted()
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Take a cancelled call out of the queue."""
        if self.remove(waiter):
            going_on = [attempt for attempt in self.attempts if not attempt.cancelling()]
            if len(going_on) > len(self.waiting):
                going_on[-1].cancel()

    def remove(self, waiter: Waiter) -> bool:
        """Take a call out of the queue. False if it is no longer in it."""
        if waiter not in self.waiting:
            return False
        del self.waiting[waiter]
        self.usual.pop(waiter, None)
        if waiter.timer is not None:
            waiter.timer.cancel()
        return True

    def keep(self, connection: Upstream) -> None:
        """Keep a connection that is idle."""
        if self.retired or len(self.idle) >= self._limits.max_idle + len(self.usual):
            connection.close()
            return
        connection.kept = True
        self.idle.append(connection)
        if self.waiting:
            asyncio.get_running_loop().call_soon(self._serve)  # not here: the end is still being reported

    def forget(self, gone: Line | Upstream) -> None:
        """Remove a closed connection, or an exchange that accepts no more requests."""
        self.alive.difference_update((gone,))
        if gone in self.idle:
            self.idle[:] = [upstream for upstream in self.idle if upstream is not gone]
        self._tell_if_empty()

    def retire(self) -> None:
        """Retire these connections: they serve no further call, and close when idle."""
        self.retired = True
        idle, self.idle = self.idle, []
        for connection in idle:
            connection.close()
        self._tell_if_empty()

    def fail_all(self, error: Unavailable) -> None:
        """Fail every waiting call."""
        while self.waiting:
            waiter = next(iter(self.waiting))
            self.remove(waiter)
            waiter.on_error(Unavailable(error.reason, error.detail))

    def _serve(self) -> None:
        """Give a free connection to the call that has waited longest."""
        waiter = next(iter(self.usual), None)
        connection = None if waiter is None else self.take(self.origin.still_good)
        if waiter is not None and connection is not None and self.remove(waiter):
            waiter.on_ready(connection)

    def _time_out(self, waiter: Waiter) -> None:
        if self.remove(waiter):
            waiter.on_error(Unavailable(Reason.UPSTREAM_TIMEOUT, "no connection in time"))

    def _open_what_is_wanted(self) -> None:
        """Start as many attempts as calls wait, within the limit."""
        now = self._clock()
        stalled_s = self._limits.connect_timeout_s * _STALLED
        promising = sum(now - began_at < stalled_s for began_at in self.attempts.values())
        while promising < len(self.waiting) and len(self.attempts) < self._limits.max_connecting:
            attempt = asyncio.get_running_loop().create_task(self._open(self))
            self.attempts[attempt] = now
            attempt.add_done_callback(self._attempt_ended)
            promising += 1

    def _attempt_ended(self, attempt: asyncio.Task[Upstream]) -> None:
        began_at = self.attempts.pop(attempt)
        if attempt.cancelled():
            self._open_what_is_wanted()
            self._tell_if_empty()
            return
        error = attempt.exception()
        if error is None:
            error = self._why_useless(attempt.result())
        if error is None:
            self._counts["opened"] += 1
            self._opened(attempt.result())
        else:
            self._counts["failed"] += 1
            self._failed(error, began_at)

    def _why_useless(self, connection: Upstream) -> SidecarError | None:
        """Return the reason why a new connection is unusable: time has passed since its handshake."""
        if not connection.usable:
            return Unavailable(
                Reason.UPSTREAM_UNREACHABLE,
                "the upstream closed a new connection; it may speak another version of HTTP",
            )
        still_good = self.origin.still_good
        if still_good is None or still_good(connection.transport):
            return None
        connection.close()
        return Denied(Reason.UPSTREAM_IDENTITY, "the other end's identity has ended since its handshake")

    def _opened(self, connection: Upstream) -> None:
        if self.waiting:
            waiter = next(iter(self.waiting))
            self.remove(waiter)
            self._open_what_is_wanted()
            waiter.on_ready(connection)
        else:
            self.keep(connection)

    def _failed(self, error: BaseException, began_at: float) -> None:
        waiter = next(iter(self.waiting), None)
        if waiter is not None and waiter.since <= began_at:
            self.remove(waiter)
        else:
            waiter = None
        self._open_what_is_wanted()
        self._tell_if_empty()
        if not isinstance(error, SidecarError):
            if waiter is not None:
                waiter.on_error(SidecarError(Reason.INTERNAL, type(error).__name__))
            raise error  # a bug: the request ends, and the loop's exception handler reports it
        if waiter is not None:
            waiter.on_error(error)

    def _tell_if_empty(self) -> None:
        if not (self.alive or self.waiting or self.attempts):
            self._on_empty(self)
