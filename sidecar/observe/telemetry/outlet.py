"""A bounded queue and the thread that sends it to a collector in batches.

Calls never wait for a collector. Items without space are counted as dropped, unaccepted batches as failed.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar

GATHER_S: Final = 0.5  # what arrives within this leaves together
BATCH: Final = 64  # encoded in a few milliseconds: the event loop waits for the interpreter meanwhile
CLOSE_S: Final = 2.0  # for what is waiting when the process stops

T = TypeVar("T")

_log: Final = logging.getLogger("sidecar.telemetry")


class Outlet(Generic[T]):
    """Sends items of one kind. ``send`` blocks for a limited time; it returns False unless the collector accepted them.

    ``sent``, ``failed`` and ``dropped`` count items.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[Sequence[T]], bool],
        *,
        most: int,
        gather_s: float = GATHER_S,
        batch: int = BATCH,
    ) -> None:
        self.sent = self.failed = self.dropped = 0
        self._name = name
        self._send = send
        self._most = most
        self._gather_s = gather_s
        self._batch = batch
        self._waiting: deque[T] = deque()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._abandoned = False
        self._works = True
        self._thread = threading.Thread(target=self._run, name=f"otlp {name}", daemon=True)
        self._thread.start()

    def offer(self, items: Iterable[T]) -> None:
        """Queue items, or drop them if full. Never blocks. Not thread-safe."""
        for item in items:
            if len(self._waiting) >= self._most or self._abandoned:
                self.dropped += 1
            else:
                self._waiting.append(item)
        if self._waiting:
            self._wake.set()

    @property
    def waiting(self) -> int:
        """Number of items in the queue."""
        return len(self._waiting)

    def counts(self) -> dict[str, int]:
        """Return the items by result."""
        return {"sent": self.sent, "failed": self.failed, "dropped": self.dropped}

    def stop(self) -> None:
        """Begin to stop: send the queue at once."""
        self._stop.set()
        self._wake.set()

    def join(self, timeout_s: float) -> bool:
        """Wait until the queue is sent. False after ``timeout_s``; the rest is dropped."""
        self._thread.join(timeout_s)
        self._abandoned = True
        in_time = not self._thread.is_alive()
        self.dropped += len(self._waiting)
        self._waiting.clear()
        return in_time

    def _run(self) -> None:
        while not self._abandoned:
            self._wake.wait()
            self._wake.clear()
            self._stop.wait(self._gather_s)
            while self._waiting and not self._abandoned:
                self._send_batch()
            if self._stop.is_set() and not self._waiting:
                return

    def _send_batch(self) -> None:
        batch: list[T] = []
        while self._waiting and len(batch) < self._batch:
            try:
                batch.append(self._waiting.popleft())
            except IndexError:  # abandoned in this moment
                break
        why: str | None = None
        try:
            taken = self._send(batch)
        except OSError as error:  # a secret's file cannot be used
            taken, why = False, str(error)
        except Exception:  # noqa: BLE001  a bug costs this batch, and not the thread
            _log.exception("a batch cannot be sent", extra={"signal": self._name})
            taken = False
        if taken:
            self.sent += len(batch)
        else:
            self.failed += len(batch)
        if taken != self._works:
            self._works = taken
            # What the collector answers is not quoted.
            level, what = (logging.INFO, "takes") if taken else (logging.WARNING, "does not take")
            _log.log(level, f"the collector {what} {self._name}", extra=None if why is None else {"why": why})
