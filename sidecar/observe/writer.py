"""The thread that writes records, behind a bounded queue: at most ``FLUSH_S`` between a record and its write.

A thread is needed because stdout may be a file, a pipe or a terminal that other processes share: an event loop can
watch only some of them, and making a shared descriptor non-blocking breaks its other users.
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
from sidecar.observe.sink_space import SinkSpace

FLUSH_S: Final = 0.02  # records that arrive within this are written together; the promise is 50 ms
AT_ONCE: Final = 64  # records that are encoded together, in about 50 microseconds
STALL_S: Final = 0.5  # a write that made no progress for this long counts as failed
_RETRY_S: Final = 0.1
LOOK_S: Final = 2.0  # between two measurements of free space

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Writer(Generic[T]):
    """Takes records (from the loop's thread) and writes bytes (in its own). Accepted records are never dropped or
    changed.

    ``encode`` makes lines of several records at once, which costs less than one by one: in the loop's thread as soon as
    ``AT_ONCE`` of them wait, in the writer's own whenever it comes to write. So unencoded records are few, whatever the
    sink does, and neither thread blocks the other for longer than that encoding takes.

    ``on_lost`` is called for a record that cannot be encoded, in either thread.

    ``bytes_in`` counts encoded bytes, ``lines_out`` and ``bytes_out`` written ones. Past ``reliable_until`` (monotonic)
    the sink is unreliable: a write in progress has till then to make progress, and a failed one has no time left. All
    are plain numbers and read without a lock.
    """

    __slots__ = (
        "_abandoned",
        "_batch",
        "_encode",
        "_encoding",
        "_error",
        "_flush_s",
        "_hurry",
        "_lines",
        "_lines_in",
        "_look_at",
        "_offset",
        "_on_lost",
        "_sink",
        "_stall_s",
        "_stop",
        "_thread",
        "_waiting",
        "_wake",
        "awake",
        "bytes_in",
        "bytes_out",
        "filling",
        "lines_out",
        "records",
        "reliable_until",
    )

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
        self.records: deque[T] = deque()
        self._encoding = threading.Lock()  # held to encode and to take the lines: they keep the order of records
        self._lines: list[bytes] = []
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._hurry = threading.Event()  # write the next batch at once
        self._waiting: deque[tuple[int, Callable[[], object]]] = (
            deque()
        )  # by the number of lines that must be written before
        self.awake = False
        self._lines_in = self.lines_out = 0
        self.bytes_in = self.bytes_out = 0
        # including its opening, which may block: a pipe waits for its reader
        self.reliable_until = time.monotonic() + stall_s
        self.filling: SinkSpace | None = None  # of the sink's file system, as last measured; None: it is on none
        self._error: Exception | None = None
        self._abandoned = threading.Event()
        self._batch = b""  # being written, up to ``_offset``
        self._offset = 0
        self._look_at = 0.0
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self._thread.start()

    @property
    def pending_lines(self) -> int:
        """Records accepted and not yet written; for a moment, while some are encoded, an overestimate."""
        return len(self.records) + self._lines_in - self.lines_out

    def put(self, record: T) -> None:
        """Accept one record. The caller has made sure that there is space."""
        records = self.records
        records.append(record)
        # Never blocks: the other thread may hold the lock, or we ourselves, since the garbage collector may call this.
        if len(records) >= AT_ONCE and self._encoding.acquire(blocking=False):
            try:
                self._encode_waiting()
            finally:
                self._encoding.release()
        if not self.awake:
            self.awake = True
            self._wake.set()

    def flush(self, written: Callable[[], object]) -> None:
        """Write all accepted records at once, then call ``written`` in the writer's thread."""
        with self._encoding:  # else a record that the other thread is encoding may count twice
            lines = self._lines_in + len(self.records)
        self._waiting.append((lines, written))
        self._hurry.set()
        self._wake.set()

    def trouble(self, now: float) -> str | None:
        """Return the reason why the sink is unreliable at ``now`` (monotonic), or None."""
        if now <= self.reliable_until:
            return None
        error = self._error
        if error is None:
            return "the record sink is blocked"
        return f"the record sink failed: {errno.errorcode.get(_code(error), 'unknown')}"

    def close(self, timeout_s: float) -> bytes:
        """Write pending records and end the thread. Return the lines that the sink did not take within ``timeout_s``.

        The first line may also be in the sink: the progress of a blocked write is unknown.
        """
        self._stop.set()
        self._hurry.set()
        self._wake.set()
        self._thread.join(timeout_s)
        self._abandoned.set()
        self._thread.join(2 * _RETRY_S)  # unless it is inside a blocked call
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
            self._note_failure(error)

    def _write_on(self) -> None:
        while not self._abandoned.is_set():
            self._hurry.wait(self._flush_s)
            self._hurry.clear()
            stopping = self._stop.is_set()  # before taking: records put before the stop are still written
            with self._encoding:
                self._encode_waiting()
                lines_in, self._batch, self._offset = self._lines_in, b"".join(self._lines), 0
                self._lines.clear()
            idle = not self._batch
            if idle:
                self.lines_out = lines_in  # records that failed to encode are no longer pending
            else:
                self._write(lines_in)
            self._tell_written()
            if stopping or self._abandoned.is_set():
                break
            self._look()
            if idle:
                self._rest()

    def _rest(self) -> None:
        """Sleep until the next record. Under steady load the thread needs no wake-up."""
        self._wake.clear()
        self.awake = False  # after clear(): a record put from here on sets the event again
        # No record arrived since the last check (arrived records may be encoded already), and no stop.
        while not (self.records or self._lines or self._waiting or self._stop.is_set()):
            if self._wake.wait(LOOK_S if self._error is None else _RETRY_S):
                break
            self._look()

    def _tell_written(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.lines_out:
            _, written = self._waiting.popleft()
            try:
                written()
            except Exception:  # noqa: BLE001  as of a sink: the thread goes on
                _log.exception("a callback for a written record failed")

    def _encode_waiting(self) -> None:
        """Encode the waiting records. The caller holds ``_encoding``."""
        count = len(self.records)
        self._lines_in += count  # before they are taken: pending records are never missed
        records = [self.records.popleft() for _ in range(count)]
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
        """Open the sink before the first record: an unusable sink must not look usable."""
        while not self._stop.is_set():
            try:
                self._sink.renew()
            except Exception as error:  # noqa: BLE001  a bug in a sink must not end its thread unheard
                self._note_failure(error)
                self._sink.settle()
                self._stop.wait(_RETRY_S)
            else:
                self._note_recovery()
                self._sink.settle()
                self.reliable_until = inf
                return

    def _write(self, lines_in: int) -> None:
        """Write the batch. If the sink was replaced, the current line begins again in the new one."""
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
                self._note_failure(error)
                if _code(error) == errno.EPIPE:
                    # The reader is gone with half a line: the next one starts with a whole line.
                    self._offset = self._line_start()
                ready = False
                self._sink.settle()
                self._abandoned.wait(_RETRY_S)
                continue
            if written:
                self._offset += written
                self._note_recovery()
                self.reliable_until = time.monotonic() + self._stall_s
            else:
                ready = False  # a replaced sink may accept writes
        if self._offset == len(data):
            self._batch, self._offset = b"", 0
            self.lines_out = lines_in
            self.bytes_out += len(data)
        self._sink.settle()
        if self._error is None:
            self.reliable_until = inf

    def _line_start(self) -> int:
        """Return the start of the line being written."""
        return self._batch.rfind(b"\n", 0, self._offset) + 1

    def _look(self) -> None:
        """Every ``LOOK_S``, close a file that was removed and measure the free space; on failure retry.

        So an unusable sink is noticed before a request needs it.
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
            self._note_failure(error)
        else:
            self._note_recovery()
        self._sink.settle()
        self.filling = None if room is None else (self.filling or SinkSpace()).measured(room, now)
        if self._error is None:
            self.reliable_until = inf

    def _note_failure(self, error: Exception) -> None:
        if self._error is None:
            bug = None if isinstance(error, OSError) else error
            fields = {"sink": self._sink.name, "errno": _code(error)}
            _log.error("record sink failed", extra=fields, exc_info=bug)
        self._error = error
        self.reliable_until = -inf

    def _note_recovery(self) -> None:
        if self._error is not None:
            _log.warning("record sink recovered", extra={"sink": self._sink.name})
            self.reliable_until = inf
            self._error = None


def _code(error: Exception) -> int:
    return (error.errno or 0) if isinstance(error, OSError) else 0
