"""Memory per connection and per request in progress, from measurements with two different numbers of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.sample import Sample
from benchmarks.scenarios import SCENARIOS, Scenario

PAIRS: Final = (
    ("idle connection of HTTP/1.1", "memory-100", "memory-1000"),
    ("idle connection of HTTP/2", "http2-memory-100", "http2-memory-1000"),
    ("request in progress by HTTP/2, 100 on each connection", "http2-open-100", "http2-open-1000"),
)
"""What is held, and the scenarios that hold a few and many of them."""


def kib_for_each(samples: Sequence[Sample], peer: str, fewer: str, more: str) -> float | None:
    """Return the growth in KiB per held connection or request between two scenarios; None if one was not measured.

    Only the first round counts: later rounds reuse freed memory.
    """
    few, many = _resident(samples, peer, fewer), _resident(samples, peer, more)
    if few is None or many is None:
        return None
    return (many - few) * 1024 / (_count(more) - _count(fewer))


def _resident(samples: Sequence[Sample], peer: str, name: str) -> float | None:
    own = {one.round: one.rss_mib for one in samples if (one.scenario, one.peer) == (name, peer)}
    return own.get(0)


def _count(name: str) -> int:
    scenario: Scenario = next(one for one in SCENARIOS if one.name == name)
    return scenario.connections * max(1, scenario.streams)
