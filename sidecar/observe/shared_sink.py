"""One sink for several processes: their lines never mix, and one that is killed inside a line spoils no other's.

Who writes a batch of whole lines holds a lock. It is a POSIX record lock on a memory file that all of them inherited:
the kernel gives it back when a process ends, however it ends. One byte of that file says that a line is unfinished, so
that whoever comes next begins a new one. A process whose write fails gives the lock back until it tries again: the
others may hold open the removed file whose blocks it waits for.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from typing import Final

from sidecar.observe.sink import Room, Sink

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
        self.begins_line = False
        self._sink = sink
        self._lock = lock
        self._unfinished = mmap.mmap(lock, 1)
        self._held = False
        self._inside = False  # a line of ours

    def renew(self) -> bool:
        """Wait for our turn, and end a line that somebody left unfinished. See ``Sink``."""
        again = False
        if not self._held:
            fcntl.lockf(self._lock, fcntl.LOCK_EX)
            self._held = True
            again, self._inside = self._inside, False
        if self._sink.renew():
            again, self._inside = True, False
            if self._sink.begins_line:
                self._unfinished[0] = 0
        if self._unfinished[0] and not self._inside:
            if not self._sink.write(memoryview(b"\n")):
                raise BlockingIOError(errno.EAGAIN, "the sink takes nothing")
            self._unfinished[0] = 0
        return again

    def write(self, data: memoryview) -> int:
        """See ``Sink``."""
        before = self._unfinished[0]
        self._unfinished[0] = 1  # ahead of the write: we may be killed in it
        try:
            written = self._sink.write(data)
        except OSError as error:
            self._unfinished[0] = before
            if error.errno == errno.EPIPE:  # that reader has what was unfinished
                self._unfinished[0], self._inside = 0, False
            raise
        if not written:
            self._unfinished[0] = before
        else:
            self._inside = data[written - 1] != _NEWLINE
            self._unfinished[0] = int(self._inside)
        return written

    def settle(self) -> None:
        """Give the lock to the others. A line of ours that is unfinished begins again with our next turn."""
        if self._held:
            self._held = False
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def room(self) -> Room | None:
        """See ``Sink``."""
        return self._sink.room()

    def close(self) -> None:
        """See ``Sink``."""
        self.settle()
        self._sink.close()
