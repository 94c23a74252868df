"""Free space of a sink's file system over time, and the forecast of when it will be full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from sidecar.observe.exposition import Metric, lowest, summed
from sidecar.observe.sink import Room

MARK_S: Final = 60.0  # between two samples
MARKS: Final = 10  # samples kept: the rate is that of the last ten minutes
LEAST_S: Final = 60.0  # a rate over less is noise


class SinkSpace(NamedTuple):
    """Free and total bytes as last measured, and the samples (time, free bytes) for the rate."""

    room: Room = Room(0, 0)
    marks: tuple[tuple[float, int], ...] = ()
    full_in_s: int | None = None  # None: it does not fill, or there are too few samples

    def measured(self, room: Room, now: float) -> SinkSpace:
        """Add a measurement."""
        marks = self.marks
        if not marks or now - marks[-1][0] >= MARK_S:
            marks = (*marks[-(MARKS - 1) :], (now, room.free_bytes))
        since, free_then = marks[0]
        used = free_then - room.free_bytes
        full_in_s = None
        if now - since >= LEAST_S and used > 0:
            full_in_s = int(room.free_bytes * (now - since) / used)
        return SinkSpace(room, marks, full_in_s)


def sink_metrics(waiting_bytes: int, filling: SinkSpace | None) -> Iterator[Metric]:
    """Return gauges of a record sink: its backlog, and the free space if it is a file."""
    yield summed("sidecar_records_waiting_bytes", "Records that the sink has not taken yet.", value=waiting_bytes)
    if filling is not None:
        free, size = filling.room
        yield lowest(
            "sidecar_records_sink_free_bytes", "Free bytes of the file system that the record file is on.", value=free
        )
        yield lowest("sidecar_records_sink_size_bytes", "All bytes of that file system.", value=size)
