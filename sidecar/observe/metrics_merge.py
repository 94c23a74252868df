"""Merges the metrics of several processes into those of one. Pure.

Counters are summed, as are resources of each process (memory, descriptors, requests in flight). For shared state the
worst value is exported: the SVID that expires first, the oldest bundle and key set, the process that is not ready. The
counters of an ended process stay in the sum: a falling sum would look like a restart of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import add
from typing import Final, NamedTuple

from sidecar.observe.exposition import Merge, Metric, text_of_metrics

_COUNTS: Final = ("counter", "histogram")

_FUNCTIONS: Final[Mapping[Merge, Callable[[float, float], float]]] = {"sum": add, "min": min, "max": max}

Series = tuple[str, tuple[tuple[str, str], ...]]


class Family(NamedTuple):
    """One metric: ``values`` by the name of the sample and its labels."""

    help: str
    type: str
    merge: Merge
    values: dict[Series, float]


Families = dict[str, Family]


def families_of(collected: Iterable[Metric]) -> Families:
    """Convert collected metrics into a form that can be sent to another process."""
    return {
        metric.name: Family(
            metric.documentation,
            metric.type,
            metric.merge or "sum",
            {(one.name, tuple(one.labels.items())): float(one.value) for one in metric.samples},
        )
        for metric in collected
    }


def merged(several: Sequence[Families]) -> Families:
    """Merge ``several`` in the order in which metrics and series first appear."""
    sums: Families = {}
    for families in several:
        for name, family in families.items():
            values = sums.setdefault(name, family._replace(values={})).values
            for series, value in family.values.items():
                values[series] = _FUNCTIONS[family.merge](values[series], value) if series in values else value
    return sums


def counts_only(families: Families) -> Families:
    """Keep only counters and histograms, which outlive their process."""
    return {name: family for name, family in families.items() if family.type in _COUNTS}


def of_silent(families: Families) -> Families:
    """Return the metrics of a process that no longer answers: its last counts, and ``sidecar_ready`` 0.

    Other gauges are outdated: an age would stop growing, and look fresh.
    """
    ready = families.get("sidecar_ready")
    state = {} if ready is None else {"sidecar_ready": ready._replace(values=dict.fromkeys(ready.values, 0.0))}
    return counts_only(families) | state


def text_of(families: Families) -> bytes:
    """Return the text exposition."""
    return text_of_metrics(_metrics(families))


def _metrics(families: Families) -> Iterator[Metric]:
    for name, family in families.items():
        metric = Metric(name, family.help, family.type)
        for (sample, labels), value in family.values.items():
            metric.add_sample(sample, dict(labels), value)
        yield metric
