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
