"""Requests by the engine that served them, from the sidecars' own metrics."""

from __future__ import annotations

import re
import urllib.request
from collections import Counter
from collections.abc import Iterable
from typing import Final

_LINE: Final = re.compile(r'^sidecar_engine_requests_total\{[^}]*engine="(\w+)"[^}]*\} (\S+)$', re.MULTILINE)


def requests_by_engine(probes: Iterable[str]) -> Counter[str]:
    """Return the finished requests of all sidecars with these probe listeners, by engine."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    found: Counter[str] = Counter()
    for address in probes:
        with opener.open(f"http://{address}/metrics", timeout=10) as answer:
            found += parse_requests(answer.read().decode())
    return found


def parse_requests(metrics: str) -> Counter[str]:
    """Return the finished requests of both directions by engine; empty without the native engine's metric."""
    found: Counter[str] = Counter()
    for engine, count in _LINE.findall(metrics):
        found[engine] += int(float(count))
    return found


def native_share(before: Counter[str], after: Counter[str]) -> float | None:
    """Return the native share of the requests between two readings; None if there were none."""
    grown = after - before
    return grown["native"] / grown.total() if grown else None
