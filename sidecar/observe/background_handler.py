"""Log handler that never blocks the event loop, even if standard error is not read."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Final

from sidecar.observe.sink import write_some

MOST_BYTES: Final = 4 * 1024 * 1024  # of waiting lines; enough to name every record that a sink left behind
FLUSH_S: Final = 2.0  # at the end of the process


class BackgroundHandler(logging.Handler):
    """Writes each formatted record to a descriptor, in a thread of its own.

    Drops lines above ``most_bytes`` of unwritten ones; the next line that fits reports how many.
    """

    def __init__(self, fd: int, *, most_bytes: int = MOST_BYTES) -> None:
        super().__init__()
        self._fd = fd
        self._most_bytes = most_bytes
        self._lines: deque[bytes] = deque()
        self._bytes = self._dropped = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._write_on, name="operations", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``."""
        try:
            line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
        except Exception:  # noqa: BLE001  as the library's handlers do
            self.handleError(record)
            return
        with self._changed:
            if self._bytes + len(line) > self._most_bytes:
                self._dropped += 1
                return
            if self._dropped:
                self._put(b"the operations log was stuck: %d lines were dropped\n" % self._dropped)
                self._dropped = 0
            self._put(line)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until everything is written, at most ``FLUSH_S``."""
        with self._changed:
            self._changed.wait_for(lambda: not self._bytes, FLUSH_S)

    def _put(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)

    def _write_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._lines))
                line = self._lines.popleft()
            self._write(line)
            with self._changed:
                self._bytes -= len(line)
                self._changed.notify_all()

    def _write(self, line: bytes) -> None:
        data = memoryview(line)
        try:
            while data:
                data = data[write_some(self._fd, data) :]
        except OSError:  # its reader is gone
            return
