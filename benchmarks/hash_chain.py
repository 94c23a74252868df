"""Cost of the hash chain for each record: the same records encoded without and with it, in turns, in one process.

    python -m benchmarks.hash_chain

Measures the CPU time of this thread, so that other work on the machine matters little. A round encodes the same batches
both ways; the cost is the difference. Prints the median and the least of many rounds.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from benchmarks.machine import described
from delegation_core.records.hash_chain import HashChain
from delegation_core.records.record import FIELDS, Record
from delegation_core.records.record_text import encode
from sidecar.observe.writer import AT_ONCE

BATCHES: Final = (1, 8, AT_ONCE)  # records encoded together: fewer with little traffic
_BLANK: Final[dict[str, Any]] = {**dict.fromkeys(FIELDS), "event": "request", "direction": "inbound"}


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of CPU for each record, in batches of one size."""

    batch: int
    plain: float
    median: float
    least: float


def measure(batch: int, *, records: int = 6400, rounds: int = 31, seed: int = 1) -> Cost:
    """Measure one size of batch, with other records in every round."""
    rng = random.Random(seed)  # noqa: S311 - made-up records
    ways: dict[str, Callable[[Sequence[Record]], bytes]] = {"plain": _unchained, "chained": HashChain(encode)}
    plain, extra = [], []
    for number in range(rounds):
        batches = [[_record(rng, seq) for seq in range(batch)] for _ in range(max(1, records // batch))]
        taken = {way: _cpu_us(ways[way], batches) for way in sorted(ways, reverse=number % 2 == 0)}
        plain.append(taken["plain"])
        extra.append(taken["chained"] - taken["plain"])
    return Cost(batch, median(plain), median(extra), min(extra))


def _unchained(records: Sequence[Record]) -> bytes:
    return b"\n".join((*encode(records), b""))


def _cpu_us(way: Callable[[Sequence[Record]], bytes], batches: Sequence[Sequence[Record]]) -> float:
    begun = time.thread_time_ns()
    for batch in batches:
        way(batch)
    return (time.thread_time_ns() - begun) / 1000 / sum(map(len, batches))


def _record(rng: random.Random, seq: int) -> Any:
    return {
        **_BLANK,
        "seq": seq,
        "ts": f"2026-01-01T00:00:00.{rng.randrange(10**6):06d}Z",
        "run": "0123456789abcdef",
        "workload": "spiffe://acme.example/ns/agents/sa/writer",
        "request_id": f"{rng.getrandbits(128):032x}",
        "trace_id": f"{rng.getrandbits(128):032x}",
        "peer": f"spiffe://acme.example/ns/agents/sa/planner-{rng.randrange(50)}",
        "subject": f"user-{rng.randrange(5000)}@acme.example",
        "path": f"/customers/{rng.randrange(10**9)}/" + "x" * rng.randrange(60),
        "decision": "allow",
        "total_ms": rng.random() * 20,
    }


def main() -> int:
    """Print a line for each size of batch."""
    arguments = argparse.ArgumentParser(description="Measures the cost of the hash chain for each record.")
    arguments.add_argument("--rounds", type=int, default=31)
    rounds = arguments.parse_args().rounds
    print(", ".join(described().values()))
    print("batch  without the chain  the chain adds (median)  (least)   microseconds of CPU for each record")
    for batch in BATCHES:
        cost = measure(batch, rounds=rounds)
        print(f"{cost.batch:5}  {cost.plain:17.2f}  {cost.median:23.2f}  {cost.least:7.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
