"""Turns samples into tables: for each scenario, each peer's figure and its ratio to the base in the same rounds.

Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.histogram import merged, percentile
from benchmarks.peers.sidecar_settings import BEFORE
from benchmarks.ratios import Spread, ratios, refusal, spread
from benchmarks.sample import Sample
from benchmarks.scenarios import Measure, Scenario

BASE: Final = "haproxy"
UNITS: Final[dict[Measure, str]] = {
    "cpu": "us of CPU per request",
    "throughput": "MB/s",
    "events": "us of delay, median",
    "memory": "MiB resident",
    "slow": "MiB resident at most",
    "rotation": "us of CPU per request",
}
DIRECT: Final = "direct"
ENVOY: Final = "envoy-jwt"
_MANY: Final = 1000  # connections: the p99 shows the fairness of scheduling


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Results of one peer over all rounds. ``ratio`` is None if there is none."""

    peer: str
    figure: Spread | None = None
    ratio: Spread | None = None
    ratio_to_envoy: Spread | None = None  # with its JWT cache, in the same round
    ratio_to_before: Spread | None = None  # the same engine of the version before, in the same round
    p50_us: float = math.nan
    p99_us: float = math.nan
    p99_ratio: Spread | None = None  # to the base in the same round, where the load does not depend on the answers
    added_p50_us: Spread | None = None  # above the p50 of the same load without a proxy, in the same round
    added_p99_us: Spread | None = None
    per_second: float = 0
    kernel_share: float | None = None  # of the CPU time, with the warm-up
    native_share: float | None = None  # of the requests
    core_free: float | None = None  # idle share of the proxies' core
    process_us: Mapping[str, float] = field(default_factory=dict)  # CPU per request, where there are several
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One scenario."""

    scenario: Scenario
    unit: str
    refusal: str | None
    rows: tuple[Row, ...]


def table_of(samples: Sequence[Sample], scenario: Scenario, peers: Sequence[str]) -> Table:
    """Build the table of one scenario. The peers are in display order."""
    rounds = sorted({sample.round for sample in samples if sample.scenario == scenario.name})
    base = _column(samples, scenario, BASE, rounds)
    why = None if scenario.measure in {"memory", "slow", "rotation"} else refusal(base)
    rows = [_row(samples, scenario, peer, rounds, base if why is None else [None] * len(rounds)) for peer in peers]
    return Table(
        scenario=scenario, unit=UNITS[scenario.measure], refusal=why, rows=tuple(row for row in rows if row is not None)
    )


def tells_latency(scenario: Scenario) -> bool:
    """Return True if the table has the p99: for a schedule, a flood beside the load, or very many connections."""
    return scenario.measure == "cpu" and bool(scenario.rate or scenario.beside or scenario.connections >= _MANY)


def _latencies(samples: Sequence[Sample], scenario: Scenario, peer: str, share: float) -> dict[int, float]:
    """Return this percentile of each round that has one."""
    if not tells_latency(scenario):
        return {}
    own = [sample for sample in samples if (sample.scenario, sample.peer) == (scenario.name, peer)]
    found = {sample.round: percentile(sample.delays, share) for sample in own}
    return {number: value for number, value in found.items() if value > 0}


def _added(samples: Sequence[Sample], scenario: Scenario, peer: str, share: float) -> Spread | None:
    """Return the latency that the proxy adds to a direct call in the same round, at this percentile."""
    own, direct = (_latencies(samples, scenario, name, share) for name in (peer, DIRECT))
    return spread([own[number] - direct[number] for number in sorted(own.keys() & direct.keys())])


def relative(
    samples: Sequence[Sample], scenario: Scenario, peer: str, other: str, *, judge: str = BASE
) -> Spread | None:
    """Return a peer's figure relative to another's in the same rounds; None if that of ``judge`` varies widely."""
    rounds = sorted({sample.round for sample in samples if sample.scenario == scenario.name})
    if refusal(_column(samples, scenario, judge, rounds)) is not None:
        return None
    return spread(ratios(_column(samples, scenario, peer, rounds), _column(samples, scenario, other, rounds)))


def figure_of(sample: Sample, measure: Measure) -> float | None:
    """Return the figure of a sample; None if it does not count."""
    if measure in {"cpu", "rotation"}:
        return sample.cpu_us
    if measure == "throughput":
        return sample.megabytes_per_second
    if measure == "events":
        return percentile(sample.event_delay, 0.5) if sample.event_delay else None
    return sample.peak_mib if measure == "slow" else sample.rss_mib


def _row(
    samples: Sequence[Sample], scenario: Scenario, peer: str, rounds: Sequence[int], base: Sequence[float | None]
) -> Row | None:
    own = [sample for sample in samples if (sample.scenario, sample.peer) == (scenario.name, peer)]
    if not own:
        return None
    column = _column(samples, scenario, peer, rounds)
    p99, p99_of_base = (_latencies(samples, scenario, name, 0.99) for name in (peer, BASE))
    before = BEFORE.get(peer)
    histogram = merged(sample.delays for sample in own)
    return Row(
        peer=peer,
        figure=spread([value for value in column if value is not None]),
        ratio=spread(ratios(column, base)),
        ratio_to_envoy=relative(samples, scenario, peer, ENVOY, judge=ENVOY) if scenario.mix else None,
        ratio_to_before=None if before is None else relative(samples, scenario, peer, before, judge=before),
        p50_us=percentile(histogram, 0.5),
        p99_us=percentile(histogram, 0.99),
        p99_ratio=spread([p99[number] / p99_of_base[number] for number in sorted(p99.keys() & p99_of_base.keys())]),
        added_p50_us=_added(samples, scenario, peer, 0.5),
        added_p99_us=_added(samples, scenario, peer, 0.99),
        per_second=sum(sample.per_second for sample in own) / len(own),
        kernel_share=_median(own, "kernel_share"),
        native_share=_median(own, "native_share"),
        core_free=_median(own, "core_free"),
        process_us=_by_process(own),
        remarks=tuple(_remarks(own, scenario)),
    )


def _median(own: Sequence[Sample], key: str) -> float | None:
    found = spread([sample.seen[key] for sample in own if sample.seen.get(key) is not None])
    return None if found is None else found.middle


def _by_process(own: Sequence[Sample]) -> dict[str, float]:
    """Return the CPU per request of each process, over all rounds."""
    right = [sample for sample in own if sample.cpu_us is not None and len(sample.seen.get("cpu_of", ())) > 1]
    requests = sum(sample.seen["requests"] for sample in right)
    names = right[0].seen["cpu_of"] if right else ()
    return {name: sum(sample.seen["cpu_of"][name] for sample in right) / requests * 1e6 for name in names}


def _column(samples: Sequence[Sample], scenario: Scenario, peer: str, rounds: Sequence[int]) -> list[float | None]:
    """Return the figure of each round. For idle memory only the first round counts, before any load."""
    found = {
        sample.round: figure_of(sample, scenario.measure)
        for sample in samples
        if (sample.scenario, sample.peer) == (scenario.name, peer)
    }
    if scenario.measure == "memory":
        return [found.get(min(rounds, default=0))]
    return [found.get(number) for number in rounds]


def _remarks(own: Sequence[Sample], scenario: Scenario) -> list[str]:
    remarks = []
    errors: dict[str, int] = {}
    for sample in own:
        for kind, count in sample.errors.items():
            errors[kind] = errors.get(kind, 0) + count
    if errors:
        remarks.append("not as expected: " + ", ".join(f"{count} x {kind}" for kind, count in sorted(errors.items())))
    if any(sample.is_wrong for sample in own):
        remarks.append("a round with more than 1 % of wrong answers has no figure")
    calls, unanswered = (sum(values) for values in zip(*((one.calls, one.unanswered) for one in own), strict=True))
    if tells_latency(scenario) and calls:
        remarks.append(
            f"{unanswered:,} of {calls:,} calls not answered" if unanswered else f"all {calls:,} calls answered"
        )
    late = sum(sample.seen.get("late", 0) for sample in own)
    if late:
        remarks.append(f"{late} requests left late")
    if scenario.fresh_tokens and any(sample.reused for sample in own):
        remarks.append("there were too few new tokens: some were used twice")
    if scenario.crowd:
        reopened = sum(sample.seen.get("reopened", 0) for sample in own)
        remarks.append(f"{reopened:,} connections of the flood were opened again")
    rotations = sum(sample.seen.get("rotations", 0) for sample in own)
    if scenario.measure == "rotation":
        remarks.append(f"{rotations} rotations")
    return remarks
