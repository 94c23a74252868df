"""Turns samples into tables: for each scenario, each peer's figure and its ratio to the base in the same rounds.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.histogram import merged, percentile
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
_MANY: Final = 1000  # connections: the p99 shows the fairness of scheduling


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Results of one peer over all rounds. ``ratio`` is None if there is none."""

    peer: str
    figure: Spread | None
    ratio: Spread | None
    p50_us: float
    p99_us: float
    p99_ratio: Spread | None  # to the base in the same round, where the load does not depend on the answers
    added_p99_us: Spread | None  # above the p99 of the same load without a proxy, in the same round
    per_second: float
    kernel_share: float | None  # of the CPU time, with the warm-up
    remarks: tuple[str, ...]


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
    """Tell if the p99 is a figure of interest: a schedule, a flood beside the load, or very many connections."""
    return scenario.measure == "cpu" and bool(scenario.rate or scenario.beside or scenario.connections >= _MANY)


def _p99s(samples: Sequence[Sample], scenario: Scenario, peer: str) -> dict[int, float]:
    """Return the p99 of each round that has one."""
    if not tells_latency(scenario):
        return {}
    own = [sample for sample in samples if (sample.scenario, sample.peer) == (scenario.name, peer)]
    return {sample.round: sample.p99_us for sample in own if sample.p99_us > 0}


def relative(samples: Sequence[Sample], scenario: Scenario, peer: str, other: str) -> Spread | None:
    """Return one peer's figure relative to another's in the same rounds; None if the base spread too wide."""
    rounds = sorted({sample.round for sample in samples if sample.scenario == scenario.name})
    if refusal(_column(samples, scenario, BASE, rounds)) is not None:
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
    p99, p99_of_base, p99_of_none = (_p99s(samples, scenario, name) for name in (peer, BASE, DIRECT))
    histogram = merged(sample.event_delay if scenario.measure == "events" else sample.latency for sample in own)
    return Row(
        peer=peer,
        figure=spread([value for value in column if value is not None]),
        ratio=spread(ratios(column, base)),
        p50_us=percentile(histogram, 0.5),
        p99_us=percentile(histogram, 0.99),
        p99_ratio=spread([p99[number] / p99_of_base[number] for number in sorted(p99.keys() & p99_of_base.keys())]),
        added_p99_us=spread([p99[number] - p99_of_none[number] for number in sorted(p99.keys() & p99_of_none.keys())]),
        per_second=sum(sample.per_second for sample in own) / len(own),
        kernel_share=None if (share := _kernel_share(own)) is None else share.middle,
        remarks=tuple(_remarks(own, scenario)),
    )


def _kernel_share(own: Sequence[Sample]) -> Spread | None:
    shares = [sample.seen.get("kernel_share") for sample in own]
    return spread([share for share in shares if share is not None])


def _column(samples: Sequence[Sample], scenario: Scenario, peer: str, rounds: Sequence[int]) -> list[float | None]:
    """Return the figure in each round. Memory at rest is that of the first round: later, everything was in use."""
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
