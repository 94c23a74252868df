"""The thread that writes records: a bounded queue before it, at most ``FLUSH_S`` between a record and its write.

A thread, because stdout may be a file, a pipe or a terminal that somebody else shares: an event loop can watch only
some of them, and making a shared descriptor non-blocking breaks its other users.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final, Generic, TypeVar

from sidecar.observe.sink import Sink

FLUSH_S: Final = 0.02  # records that come within this are written together; the promise is 50 ms
AT_ONCE: Final = 64  # records that are encoded together, in about 50 microseconds
STALL_S: Final = 0.5  # a write that made no progress for this long counts as failed
_RETRY_S: Final = 0.1

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Writer(Generic[T]):
    """Records in (from the loop's thread), bytes out (in its own). What was taken is never dropped and must not change.

    ``encode`` makes a line of each of several records, which costs less than one by one: by the loop's thread as soon
    as ``AT_ONCE`` of them wait, by its own whatever is there when it comes to write. So records that are no bytes yet
    are few, whatever the sink does, and neither thread holds up the other for longer than it takes to encode those.

    ``bytes_in`` is what was encoded, ``lines_out`` and ``bytes_out`` what is written. Past ``reliable_until``
    (monotonic) the sink is not to be relied upon: a write that is under way has till then to make progress, and one
    that failed has no time left. All are plain numbers and read without a lock.
    """

    def __init__(
        self,
        sink: Sink,
        encode: Callable[[list[T]], bytes],
        *,
        flush_s: float = FLUSH_S,
        stall_s: float = STALL_S,
    ) -> None:
        self._sink = sink
        self._encode = encode
        self._flush_s = flush_s
        self._stall_s = stall_s
        self._records: deque[T] = deque()
        self._encoding = threading.Lock()  # held to encode and to take what was: lines keep the order of records
        self._lines: list[bytes] = []
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._awake = False
        self._lines_in = self.lines_out = 0
        self.bytes_in = self.bytes_out = 0
        self.reliable_until = time.monotonic() + stall_s  # for opening it, which may block: a pipe waits for its reader
        self._error: OSError | None = None
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self._thread.start()

    @property
    def pending_lines(self) -> int:
        """Records taken and not yet written; for a moment, while some are encoded, more than there are."""
        return len(self._records) + self._lines_in - self.lines_out

    def put(self, record: T) -> None:
        """Take one record. Who calls has made sure that there is room."""
        records = self._records
        records.append(record)
        # It never waits: the thread may be at it, or we ourselves, and this is called by the garbage collector.
        if len(records) >= AT_ONCE and self._encoding.acquire(blocking=False):
            try:
                self._encode_waiting()
            finally:
                self._encoding.release()
        if not self._awake:
            self._awake = True
            self._wake.set()

    def trouble(self, now: float) -> str | None:
        """Why the sink cannot be relied upon at ``now`` (monotonic), or None."""
        if now <= self.reliable_until:
            return None
        error = self._error
        if error is None:
            return "the record sink is blocked"
        return f"the record sink failed: {errno.errorcode.get(error.errno or 0, 'unknown')}"

    def close(self, timeout_s: float) -> int:
        """Write what is pending and end the thread; returns how many lines were left after ``timeout_s``."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout_s)
        self._abandoned = True
        return self.pending_lines

    def _run(self) -> None:
        self._open()
        while True:
            self._stop.wait(self._flush_s)
            stopping = self._stop.is_set()  # before taking: what was put before the stop is still written
            with self._encoding:
                self._encode_waiting()
                lines_in, data = self._lines_in, b"".join(self._lines)
                self._lines.clear()
            if data:
                self._write(data, lines_in)
            else:
                self.lines_out = lines_in  # what could not be encoded waits no more
            if stopping:
                break
            if not data:
                self._rest()
        self._sink.close()

    def _rest(self) -> None:
        """Sleep until there is another record. While they keep coming nobody has to wake this thread."""
        self._wake.clear()
        self._awake = False  # after clear(): a record put from here on sets the event again
        # Since the last look none was put (so many may have been that they are lines already), and no end was told.
        if not (self._records or self._lines or self._stop.is_set()):
            self._wake.wait()

    def _encode_waiting(self) -> None:
        """By whoever holds ``_encoding``."""
        count = len(self._records)
        self._lines_in += count  # before they are taken: what is pending is never missed
        records = [self._records.popleft() for _ in range(count)]
        try:
            lines = self._encode(records)
        except Exception:  # noqa: BLE001  a bug costs the record it is in, not those beside it, and not the thread
            lines = b"".join(map(self._encode_alone, records))
        self._lines.append(lines)
        self.bytes_in += len(lines)

    def _encode_alone(self, record: T) -> bytes:
        try:
            return self._encode([record])
        except Exception:  # noqa: BLE001  as above
            _log.exception("a record cannot be written")
            return b""

    def _open(self) -> None:
        """Open the sink before the first record: one that cannot be opened must not look like one that can."""
        while not self._stop.is_set():
            try:
                self._sink.renew()
            except OSError as error:
                self._failed(error)
                self._stop.wait(_RETRY_S)
            else:
                self._recovered()
                self._sink.settle()
                self.reliable_until = inf
                return

    def _write(self, data: bytes, lines_in: int) -> None:
        view = memoryview(data)
        offset = 0
        renewed = False
        if self._error is None:
            self.reliable_until = time.monotonic() + self._stall_s
        while offset < len(data) and not self._abandoned:
            try:
                if not renewed:
                    self._sink.renew()
                    renewed = True
                written = self._sink.write(view[offset:])
            except OSError as error:
                self._failed(error)
                if error.errno == errno.EPIPE:
                    # That reader is gone with the half of a line it got: the next one starts with a whole one.
                    offset = data.rfind(b"\n", 0, offset) + 1
                renewed = data[offset - 1 : offset] not in {b"", b"\n"}
                time.sleep(_RETRY_S)
                continue
            offset += written
            if written:
                self._recovered()
                self.reliable_until = time.monotonic() + self._stall_s
        if offset == len(data):
            self.lines_out = lines_in
            self.bytes_out += len(data)
        self._sink.settle()
        if self._error is None:
            self.reliable_until = inf

    def _failed(self, error: OSError) -> None:
        if self._error is None:
            _log.error("record sink failed", extra={"sink": self._sink.name, "errno": error.errno})
        self._error = error
        self.reliable_until = -inf

    def _recovered(self) -> None:
        if self._error is not None:
            _log.warning("record sink recovered", extra={"sink": self._sink.name})
            self.reliable_until = inf
            self._error = None
