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

from sidecar.observe.filling import Filling
from sidecar.observe.sink import Sink

FLUSH_S: Final = 0.02  # records that come within this are written together; the promise is 50 ms
AT_ONCE: Final = 64  # records that are encoded together, in about 50 microseconds
STALL_S: Final = 0.5  # a write that made no progress for this long counts as failed
_RETRY_S: Final = 0.1
LOOK_S: Final = 2.0  # between two looks at the room there is

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Writer(Generic[T]):
    """Records in (from the loop's thread), bytes out (in its own). What was taken is never dropped and must not change.

    ``encode`` makes a line of each of several records, which costs less than one by one: by the loop's thread as soon
    as ``AT_ONCE`` of them wait, by its own whatever is there when it comes to write. So records that are no bytes yet
    are few, whatever the sink does, and neither thread holds up the other for longer than it takes to encode those.

    ``on_lost`` hears of a record that cannot be encoded, in either thread.

    ``bytes_in`` is what was encoded, ``lines_out`` and ``bytes_out`` what is written. Past ``reliable_until``
    (monotonic) the sink is not to be relied upon: a write that is under way has till then to make progress, and one
    that failed has no time left. All are plain numbers and read without a lock.
    """

    def __init__(
        self,
        sink: Sink,
        encode: Callable[[list[T]], bytes],
        *,
        on_lost: Callable[[T], None] | None = None,
        flush_s: float = FLUSH_S,
        stall_s: float = STALL_S,
    ) -> None:
        self._sink = sink
        self._encode = encode
        self._on_lost = on_lost
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
        self.filling: Filling | None = None  # of the sink's file system, as last seen; None: it is on none
        self._error: Exception | None = None
        self._abandoned = threading.Event()
        self._batch = b""  # being written, up to ``_offset``
        self._offset = 0
        self._look_at = 0.0
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
        return f"the record sink failed: {errno.errorcode.get(_code(error), 'unknown')}"

    def close(self, timeout_s: float) -> bytes:
        """Write what is pending and end the thread. Return the lines that the sink did not take within ``timeout_s``.

        The first of them may be in the sink as well: of a write that does not return nobody knows how much was taken.
        """
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout_s)
        self._abandoned.set()
        self._thread.join(2 * _RETRY_S)  # unless it is inside a call that does not return
        with self._encoding:
            self._encode_waiting()
            rest = b"".join((self._batch[self._line_start() :], *self._lines))
            self._lines.clear()
        return rest

    def _run(self) -> None:
        try:
            self._open()
            self._write_on()
            self._sink.close()
        except Exception as error:  # noqa: BLE001  whatever it is: no record is taken from here on, so no call is served
            self._failed(error)

    def _write_on(self) -> None:
        while not self._abandoned.is_set():
            self._stop.wait(self._flush_s)
            stopping = self._stop.is_set()  # before taking: what was put before the stop is still written
            with self._encoding:
                self._encode_waiting()
                lines_in, self._batch, self._offset = self._lines_in, b"".join(self._lines), 0
                self._lines.clear()
            idle = not self._batch
            if idle:
                self.lines_out = lines_in  # what could not be encoded waits no more
            else:
                self._write(lines_in)
            if stopping or self._abandoned.is_set():
                break
            self._look()
            if idle:
                self._rest()

    def _rest(self) -> None:
        """Sleep until there is another record. While they keep coming nobody has to wake this thread."""
        self._wake.clear()
        self._awake = False  # after clear(): a record put from here on sets the event again
        # Since the last look none was put (so many may have been that they are lines already), and no end was told.
        while not (self._records or self._lines or self._stop.is_set()):
            if self._wake.wait(LOOK_S if self._error is None else _RETRY_S):
                break
            self._look()

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
            if self._on_lost is not None:
                self._on_lost(record)
            return b""

    def _open(self) -> None:
        """Open the sink before the first record: one that cannot be opened must not look like one that can."""
        while not self._stop.is_set():
            try:
                self._sink.renew()
            except Exception as error:  # noqa: BLE001  a bug in a sink must not end its thread unheard
                self._failed(error)
                self._sink.settle()
                self._stop.wait(_RETRY_S)
            else:
                self._recovered()
                self._sink.settle()
                self.reliable_until = inf
                return

    def _write(self, lines_in: int) -> None:
        """Write the batch. Where the sink is another than before, the line being written begins again in it."""
        data = memoryview(self._batch)
        ready = False
        if self._error is None:
            self.reliable_until = time.monotonic() + self._stall_s
        while self._offset < len(data) and not self._abandoned.is_set():
            try:
                if not ready and self._sink.renew():
                    self._offset = self._line_start()
                ready = True
                written = self._sink.write(data[self._offset :])
            except BlockingIOError:
                written = 0
            except Exception as error:  # noqa: BLE001  a bug in a sink must not end its thread unheard
                self._failed(error)
                if _code(error) == errno.EPIPE:
                    # That reader is gone with the half of a line it got: the next one starts with a whole one.
                    self._offset = self._line_start()
                ready = False
                self._sink.settle()
                self._abandoned.wait(_RETRY_S)
                continue
            if written:
                self._offset += written
                self._recovered()
                self.reliable_until = time.monotonic() + self._stall_s
            else:
                ready = False  # it may have been replaced by one that does take something
        if self._offset == len(data):
            self._batch, self._offset = b"", 0
            self.lines_out = lines_in
            self.bytes_out += len(data)
        self._sink.settle()
        if self._error is None:
            self.reliable_until = inf

    def _line_start(self) -> int:
        """Where the line begins that is being written."""
        return self._batch.rfind(b"\n", 0, self._offset) + 1

    def _look(self) -> None:
        """Every ``LOOK_S``, let go of a file that was removed and measure the room; until it can be done, again.

        So a sink that takes no records is known before a call is served that would need one.
        """
        now = time.monotonic()
        if self._error is None:
            if now < self._look_at:
                return
            self.reliable_until = now + self._stall_s
        self._look_at = now + LOOK_S
        room = None
        try:
            self._sink.renew()
            room = self._sink.room()
        except BlockingIOError:
            pass
        except Exception as error:  # noqa: BLE001  a bug in a sink must not end its thread unheard
            self._failed(error)
        else:
            self._recovered()
        self._sink.settle()
        self.filling = None if room is None else (self.filling or Filling()).measured(room, now)
        if self._error is None:
            self.reliable_until = inf

    def _failed(self, error: Exception) -> None:
        if self._error is None:
            bug = None if isinstance(error, OSError) else error
            fields = {"sink": self._sink.name, "errno": _code(error)}
            _log.error("record sink failed", extra=fields, exc_info=bug)
        self._error = error
        self.reliable_until = -inf

    def _recovered(self) -> None:
        if self._error is not None:
            _log.warning("record sink recovered", extra={"sink": self._sink.name})
            self.reliable_until = inf
            self._error = None


def _code(error: Exception) -> int:
    return (error.errno or 0) if isinstance(error, OSError) else 0
