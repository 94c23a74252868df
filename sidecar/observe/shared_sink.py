"""One sink for several processes: their lines never mix, and a process killed inside a line spoils no other line.

A process holds a lock while it writes a batch of whole lines. It is a POSIX record lock on a memory file that all of
them inherited: the kernel releases it whenever a process ends. One byte of that file marks an unfinished line, so that
the next writer begins a new one. A process whose write fails releases the lock until it tries again: the others may
hold open the removed file whose blocks it waits for.
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
    """Create a descriptor to be inherited by every process that is to share one sink."""
    lock = os.memfd_create("records")
    os.ftruncate(lock, 1)
    return lock


class SharedSink:
    """One process's access to the shared sink; all of them have the same ``lock``."""

    def __init__(self, sink: Sink, lock: int) -> None:
        self.name = sink.name
        self.begins_line = False
        self._sink = sink
        self._lock = lock
        self._unfinished = mmap.mmap(lock, 1)
        self._held = False
        self._inside = False  # inside a line of ours

    def renew(self) -> bool:
        """Wait for the lock, and end a line that another process left unfinished. See ``Sink``."""
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
                raise BlockingIOError(errno.EAGAIN, "the sink accepts nothing")
            self._unfinished[0] = 0
        return again

    def write(self, data: memoryview) -> int:
        """See ``Sink``."""
        before = self._unfinished[0]
        self._unfinished[0] = 1  # before the write: we may be killed in it
        try:
            written = self._sink.write(data)
        except OSError as error:
            self._unfinished[0] = before
            if error.errno == errno.EPIPE:  # the reader of the unfinished line is gone
                self._unfinished[0], self._inside = 0, False
            raise
        if not written:
            self._unfinished[0] = before
        else:
            self._inside = data[written - 1] != _NEWLINE
            self._unfinished[0] = int(self._inside)
        return written

    def settle(self) -> None:
        """Release the lock. The next write repeats an unfinished line of ours from its beginning."""
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
