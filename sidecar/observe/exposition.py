"""Metrics as text, in Prometheus' exposition format 0.0.4, and the figures of this process.

prometheus-client does the same and imports an HTTP server, a client and their libraries: 2.3 MiB of every sidecar. The
families have its names and arguments, and a test compares the text with its own. Pure, except ``process_metrics``.
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple

CONTENT_TYPE: Final = "text/plain; version=1.0.0; charset=utf-8"
_SUFFIXES: Final = {"counter": "_total", "info": "_info"}  # of the name in the text
Merge = Literal["sum", "min", "max"]
_EXPONENT_FROM: Final = 6  # digits: Go writes larger numbers with an exponent


class Sample(NamedTuple):
    """One series."""

    name: str
    labels: Mapping[str, str]
    value: float


class Metric:
    """A metric with its series. ``type``: counter, gauge, histogram or info.

    ``merge`` combines the values of several workers; None: their sum.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        type: str,  # noqa: A002
        labels: Sequence[str] = (),
        merge: Merge | None = "sum",
    ) -> None:
        self.name = name.removesuffix("_total") if type == "counter" else name
        self.documentation = documentation
        self.type = type
        self.labels = tuple(labels)
        self.merge: Merge | None = merge
        self.samples: list[Sample] = []

    @property
    def text_name(self) -> str:
        """Name of the metric in the text."""
        return self.name + _SUFFIXES.get(self.type, "")

    @property
    def text_type(self) -> str:
        """Type of the metric in the text."""
        return "gauge" if self.type == "info" else self.type

    def add_sample(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """Add one series."""
        self.samples.append(Sample(name, labels, value))

    def named(self, values: Sequence[str]) -> dict[str, str]:
        """Return the labels with these values."""
        return dict(zip(self.labels, map(str, values), strict=True))


class CounterMetricFamily(Metric):
    """A count since the start."""

    def __init__(self, name: str, documentation: str, value: float | None = None, labels: Sequence[str] = ()) -> None:
        super().__init__(name, documentation, "counter", labels)
        if value is not None:
            self.add_metric((), value)

    def add_metric(self, labels: Sequence[str], value: float) -> None:
        """Add the series with these values of the labels."""
        self.add_sample(f"{self.name}_total", self.named(labels), value)


class GaugeMetricFamily(Metric):
    """A current value. ``merge``: see ``Metric``; ours use ``highest``, ``lowest`` and ``summed``."""

    def __init__(
        self,
        name: str,
        documentation: str,
        value: float | None = None,
        labels: Sequence[str] = (),
        *,
        merge: Merge | None = None,
    ) -> None:
        super().__init__(name, documentation, "gauge", labels, merge)
        if value is not None:
            self.add_metric((), value)

    def add_metric(self, labels: Sequence[str], value: float) -> None:
        """Add the series with these values of the labels."""
        self.add_sample(self.name, self.named(labels), value)


highest: Final = partial(GaugeMetricFamily, merge="max")
lowest: Final = partial(GaugeMetricFamily, merge="min")
summed: Final = partial(GaugeMetricFamily, merge="sum")


class InfoMetricFamily(Metric):
    """A text, as a label of a series that is 1."""

    def __init__(self, name: str, documentation: str, value: Mapping[str, str]) -> None:
        super().__init__(name, documentation, "info", tuple(value), "max")
        self.add_sample(f"{name}_info", value, 1)


class HistogramMetricFamily(Metric):
    """A distribution: for each bucket (its upper bound as text) the count up to it, and the sum of all values."""

    def __init__(
        self,
        name: str,
        documentation: str,
        buckets: Sequence[tuple[str, float]] | None = None,
        sum_value: float = 0,
        labels: Sequence[str] = (),
    ) -> None:
        super().__init__(name, documentation, "histogram", labels)
        if buckets is not None:
            self.add_metric((), buckets, sum_value)

    def add_metric(self, labels: Sequence[str], buckets: Sequence[tuple[str, float]], sum_value: float) -> None:
        """Add the series with these values of the labels. The last bucket has everything."""
        named = self.named(labels)
        for bound, count in buckets:
            self.add_sample(f"{self.name}_bucket", {**named, "le": bound}, count)
        self.add_sample(f"{self.name}_count", named, buckets[-1][1])
        self.add_sample(f"{self.name}_sum", named, sum_value)


def text_of_metrics(metrics: Iterable[Metric]) -> bytes:
    """Return the text of a scrape, of type ``CONTENT_TYPE``."""
    return "".join(line for metric in metrics for line in _lines(metric)).encode()


def _lines(metric: Metric) -> Iterator[str]:
    documentation = metric.documentation.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {metric.text_name} {documentation}\n"
    yield f"# TYPE {metric.text_name} {metric.text_type}\n"
    for sample in metric.samples:
        labels = ",".join(f'{label}="{_escape(value)}"' for label, value in sorted(sample.labels.items()))
        yield (
            f"{sample.name}{{{labels}}} {_number(sample.value)}\n"
            if labels
            else (f"{sample.name} {_number(sample.value)}\n")
        )


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    """Write a number as Go does."""
    value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    point = text.find(".")
    if value > 0 and point > _EXPONENT_FROM:
        mantissa = f"{text[0]}.{text[1:point]}{text[point + 1 :]}".rstrip("0.")
        return f"{mantissa}e+{point - 1:02d}"
    return text


def process_metrics(prefix: str, proc: Path = Path("/proc")) -> Iterator[Metric]:
    """Yield memory, CPU time, start and descriptors of this process; nothing if ``proc`` cannot be read."""
    try:
        began = next(line for line in (proc / "stat").read_text().splitlines() if line.startswith("btime "))
        fields = (proc / "self/stat").read_text().rpartition(")")[2].split()
        descriptors = len(list((proc / "self/fd").iterdir()))
    except (OSError, StopIteration):
        return
    ticks = os.sysconf("SC_CLK_TCK")
    yield summed(f"{prefix}_virtual_memory_bytes", "Virtual memory size in bytes.", float(fields[20]))
    yield summed(
        f"{prefix}_resident_memory_bytes", "Resident memory size in bytes.", float(fields[21]) * resource.getpagesize()
    )
    yield lowest(
        f"{prefix}_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        float(fields[19]) / ticks + float(began.split()[1]),
    )
    yield CounterMetricFamily(
        f"{prefix}_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        (float(fields[11]) + float(fields[12])) / ticks,
    )
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield summed(f"{prefix}_open_fds", "Number of open file descriptors.", descriptors)
    yield lowest(f"{prefix}_max_fds", "Maximum number of open file descriptors.", most)
