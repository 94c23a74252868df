"""One record per request, and the events beside them, through the writer's thread.

Room is reserved when a request arrives: ``reserve()`` hands out the ``Entry`` that will become its one record, or
refuses the request. What is reserved can therefore always be written down, and memory has a limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import takewhile
from typing import Final, Unpack

from sidecar.errors import Reason, Unavailable
from sidecar.observe.entry import Entry
from sidecar.observe.metrics import Metrics
from sidecar.observe.record import FIELDS, Direction, RecordFields, encode
from sidecar.observe.sink import FileSink, Sink, StdoutSink
from sidecar.observe.writer import Writer

__all__ = ["AccessLog", "Entry", "FileSink", "Sink", "StdoutSink"]

MAX_RECORDS: Final = 16384  # reserved and unwritten together
MAX_BYTES: Final = 8 * 1024 * 1024  # unwritten
TICK_S: Final = 0.25  # between two calls of ``tell_lasting``
LASTS_S: Final = 1.0  # a request that lasts longer leaves request.opened

_EMPTY: Final[dict[str, object]] = dict.fromkeys(FIELDS)


class AccessLog:
    """The record stream of one process. Used by the event loop's thread only.

    Args:
        sink: where lines go; the log owns it.
        run: names this run of the process in every record.
        metrics: counts requests and what is lost.
        wall, monotonic: clocks, in seconds.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        run: str,
        metrics: Metrics,
        max_records: int = MAX_RECORDS,
        max_bytes: int = MAX_BYTES,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.workload: str | None = None
        self.placement: str | None = None  # where this process runs, for the event that a run begins with
        self.run = run
        self.metrics = metrics
        self.wall = wall
        self.monotonic = monotonic
        self._writer = Writer(sink)
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._reserved = 0
        self._young: dict[Entry, None] = {}  # in the order in which they began; neither opened nor closed
        self._lasting: dict[Entry, None] = {}  # opened and not closed
        self.sink = sink.name
        self._seq = 0
        self._second = -1
        self._second_text = ""
        self._closed = False

    @property
    def healthy(self) -> bool:
        """Whether a request could be recorded now."""
        return self.trouble is None

    @property
    def trouble(self) -> str | None:
        """Why no request could be recorded now, in our words."""
        return self._trouble(self.monotonic())

    @property
    def waiting(self) -> int:
        """Records that the sink has not taken yet."""
        return self._writer.pending_lines

    def being_served(self) -> list[Entry]:
        """The entries that are open, the longest first."""
        return [*self._lasting, *self._young]

    @property
    def settled(self) -> bool:
        """Whether the sink has taken everything so far."""
        return self._writer.pending_lines == 0

    def reserve(self, direction: Direction = "inbound") -> Entry:
        """Room for one request's record, before anything of it goes upstream.

        Raises:
            Unavailable: AUDIT_UNAVAILABLE if the sink failed, is blocked, or has too much waiting. That refusal leaves
                no record, there being no room for one; it is counted.
        """
        now = self.monotonic()
        trouble = self._trouble(now)
        if trouble is not None:
            self.metrics.request(direction, None, "deny", Reason.AUDIT_UNAVAILABLE, 0.0)
            raise Unavailable(Reason.AUDIT_UNAVAILABLE, trouble)
        self._reserved += 1
        self.metrics.in_flight += 1
        entry = Entry(self, direction, self.wall(), now)
        self._young[entry] = None
        return entry

    def event(self, event: str, **fields: Unpack[RecordFields]) -> None:
        """Record something that is no request: a refused connection, an exchange, a rotation, a start.

        Never raises. Without room the event is lost, which the gap in ``seq`` and a metric tell.
        """
        self._put_or_lose(event, self.wall(), fields)

    def finish(self, entry: Entry, fields: RecordFields, at: float) -> None:
        """Write the record of an entry and give its room back. Called once by each ``Entry``."""
        if entry in self._young:
            del self._young[entry]
        else:
            self._lasting.pop(entry, None)
        self._reserved -= 1
        self.metrics.in_flight -= 1
        self._put("request", at, fields)

    def opened(self, entry: Entry, fields: RecordFields, at: float) -> None:
        """Say once that a request lasts or streams, ahead of its record. Without room it is lost, like an event."""
        if entry in self._young:
            del self._young[entry]
            self._lasting[entry] = None
            self._put_or_lose("request.opened", at, fields)

    def tell_lasting(self) -> None:
        """Leave ``request.opened`` for every request that began long ago. To be called each ``TICK_S``.

        One look at the oldest instead of a timer for each. A request that would be too old at the next tick is told
        now, so that none which lasts longer than ``LASTS_S`` ends untold.
        """
        began_before = self.monotonic() - (LASTS_S - TICK_S)
        for entry in list(takewhile(lambda entry: entry.started_at <= began_before, self._young)):
            entry.opened()

    async def close(self, timeout_s: float = 5.0) -> None:
        """Write what is pending and end the writer. What cannot be written within ``timeout_s`` is counted as lost."""
        if self._closed:
            return
        self._closed = True
        lost = await asyncio.to_thread(self._writer.close, timeout_s)
        if lost:
            self.metrics.event_lost(lost)

    def _trouble(self, now: float) -> str | None:
        if self._closed:
            return "the record stream is closed"
        trouble = self._writer.trouble(now)
        if trouble is None and not self._has_room():
            return "too many records wait for the sink"
        return trouble

    def _has_room(self) -> bool:
        writer = self._writer
        return self._reserved + writer.pending_lines < self._max_records and writer.pending_bytes < self._max_bytes

    def _put_or_lose(self, event: str, at: float, fields: RecordFields) -> None:
        if self._closed or not self._has_room():
            self._seq += 1
            self.metrics.event_lost()
            return
        self._put(event, at, fields)

    def _put(self, event: str, at: float, fields: RecordFields) -> None:
        self._seq += 1
        record = _EMPTY.copy()
        record["event"] = event
        record["ts"] = self._timestamp(at)
        record["run"] = self.run
        record["seq"] = self._seq
        record["workload"] = self.workload
        record.update(fields)
        self._writer.put(encode(record))

    def _timestamp(self, at: float) -> str:
        micros = int(at * 1_000_000)
        second, fraction = divmod(micros, 1_000_000)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{fraction:06d}Z"
