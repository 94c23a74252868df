"""Settings of records, the same for a sidecar and a token service."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.observe.record_rate import RecordRate
from sidecar.observe.sink import FileSink, Sink, StdoutSink

if TYPE_CHECKING:  # a token service has nobody that countersigns its records
    from sidecar.exchange.countersigner import CountersignSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSettings:
    """Destination of records: ``file``, or standard output. ``unproven`` limits those of unauthenticated callers.

    ``spill`` is the directory for records that the sink did not accept before the process ended.
    """

    file: Path | None = None
    spill: Path | None = None
    unproven: RecordRate = field(default_factory=RecordRate)
    countersign: CountersignSettings | None = None

    def open_sink(self) -> Sink:
        """Make the sink. Its writer opens the file, so that a failure means "not ready" and not a crash."""
        return StdoutSink() if self.file is None else FileSink(self.file)
