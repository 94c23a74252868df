"""The destination of records: a file descriptor, written by one thread only."""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path
from typing import Final, NamedTuple, Protocol

_POLL_MS: Final = 100  # wait for a full non-blocking descriptor before the writer checks its state
_CHUNK: Final = 65536  # largest write, so that a slow reader still shows progress

# After any other error of a write the file is reopened: EIO and ESTALE stay with a descriptor for ever.
_PASSES: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EPIPE})


class Room(NamedTuple):
    """Free and total bytes of the file system that a sink is on."""

    free_bytes: int
    size_bytes: int


class Sink(Protocol):
    """A destination for bytes. All methods are called by the writer's thread only and may block."""

    name: str
    begins_line: bool  # after a renew that opened it: the next byte begins a line, however the last one ended

    def write(self, data: memoryview) -> int:
        """Write some of ``data`` and return how much; 0 means "full, try again". Raises OSError."""

    def renew(self) -> bool:
        """Prepare to write: called before each batch, and after each failure and each write of nothing.

        Opens what is not open and follows a file that was moved away or removed. Returns True if a begun line must
        begin again, since its beginning is in another file, or another process ended it. Raises OSError.
        """

    def settle(self) -> None:
        """Let other writers proceed: nothing is pending, or the last write failed."""

    def room(self) -> Room | None:
        """Measure the free space. None if the sink is not a file, or the space is unknown. Raises OSError."""

    def close(self) -> None:
        """Close the descriptor."""


class StdoutSink:
    """Standard output, or any inherited descriptor. It is never closed here and keeps its flags."""

    name = "stdout"
    begins_line = False

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd

    def write(self, data: memoryview) -> int:
        """See ``Sink``. Waits for a descriptor that another process made non-blocking."""
        return write_some(self._fd, data)

    def renew(self) -> bool:
        """Do nothing: there is nothing to reopen. See ``Sink``."""
        return False

    def settle(self) -> None:
        """Do nothing: there are no other writers."""

    def room(self) -> Room | None:
        """See ``Sink``: standard output may be redirected into a file."""
        return _room(self._fd)

    def close(self) -> None:
        """Do nothing: the descriptor is not ours."""


class FileSink:
    """A file, appended to, mode 0600. Reopened when log rotation moves or removes it.

    Rotation is by rename: logrotate's ``create`` or ``nocreate``, with ``delaycompress``, as one more batch may go to
    the moved file. No signal is needed. ``copytruncate`` loses writes between the copy and the truncation. A pipe in
    the file's place is written too while it has a reader; without a reader it fails with ENXIO.
    """

    name = "file"

    def __init__(self, path: Path) -> None:
        self.begins_line = False
        self._path = path
        self._fd = -1

    def write(self, data: memoryview) -> int:
        """See ``Sink``."""
        try:
            return write_some(self._fd, data)
        except OSError as error:
            if error.errno not in _PASSES:
                self.close()
            raise

    def renew(self) -> bool:
        """See ``Sink``. A removed file is closed before the new one is opened: that frees its blocks."""
        if self._fd >= 0:
            if self._is_current():
                return False
            self.close()
        # Non-blocking, so that a pipe without a reader is an error and not a thread that waits for ever.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self._path, flags, 0o600)
        try:
            self.begins_line = stat.S_ISREG(os.fstat(fd).st_mode)
            # a full disk or a kill left half a record: ours must not be appended to it
            if self._ends_inside_a_line(fd):
                os.write(fd, b"\n")
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def settle(self) -> None:
        """Do nothing: there are no other writers."""

    def room(self) -> Room | None:
        """See ``Sink``."""
        return None if self._fd < 0 else _room(self._fd)

    def close(self) -> None:
        """See ``Sink``."""
        fd, self._fd = self._fd, -1  # before the close, which may fail and closes it all the same
        if fd >= 0:
            os.close(fd)

    def _ends_inside_a_line(self, fd: int) -> bool:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
            return False
        reading = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return os.pread(reading, 1, status.st_size - 1) != b"\n"
        finally:
            os.close(reading)

    def _is_current(self) -> bool:
        try:
            there = self._path.lstat()
            return os.path.samestat(there, os.fstat(self._fd))
        except (FileNotFoundError, NotADirectoryError):
            return False


def write_some(fd: int, data: memoryview) -> int:
    """Write some of ``data`` and return how much; 0 after a short wait if a non-blocking descriptor is full."""
    try:
        return os.write(fd, data[:_CHUNK])
    except BlockingIOError:
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        poll.poll(_POLL_MS)
        return 0


def _room(fd: int) -> Room | None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return None
    system = os.fstatvfs(fd)
    if not system.f_blocks:
        return None
    return Room(system.f_bavail * system.f_frsize, system.f_blocks * system.f_frsize)
