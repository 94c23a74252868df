"""One sink for several processes: their lines never mix, and one that is killed inside a line spoils no other's.

Who writes a batch of whole lines holds a lock. It is a POSIX record lock on a memory file that all of them inherited:
the kernel gives it back when a process ends, however it ends. One byte of that file says that a line is unfinished, so
that whoever comes next begins a new one. Blocked or failing, the sink is so for all of them, each of which notices.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from typing import Final

from sidecar.observe.sink import Sink

_NEWLINE: Final = 10


def new_lock() -> int:
    """A descriptor to be inherited by every process that is to share one sink."""
    lock = os.memfd_create("records")
    os.ftruncate(lock, 1)
    return lock


class SharedSink:
    """A sink of which every process has one of its own, all with the same ``lock``."""

    def __init__(self, sink: Sink, lock: int) -> None:
        self.name = sink.name
        self._sink = sink
        self._lock = lock
        self._unfinished = mmap.mmap(lock, 1)
        self._held = False

    def renew(self) -> None:
        """Wait for our turn, and begin with a new line. See ``Sink``."""
        if not self._held:
            fcntl.lockf(self._lock, fcntl.LOCK_EX)
            self._held = True
        self._sink.renew()
        if self._unfinished[0] and self._sink.write(memoryview(b"\n")):
            self._unfinished[0] = 0

    def write(self, data: memoryview) -> int:
        """See ``Sink``."""
        before = self._unfinished[0]
        self._unfinished[0] = 1  # ahead of the write: we may be killed in it
        try:
            written = self._sink.write(data)
        except OSError as error:
            self._unfinished[0] = 0 if error.errno == errno.EPIPE else before  # that reader has what was unfinished
            raise
        if not written:
            self._unfinished[0] = before
        elif data[written - 1] == _NEWLINE:
            self._unfinished[0] = 0
        return written

    def settle(self) -> None:
        """It is the others' turn. See ``Sink``."""
        if self._held:
            self._held = False
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """See ``Sink``."""
        self.settle()
        self._sink.close()
