"""Journeys: each is a generator as long-lived as its request, resumed from callbacks.

A journey yields what it must wait for and is resumed with the result. On the warm path it waits only for bytes, so a
request costs one generator and a handful of resumes: no task, no future. A wait for keys or for a token exchange
costs one task. When the peer vanishes, the journey is told by an exception like any other, so its ``finally`` closes
the record: an aborted request is evidence too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from inspect import GEN_CLOSED, getgeneratorstate
from typing import Any, Final, Protocol, TypeVar

from sidecar.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.wire.stream import Stream

_log: Final = logging.getLogger("sidecar.journey")

_T = TypeVar("_T")


class OnDemand(dict[str, _T]):
    """Values by name, each made by ``make`` when it is first asked for."""

    def __init__(self, make: Callable[[str], _T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, name: str) -> _T:
        made = self[name] = self._make(name)
        return made


class Waiter(Protocol):
    """The party that is told when a wait is over: exactly one of the two is called, once.

    ``waited``: time has passed since the journey began, so what it has decided on may have changed.
    """

    waited: bool

    def resume(self, result: Any) -> None:
        """The wait ended with ``result``."""
        ...

    def fail(self, error: SidecarError) -> None:
        """The wait ended with an error."""
        ...


class Wait(Protocol):
    """Something a journey waits for."""

    def begin(self, waiter: Waiter) -> None:
        """Start. ``waiter`` may be called before this returns."""
        ...

    def cancel(self) -> None:
        """Cancel the wait and release everything."""
        ...


Journey = Generator[Wait, Any, _T]


class Drive:
    """Drives one journey to its end. The one place that catches a bug: this request ends, the process lives on.

    ``resume(None)`` starts it. The journey itself answers and closes its record in its ``finally``, whatever ended it.
    """

    __slots__ = ("_journey", "_wait", "waited")

    def __init__(self, journey: Journey[None]) -> None:
        self.waited = False
        self._journey = journey
        self._wait: Wait | None = None

    def begin_waiting(self) -> None:
        """Take over a journey that is in the middle of its first wait, which has begun elsewhere."""
        self._wait = self._journey.send(None)

    def resume(self, result: Any) -> None:
        """Continue with the result of the wait, until the next one."""
        try:
            wait = self._wait = self._journey.send(result)
        except StopIteration:
            self._wait = None
            return
        except Exception:  # noqa: BLE001  the driver is where a bug stops: it stays visible, and costs one request
            self._fail_visibly()
            return
        try:  # as ``_begin``
            wait.begin(self)
        except Exception as bug:  # noqa: BLE001  as there
            self._wait = None
            self.fail(bug)

    def fail(self, error: Exception) -> None:
        """Go on with an error at the place of the wait."""
        if getgeneratorstate(self._journey) == GEN_CLOSED:
            return
        try:
            wait = self._wait = self._journey.throw(error)
        except StopIteration:
            self._wait = None
        except Exception:  # noqa: BLE001  as above
            self._fail_visibly()
        else:
            self._begin(wait)

    def gone(self) -> None:
        """Note that the peer vanished: cancel the wait and let the journey close its record."""
        self.stop(Denied(Reason.PEER_GONE))

    def stop(self, error: SidecarError) -> None:
        """End the request now: cancel the wait and let the journey answer and close its record."""
        wait, self._wait = self._wait, None
        if wait is not None:
            try:
                wait.cancel()
            except Exception:  # noqa: BLE001  as above; the journey ends, and whoever ends many goes on to the next
                _log.exception("a wait failed to end")
        self.fail(error)

    def _begin(self, wait: Wait) -> None:
        try:
            wait.begin(self)
        except Exception as bug:  # noqa: BLE001  as above; the journey ends by it, so that it answers and records
            self._wait = None
            self.fail(bug)

    def _fail_visibly(self) -> None:
        self._wait = None
        _log.exception("a journey failed")


class Tasks:
    """Owns the tasks of the waits that need one. Bounded by what the callers bound; cancelled together at the end."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine to its end; it must handle its own errors."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def close(self) -> None:
        """Cancel what still runs and wait for it."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class Async:
    """A wait for a coroutine: the way from a journey into the control plane (keys, token exchange)."""

    __slots__ = ("_make", "_task", "_tasks")

    def __init__(self, tasks: Tasks, make: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self._tasks = tasks
        self._make = make
        self._task: asyncio.Task[None] | None = None

    def begin(self, waiter: Waiter) -> None:
        """Start the coroutine in a task of its own."""
        waiter.waited = True
        self._task = self._tasks.start(self._run(waiter))

    def cancel(self) -> None:
        """Cancel the task."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self, waiter: Waiter) -> None:
        try:
            result = await self._make()
        except SidecarError as error:
            waiter.fail(error)
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001  as in Drive: the request fails, the bug stays visible
            _log.exception("a wait failed")
            waiter.fail(Unavailable(Reason.INTERNAL, "a wait failed"))
        else:
            waiter.resume(result)


class BodyUpTo:
    """A wait for the whole body of a request, of at most ``limit`` bytes, for a journey that judges it.

    Of a body that is too long, the first ``look_at`` bytes are kept as ``beginning``, for the answer.

    The wait ends with the body. The stream holds the same bytes, and gives them to whoever takes the body next: what
    was judged is what is forwarded.

    The wait raises:
        Denied: TOO_LARGE past the limit; TIMEOUT or BAD_REQUEST, the body is late or malformed.
    """

    __slots__ = ("_body", "_look_at", "_looks", "_stream", "_waiter", "limit")

    def __init__(self, stream: Stream, limit: int, *, look_at: int = 0) -> None:
        self._stream = stream
        self.limit = limit
        self._look_at = look_at
        self._looks = False
        self._body = bytearray()
        self._waiter: Waiter | None = None

    def begin(self, waiter: Waiter) -> None:
        """Take what is here, and wait for the rest.

        Raises:
            Denied: TOO_LARGE, by the length that the request states.
        """
        stream = self._stream
        if stream.head is not None and (stream.head.content_length or 0) > self.limit:
            if not self._look_at or stream.head.expect is not None:
                raise self._too_large()
            self._looks = True  # at what arrives first
        self._waiter = waiter
        body = stream.take_whole_body()
        if body is None and not stream.body_complete:
            waiter.waited = True
            stream.read_body(self)
        elif self._looks:
            self.on_body(body or b"")
        else:
            self._body += body or b""
            self.on_body_end()

    def cancel(self) -> None:
        """Let go of the body. The answer of the journey ends it."""
        self._waiter = None

    def on_body(self, data: bytes) -> None:
        """Collect content, up to the limit."""
        if self._waiter is not None:
            self._body += data
            if self._looks or len(self._body) > self.limit:
                self._fail(self._too_large())

    @property
    def beginning(self) -> bytes:
        """The beginning of a body that is too long."""
        return bytes(self._body[: self._look_at])

    def on_body_end(self) -> None:
        """Go on with the whole body."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            body = bytes(self._body)
            self._stream.hold_body(body)
            waiter.resume(body)

    def on_body_error(self, error: SidecarError) -> None:
        """Go on with the error of a body that is malformed, too long or late."""
        self._fail(error)

    def on_body_flush(self) -> None:
        """Do nothing: content is passed on at the end."""

    def _fail(self, error: SidecarError) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.fail(error)

    def _too_large(self) -> Denied:
        return Denied(Reason.TOO_LARGE, f"the body is longer than the {self.limit} bytes that can be judged")
