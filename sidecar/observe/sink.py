"""Where records go: a file descriptor, written by one thread alone."""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path
from typing import Final, Protocol

_POLL_MS: Final = 100  # how long a full non-blocking descriptor is waited for before the writer looks around
_CHUNK: Final = 65536  # at most this much per write, so that a slow reader still shows progress


class Sink(Protocol):
    """Bytes out. All methods are called by the writer's thread only and may block."""

    name: str

    def write(self, data: memoryview) -> int:
        """Write some of ``data`` and say how much; 0 means "full, try again". Raises OSError."""

    def renew(self) -> None:
        """Called between whole records: open what is not open, follow a file that was moved away. Raises OSError."""

    def settle(self) -> None:
        """Called when nothing more is to be written for now: all that was begun is whole, or given up."""

    def close(self) -> None:
        """Give the descriptor back."""


class StdoutSink:
    """Standard output, or any descriptor that somebody else opened. It is never closed here and keeps its flags."""

    name = "stdout"

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd

    def write(self, data: memoryview) -> int:
        """See ``Sink``. A descriptor that a neighbour made non-blocking is waited for here."""
        return _write(self._fd, data)

    def renew(self) -> None:
        """There is nothing to open again."""

    def settle(self) -> None:
        """Nobody waits for us."""

    def close(self) -> None:
        """The descriptor is not ours."""


class FileSink:
    """A file, appended to, mode 0600. Moved or removed by log rotation it is opened anew.

    Rotation is by rename: logrotate's ``create`` or ``nocreate``, with ``delaycompress``, as one more batch may go to
    the file that was moved. No signal is needed. ``copytruncate`` loses what is written between the copy and the cut.
    """

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def write(self, data: memoryview) -> int:
        """See ``Sink``."""
        return _write(self._fd, data)

    def renew(self) -> None:
        """See ``Sink``."""
        if self._fd >= 0:
            if self._is_current():
                return
            self.close()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._path, flags, 0o600)
        try:
            if self._ends_inside_a_line(fd):  # a full disk or a kill left half a record: ours must not be glued to it
                os.write(fd, b"\n")
        except OSError:
            os.close(fd)
            raise
        self._fd = fd

    def settle(self) -> None:
        """Nobody waits for us."""

    def close(self) -> None:
        """See ``Sink``."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _ends_inside_a_line(self, fd: int) -> bool:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
            return False
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() != b"\n"

    def _is_current(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))


def _write(fd: int, data: memoryview) -> int:
    try:
        return os.write(fd, data[:_CHUNK])
    except BlockingIOError:
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        poll.poll(_POLL_MS)
        return 0
