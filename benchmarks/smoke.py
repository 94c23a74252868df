"""Wide limits for CI, to find a slowdown of several times. Pure.

Only ratios and counts, since the machines of CI have noisy neighbours. Each limit is well above the measured value, and
is lowered as the sidecar becomes faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from benchmarks.axes import ALL
from benchmarks.ratios import ratios, spread
from benchmarks.results import Results
from benchmarks.tables import BASE, figure_of

MAX_RATIO: Final = {  # scenario: CPU per request of the sidecar, relative to a peer's in the same round
    ("inbound", "haproxy"): 16.0,
    ("inbound", "aiohttp"): 2.0,
    ("fresh-token", "haproxy"): 40.0,
    ("outbound", "haproxy"): 30.0,
    ("new-connection", "haproxy"): 6.0,
    ("day-50", "haproxy"): 15.0,
}
MAX_IDLE_MIB: Final = 60.0  # includes unused code, which stays resident for two seconds
MAX_CONNECTION_KIB: Final = 90.0
SMOKE: Final = (
    "memory-0",
    "memory-1000",
    *dict.fromkeys(name for name, _ in MAX_RATIO),
    "forged",
    "impersonation",
)

_SUBJECT: Final = "sidecar"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of one limit. A value that could not be measured exceeds it."""

    what: str
    value: float | None
    limit: float

    @property
    def kept(self) -> bool:
        """True if the value is within the limit."""
        return self.value is not None and self.value <= self.limit

    def __str__(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:.2f}"
        return f"{'kept  ' if self.kept else 'BROKEN'} {self.what}: {value} (at most {self.limit:g})"


def needed(scenario: str, peer: str) -> bool:
    """Return True if a limit needs this peer in this scenario. The base is always needed."""
    return peer in {_SUBJECT, BASE} or (scenario, peer) in MAX_RATIO


def judged(results: Results) -> list[Verdict]:
    """Compare each limit with the measured value."""
    verdicts = [
        Verdict(f"{name}, CPU relative to {peer}", _ratio(results, name, peer), limit)
        for (name, peer), limit in MAX_RATIO.items()
        if peer == BASE or any(one.name == peer for one in results.peers)
    ]
    idle, held = _least(results, "memory-0"), _least(results, "memory-1000")
    verdicts.append(Verdict("resident at rest, MiB", idle, MAX_IDLE_MIB))
    each = None if idle is None or held is None else max(0.0, held - idle) * 1024 / 1000
    verdicts.append(Verdict("each idle connection, KiB", each, MAX_CONNECTION_KIB))
    verdicts += [Verdict(f"{name}, answers not as expected", _wrong(results, name), 0) for name in SMOKE]
    return verdicts


def _figures(results: Results, name: str, peer: str) -> dict[int, float | None]:
    measure = next(one.measure for one in ALL if one.name == name)
    own = [sample for sample in results.samples if (sample.scenario, sample.peer) == (name, peer)]
    return {sample.round: figure_of(sample, measure) for sample in own}


def _ratio(results: Results, name: str, peer: str) -> float | None:
    own, other = _figures(results, name, _SUBJECT), _figures(results, name, peer)
    rounds = sorted(own.keys() & other.keys())
    found = spread(ratios([own[number] for number in rounds], [other[number] for number in rounds]))
    return None if found is None else found.middle


def _least(results: Results, name: str) -> float | None:
    """Return the value of the first round, before any load."""
    figures = _figures(results, name, _SUBJECT)
    return figures[min(figures)] if figures else None


def _wrong(results: Results, name: str) -> float | None:
    own = [sample for sample in results.samples if (sample.scenario, sample.peer) == (name, _SUBJECT)]
    return float(sum(sum(sample.errors.values()) for sample in own)) if own else None
