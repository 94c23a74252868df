"""Journeys: generators, each as long-lived as its request and resumed from callbacks.

A journey yields each wait and is resumed with its result. On the warm path it waits only for bytes, so a request costs
one generator and a handful of resumes: no task, no future. A wait for keys or for a token exchange costs one task. A
peer that disconnects is an exception in the journey, so its ``finally`` closes the record: an aborted request is
evidence too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from inspect import GEN_CLOSED, getgeneratorstate
from typing import Any, Final, Protocol, TypeVar

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.wire.stream import Stream

_log: Final = logging.getLogger("sidecar.journey")

_T = TypeVar("_T")


class OnDemand(dict[str, _T]):
    """Dictionary that makes a missing value by ``make`` at its first lookup."""

    def __init__(self, make: Callable[[str], _T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, name: str) -> _T:
        made = self[name] = self._make(name)
        return made


class Waiter(Protocol):
    """Receives the result of a wait. The wait calls exactly one of the two methods, once.

    ``waited`` is true once the journey has waited: policy, keys or trust may have changed since its decision.
    """

    waited: bool

    def resume(self, result: Any) -> None:
        """Continue with the result of the wait."""
        ...

    def fail(self, error: SidecarError) -> None:
        """Continue with the error that ended the wait."""
        ...


class Wait(Protocol):
    """Operation that a journey yields to wait for its result."""

    def begin(self, waiter: Waiter) -> None:
        """Start. May call ``waiter`` before it returns."""
        ...

    def cancel(self) -> None:
        """Cancel the wait and release everything."""
        ...


Journey = Generator[Wait, Any, _T]


class Drive:
    """Drives one journey to its end. Catches bugs: the request ends, the process goes on.

    ``resume(None)`` starts it. The journey itself answers, and closes its record in its ``finally``.
    """

    __slots__ = ("_journey", "_wait", "waited")

    def __init__(self, journey: Journey[None]) -> None:
        self.waited = False
        self._journey = journey
        self._wait: Wait | None = None

    def begin_waiting(self) -> None:
        """Advance the journey to its first wait, which the native engine has begun already."""
        self._wait = self._journey.send(None)

    def resume(self, result: Any) -> None:
        """Continue the journey with the result of its wait, and begin its next wait."""
        try:
            wait = self._wait = self._journey.send(result)
        except StopIteration:
            self._wait = None
            return
        except Exception:  # noqa: BLE001  a bug costs one request, and is logged
            self._fail_visibly()
            return
        try:  # ``_begin``, inlined
            wait.begin(self)
        except Exception as bug:  # noqa: BLE001  as in ``_begin``
            self._wait = None
            self.fail(bug)

    def fail(self, error: Exception) -> None:
        """Raise ``error`` in the journey where it waits, and begin its next wait."""
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
        """End the request because its peer disconnected: ``stop`` with PEER_GONE."""
        self.stop(Denied(Reason.PEER_GONE))

    def stop(self, error: SidecarError) -> None:
        """End the request: cancel the wait and raise ``error`` in the journey, which answers and closes its record."""
        wait, self._wait = self._wait, None
        if wait is not None:
            try:
                wait.cancel()
            except Exception:  # noqa: BLE001  the journey must end, and a caller that ends many must reach the next
                _log.exception("a wait failed to end")
        self.fail(error)

    def _begin(self, wait: Wait) -> None:
        try:
            wait.begin(self)
        except Exception as bug:  # noqa: BLE001  raised in the journey, so that it answers and closes its record
            self._wait = None
            self.fail(bug)

    def _fail_visibly(self) -> None:
        self._wait = None
        _log.exception("a journey failed")


class Tasks:
    """Owns the tasks of waits. Has no limit of its own: callers bound their requests. ``close`` cancels all."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine in a task. The coroutine must handle its own errors."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def close(self) -> None:
        """Cancel the running tasks and wait for their ends."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class Async:
    """Wait for a coroutine in a task of its own, such as a fetch of keys or a token exchange. ``make`` returns it."""

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
        except Exception:  # noqa: BLE001  as in Drive: log the bug, fail this request alone
            _log.exception("a wait failed")
            waiter.fail(Unavailable(Reason.INTERNAL, "a wait failed"))
        else:
            waiter.resume(result)


class BodyUpTo:
    """Wait for the whole body of a request; its result is the body, at most ``limit`` bytes.

    The stream keeps the same bytes for the next reader: the body that was judged is the body that is forwarded. Of a
    longer body, ``beginning`` has the first ``look_at`` bytes, for the answer.

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
        """Take the content that has arrived, and wait for the rest.

        Raises:
            Denied: TOO_LARGE, by the request's Content-Length.
        """
        stream = self._stream
        if stream.head is not None and (stream.head.content_length or 0) > self.limit:
            if not self._look_at or stream.head.expect is not None:
                raise self._too_large()
            self._looks = True  # keep the first content that arrives
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
        """Ignore further content. The journey's answer ends the body."""
        self._waiter = None

    def on_body(self, data: bytes) -> None:
        """Collect content, up to the limit."""
        if self._waiter is not None:
            self._body += data
            if self._looks or len(self._body) > self.limit:
                self._fail(self._too_large())

    @property
    def beginning(self) -> bytes:
        """The first ``look_at`` bytes of a body that is too long."""
        return bytes(self._body[: self._look_at])

    def on_body_end(self) -> None:
        """Resume the journey with the whole body."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            body = bytes(self._body)
            self._stream.hold_body(body)
            waiter.resume(body)

    def on_body_error(self, error: SidecarError) -> None:
        """Fail the wait: the body is malformed, too long or late."""
        self._fail(error)

    def on_body_flush(self) -> None:
        """Do nothing: the journey gets the body as a whole."""

    def _fail(self, error: SidecarError) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.fail(error)

    def _too_large(self) -> Denied:
        return Denied(Reason.TOO_LARGE, f"the body is longer than the {self.limit} bytes that can be judged")
