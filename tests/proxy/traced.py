"""Worlds whose traces are exported: spans and logs as an exporter would send them, with random ids named."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from sidecar.engine import Engine
from sidecar.observe.telemetry.entries import TracedEntry, TracedUnprovenEntry, Traces
from sidecar.observe.telemetry.otlp import TelemetryExport
from sidecar.observe.telemetry.settings import TracingSettings
from tests.proxy.engines import EngineWorld
from tests.proxy.test_warm import Event

_ID: Final = re.compile(r"(?<![0-9a-f])(?:[0-9a-f]{32}|[0-9a-f]{16})(?![0-9a-f])")

Step = tuple[bytes, bytes, Event]


class Exported:
    """Stands for a collector's exporters: keeps what is exported."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.logs: list[ReadableLogRecord] = []
        self._telemetry = made = TelemetryExport(
            TracingSettings(endpoint="http://127.0.0.1:9", records=True, queue=65_536), "run"
        )
        made._key = bytes(32)
        exporters: Any = made
        exporters._span_exporter.export = self._take_spans
        exporters._log_exporter.export = self._take_logs
        self.offer, self.close = made.offer, made.close

    def _take_spans(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS

    def _take_logs(self, logs: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self.logs += logs
        return LogRecordExportResult.SUCCESS


def traced(kind: type[EngineWorld], engine: Engine, folder: Path, traces: Traces) -> tuple[EngineWorld, Exported]:
    """Return a world whose traces are exported, and what is exported of it once its log is closed."""
    exported = Exported()
    world = kind(
        engine,
        folder,
        entry=partial(TracedEntry, traces),
        unproven_entry=partial(TracedUnprovenEntry, traces),
        next_trace=traces.continued,
        export=exported,
    )
    return world, exported


def told(world: EngineWorld, exported: Exported, given: Iterable[bytes]) -> list[str]:
    """Return every traceparent that went on, every span and every log.

    An id that is in ``given`` stays, and each other one is named by its first place.
    """
    kept, names = set(_ID.findall(b" ".join(given).decode("latin-1"))), dict[str, str]()

    def name(found: re.Match[str]) -> str:
        one = found[0]
        return one if one in kept else names.setdefault(one, f"id {len(names)}")

    texts = [one.decode() for one in world.went_on]
    texts += [str(span.to_json(indent=None)).replace("0x", "") for span in exported.spans]
    texts += map(_log, exported.logs)
    return [_ID.sub(name, text) for text in texts]


def _log(one: ReadableLogRecord) -> str:
    record = one.log_record
    assert record.attributes is not None
    ids = f"{record.trace_id or 0:032x} {record.span_id or 0:016x} {record.trace_flags}"
    return f"{record.event_name} {record.severity_text} {record.timestamp} {ids} {sorted(record.attributes.items())}"


async def both(
    kind: type[EngineWorld], folder: Path, steps: Iterable[Step], *, ratio: float = 1.0, least_taken: int = 0
) -> list[ReadableSpan]:
    """Let both engines serve the same, with traces; return the spans, which must be the same except for random ids."""
    exchanges = list(steps)
    both_told: dict[Engine, list[object]] = {}
    engines: tuple[Engine, ...] = ("python", "native")
    for engine in engines:
        world, exported = traced(kind, engine, folder, Traces(ratio))
        outcomes = [world.exchange(data, answer, between) for data, answer, between in exchanges]
        records = await world.records()
        ids = told(world, exported, [data for data, *_ in exchanges])
        both_told[engine] = [*outcomes, *records, *ids, world.counted]
        assert [log.log_record.body for log in exported.logs] == world.lines.read_text().splitlines()
        spans = exported.spans
        if engine == "native":
            assert world.taken >= least_taken, "the native engine took too little for this test to say anything"
    assert len(both_told["python"]) == len(both_told["native"])
    for one, other in zip(both_told["python"], both_told["native"], strict=True):
        assert one == other
    return spans
