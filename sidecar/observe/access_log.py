"""One record per request, and the events beside them, written by the writer's thread.

Space is reserved when a request arrives: ``reserve()`` returns the ``Entry`` that will become its one record, or
refuses the request. So every reserved record can be written, and memory has a limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Final, Protocol, Unpack, get_args

from delegation_core.errors import Reason, Unavailable
from delegation_core.records.hash_chain import HashChain, Link
from delegation_core.records.record import FIELDS, Direction, Record, RecordFields
from delegation_core.records.record_text import encode
from sidecar.observe.entry import Entry, EntryLog, UnprovenEntry, request_record
from sidecar.observe.metrics import Metrics
from sidecar.observe.record_rate import UnprovenRecords
from sidecar.observe.sink import FileSink, Sink, StdoutSink
from sidecar.observe.sink_space import SinkSpace, sink_metrics
from sidecar.observe.spill import name_unwritten, spill, warn_if_unusable
from sidecar.observe.tracing import TraceContext, new_id
from sidecar.observe.writer import Writer

__all__ = ["AccessLog", "Entry", "FileSink", "Sink", "StdoutSink"]

MAX_RECORDS: Final = 16384  # reserved and unwritten together
# Requests are refused above this many unwritten bytes: about a thousand records. A blocked sink is noticed after
# ``writer.STALL_S`` at the latest, a failing one at once; whichever comes first.
MAX_BYTES: Final = 1024 * 1024
EVENT_BYTES: Final = 8 * MAX_BYTES  # events are lost above: admitted requests keep room for their records
TICK_S: Final = 0.25  # between two calls of ``tell_lasting``
LASTS_S: Final = 1.0  # a longer request writes request.opened
FIRST_S: Final = 1.0  # for a record that a call waits for: twice the time after which a sink counts as blocked
MAX_REFUSALS: Final = 1024  # records of refusals while the sink takes none

_SECOND: Final = 1_000_000  # microseconds


NextTrace = Callable[[Direction, str | None, Sequence[bytes], Sequence[bytes]], TraceContext]
"""Continues a trace, by direction, ``call_in``, and the values of ``traceparent`` and ``tracestate``."""


class Export(Protocol):
    """A copy of the record stream that leaves by network. It loses records rather than wait, and counts them."""

    def offer(self, records: Sequence[Record], lines: bytes) -> None:
        """Take records and their lines. Called in order, in either thread, never in both at once; never blocks."""

    def close(self) -> None:
        """Send what is waiting, for a limited time. Blocks."""


class AccessLog:
    """The record stream of one process. Used by the event loop's thread only.

    Args:
        sink: the destination of lines; the log owns it.
        spill_folder: destination of records unwritten at the end; None: the operations log names them.
        run: names this run of the process in every record.
        metrics: counts requests and losses.
        wall, monotonic: clocks, in seconds.
        entry, unproven_entry: classes of the entries; traced ones where traces are exported.
        next_trace: continues the traces of native-engine requests, which have no entry. None: traces are not exported.
        export: receives a copy of all records; None: nothing is exported.
        link: the native engine's hash chain, if that engine runs.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        run: str,
        metrics: Metrics,
        max_records: int = MAX_RECORDS,
        max_bytes: int = MAX_BYTES,
        spill_folder: Path | None = None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        entry: Callable[[EntryLog, Record, float], Entry] = Entry,
        unproven_entry: Callable[[EntryLog, Record, float, UnprovenRecords], Entry] = UnprovenEntry,
        next_trace: NextTrace | None = None,
        export: Export | None = None,
        link: Link | None = None,
    ) -> None:
        self._entry = entry
        self._unproven_entry = unproven_entry
        self.next_trace = next_trace
        self._export = export
        self.workload: str | None = None
        self.placement: str | None = None  # the host of this process, for the first event of a run
        self.run = run
        self.metrics = metrics
        self.wall = wall
        self.monotonic = monotonic
        self.unwritten = 0  # records that could not be encoded, or that the sink had not taken at the end
        self._spill_folder = spill_folder
        warn_if_unusable(spill_folder)
        self._chain = HashChain(encode, link)
        encode_lines = self._chain if export is None else _exporting(self._chain, export)
        self.writer = Writer(sink, encode_lines, on_lost=self._lose)
        self.max_records = max_records
        self.max_bytes = max_bytes
        self.promised = 0  # lines with space: taken by the writer, or reserved for requests in flight
        self.young: dict[Entry, None] = {}  # in order of arrival; neither opened nor closed
        self._lasting: dict[Entry, None] = {}  # opened and not closed
        self._blank: Record = {**dict.fromkeys(FIELDS), "run": run}
        self._blank_requests = {direction: request_record(direction, run) for direction in get_args(Direction)}
        self.sink = sink.name
        self.last_seq = 0  # of the last record, encoded or not, written or lost
        self._second_at = -_SECOND  # in microseconds; the second of the cached text
        self._second_text = ""  # with a placeholder for the fraction
        self._closed = False
        self._refused_after = self._refusals = 0  # since the sink last wrote and half of the log was free
        metrics.in_flight = self._in_flight
        metrics.records = lambda: sink_metrics(self.waiting_bytes, self.filling)

    @property
    def healthy(self) -> bool:
        """True if a request could be recorded now."""
        return self.trouble is None

    @property
    def trouble(self) -> str | None:
        """Reason why no request can be recorded now; None if it can."""
        return self._trouble(self.monotonic())

    @property
    def waiting(self) -> int:
        """Number of records not written yet."""
        return self.writer.pending_lines

    def being_served(self) -> list[Entry]:
        """The open entries, the oldest first."""
        return [*self._lasting, *self.young]

    @property
    def waiting_bytes(self) -> int:
        """Encoded bytes not written yet; at ``max_bytes`` requests are refused."""
        return self.writer.bytes_in - self.writer.bytes_out

    @property
    def filling(self) -> SinkSpace | None:
        """Free space of the sink's file system; None if the sink is not a file, or the space is unknown."""
        return self.writer.filling

    @property
    def head(self) -> tuple[int, str] | None:
        """Number of the last encoded record, and the hash of its line; None before the first."""
        return self._chain.head

    @property
    def settled(self) -> bool:
        """True if all records so far are written."""
        return self.writer.pending_lines == 0

    def reserve(self, direction: Direction = "inbound", unproven: UnprovenRecords | None = None) -> Entry:
        """Reserve space for one request's record, before any of its bytes go upstream.

        ``unproven``: the listener's record rate, where callers prove no identity.

        Raises:
            Unavailable: AUDIT_UNAVAILABLE if the sink failed, is blocked, or has too much waiting. ``refused`` records
                that refusal.
        """
        now = self.monotonic()
        writer = self.writer
        if (
            now > writer.reliable_until
            or self.promised - writer.lines_out >= self.max_records
            or writer.bytes_in - writer.bytes_out >= self.max_bytes
        ):
            self.metrics.request(direction, None, "deny", Reason.AUDIT_UNAVAILABLE, 0.0)
            raise Unavailable(Reason.AUDIT_UNAVAILABLE, self._trouble(now) or "the record sink was in trouble")
        self.promised += 1
        record = self._blank_requests[direction].copy()
        record["ts"] = self._timestamp(self.wall())
        record["request_id"] = new_id()
        entry = (
            self._entry(self, record, now) if unproven is None else self._unproven_entry(self, record, now, unproven)
        )
        self.young[entry] = None
        return entry

    def event(self, event: str, **fields: Unpack[RecordFields]) -> None:
        """Record an event other than a request: a refused connection, an exchange, a rotation, a start.

        Never raises. Without space the event is lost, which shows as a gap in ``seq`` and in a metric.
        """
        self._put_or_lose({**self._blank, "event": event, "ts": self._timestamp(self.wall()), **fields})

    def finish(self, entry: Entry, record: Record) -> None:
        """Write the record of an entry and count its request. No effect on a finished entry."""
        try:
            del self.young[entry]
        except KeyError:
            if entry not in self._lasting:
                return
            del self._lasting[entry]
        record["total_ms"] = int((self.monotonic() - entry.started_at) * 1_000_000 + 0.5) / 1000
        self._put(record)
        self.metrics.finished.add(record)

    def leave_out(self, entry: Entry, record: Record) -> None:
        """Count the request of an entry that was never opened, and free the space of its record."""
        del self.young[entry]
        self.promised -= 1
        record["total_ms"] = int((self.monotonic() - entry.started_at) * 1_000_000 + 0.5) / 1000
        self.metrics.finished.add(record)

    def opened(self, entry: Entry, record: Record) -> None:
        """Write request.opened once for a request that lasts or streams. Without space it is lost, like an event."""
        if entry in self.young:
            del self.young[entry]
            self._lasting[entry] = None
            self._put_or_lose(record)

    def open_first(self, entry: Entry, record: Record, done: Callable[[str | None], object]) -> None:
        """Write ``request.opened`` of a request that goes on only when the record is written.

        ``done`` is called later: with None once the record is written, or with the reason of a failure.

        Raises:
            Unavailable: AUDIT_UNAVAILABLE: no record can be written now.
        """
        if (trouble := self.trouble) is not None:
            raise Unavailable(Reason.AUDIT_UNAVAILABLE, trouble)
        self.opened(entry, record)
        loop = asyncio.get_running_loop()
        waiting = [done]

        def end(reason: str | None) -> None:
            timer.cancel()
            if waiting:
                waiting.pop()(reason)

        def expire() -> None:
            end(self.trouble or f"the record sink took no record within {FIRST_S:g} s")

        timer = loop.call_later(FIRST_S, expire)
        self.writer.flush(partial(loop.call_soon_threadsafe, end, None))

    def refused(self, direction: Direction, fields: RecordFields) -> str:
        """Record a request that ``reserve`` refused, within a separate reserve. Return its request id.

        Beyond ``MAX_REFUSALS``, or twice the bytes at which requests are refused, the record is lost and counted. The
        reserve is refilled once half of the log is written, so that many refusals leave a slow sink time for requests.
        """
        self._refill_reserve()
        self._refusals += 1
        request_id = new_id()
        if self._refusals > MAX_REFUSALS or self.waiting_bytes >= 2 * self.max_bytes:
            self.last_seq += 1
            self.metrics.event_lost()
            return request_id
        refusal: Record = {
            **self._blank_requests[direction],
            "ts": self._timestamp(self.wall()),
            "request_id": request_id,
            "reason": Reason.AUDIT_UNAVAILABLE,
            **fields,
        }
        self._put_or_lose(refusal)
        return request_id

    def tell_lasting(self) -> None:
        """Write ``request.opened`` for every request that began long ago. Call this every ``TICK_S``.

        Checks only the oldest requests instead of one timer each. A request that would be too old at the next tick is
        written now, so that none longer than ``LASTS_S`` ends without its event.
        """
        self._refill_reserve()
        began_before = self.monotonic() - (LASTS_S - TICK_S)
        for entry in list(takewhile(lambda entry: entry.started_at <= began_before, self.young)):
            entry.opened()

    async def close(self, timeout_s: float = 5.0) -> None:
        """Write pending records and end the writer.

        Records not written within ``timeout_s`` are counted in ``unwritten`` and spilled.
        """
        if self._closed:
            return
        self._closed = True
        self.max_records = 0  # no more space for anything
        rest = await asyncio.to_thread(self.writer.close, timeout_s)
        if rest:
            count = rest.count(b"\n")
            self.unwritten += count
            self.metrics.event_lost(count)
            await asyncio.to_thread(spill, rest, self._spill_folder, self.run)
        if self._export is not None:
            await asyncio.to_thread(self._export.close)

    def _trouble(self, now: float) -> str | None:
        if self._closed:
            return "the record stream is closed"
        trouble = self.writer.trouble(now)
        if trouble is None and not self._has_room(self.max_bytes):
            return "too many records wait for the sink"
        return trouble

    def _lose(self, record: Record) -> None:
        self.unwritten += 1
        self.metrics.event_lost()
        name_unwritten(record)

    def _has_room(self, most_bytes: int) -> bool:
        return self.promised - self.writer.lines_out < self.max_records and self.waiting_bytes < most_bytes

    def _refill_reserve(self) -> None:
        written = self.writer.lines_out
        half_free = self.promised - written <= self.max_records // 2 and self.waiting_bytes <= self.max_bytes // 2
        if half_free and written != self._refused_after:
            self._refused_after, self._refusals = written, 0

    def _put_or_lose(self, record: Record) -> None:
        if not self._has_room(EVENT_BYTES):
            self.last_seq += 1
            self.metrics.event_lost()
            return
        self.promised += 1
        self._put(record)

    def _put(self, record: Record) -> None:
        """Write a record that has reserved space."""
        self.last_seq = record["seq"] = self.last_seq + 1
        record["workload"] = self.workload
        path = record["path"]
        if path is not None and "?" in path:
            record["path"] = path.partition("?")[0]  # a query may hold secrets and is never recorded
        self.writer.put(record)

    def _timestamp(self, at: float) -> str:
        fraction = int(at * _SECOND) - self._second_at
        if not 0 <= fraction < _SECOND:
            second, fraction = divmod(fraction + self._second_at, _SECOND)
            self._second_at = second * _SECOND
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S.%%06dZ", time.gmtime(second))
        return self._second_text % fraction

    def _in_flight(self) -> int:
        return len(self.young) + len(self._lasting)


def _exporting(
    encode_lines: Callable[[Sequence[Record]], bytes], export: Export
) -> Callable[[Sequence[Record]], bytes]:
    """Make an encoder that also offers the encoded lines to ``export``: each record once, in stream order."""

    def encode_and_offer(records: Sequence[Record]) -> bytes:
        lines = encode_lines(records)
        export.offer(records, lines)
        return lines

    return encode_and_offer
