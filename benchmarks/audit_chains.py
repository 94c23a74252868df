"""Cost of ``sidecar audit chains`` beside plain DuckDB, which reads the same files and aggregates each key, in one run.

``python -m benchmarks.audit_chains --records 10000000`` writes a labelled set (13 GB), reads it by both in turn, and
compares CPU time, since wall time moves with the machine's neighbours. It also compares verdicts with labels.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.labelled import write
from delegation_audit.chains.database import Database, open_database
from delegation_audit.chains.examination import examine
from delegation_audit.chains.inputs import plain_files, read_into
from delegation_core.records.folders import RECORDS, record_files
from delegation_core.records.record import KEYS

_TYPES: Final = {
    "text": "VARCHAR", "texts": "VARCHAR[]", "count": "BIGINT", "milliseconds": "DOUBLE", "flag": "BOOLEAN",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of CPU and of wall time."""

    cpu_s: float
    wall_s: float


def measured(step: Callable[[], object]) -> Cost:
    """Return the cost of a step."""
    cpu, wall = time.process_time(), time.monotonic()
    step()
    return Cost(time.process_time() - cpu, time.monotonic() - wall)


def plain(files: list[str], memory_mib: int | None) -> None:
    """Read the files by DuckDB alone, with two threads: count the lines, and find the greatest value of each key."""
    import duckdb

    columns = ", ".join(f"'{name}': '{_TYPES[key.kind]}'" for name, key in KEYS.items())
    values = ", ".join(f"max({name})" for name in KEYS)
    statement = f"SELECT count(*), {values} FROM read_json($1, columns = {{{columns}}}, format = 'newline_delimited')"  # noqa: S608
    limit = "50%" if memory_mib is None else f"{memory_mib}MiB"
    with duckdb.connect(config={"threads": 2, "memory_limit": limit}) as connection:
        connection.execute(statement, [files]).fetchall()


def wrong_chains(database: Database, labels: dict[str, list[str]]) -> tuple[int, int]:
    """Return the number of chains whose verdict differs from their label, and the number of all chains."""
    found: dict[str, set[str]] = {}
    for chain, kind in database.rows("SELECT DISTINCT chain, kind FROM findings WHERE chain IS NOT NULL"):
        found.setdefault(json.loads(chain), set()).add(kind)
    ((chains,),) = database.rows("SELECT count(DISTINCT chain) FROM hops WHERE chain IS NOT NULL")
    names = found.keys() | labels.keys()
    return sum(found.get(name, set()) != set(labels.get(name, ())) for name in names), chains


def main() -> None:
    """Make a set, measure both, and print the ratio."""
    parser = argparse.ArgumentParser(description="Compare the audit of chains with plain DuckDB.")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--memory", type=int, help="memory limit of both, in MiB (default: half of the machine's)")
    parser.add_argument("--folder", type=Path, help="keep the set there, and take one that is there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        told = folder / "labels"
        if not told.exists():
            told.write_text(json.dumps(write(folder, arguments.records, seed=arguments.seed)))
        files = record_files([str(folder)], endings=RECORDS)
        compare(files, json.loads(told.read_text()), arguments.memory)


def compare(files: list[str], labels: dict[str, list[str]], memory_mib: int | None) -> None:
    """Measure both and print the costs."""
    beside = measured(lambda: plain(files, memory_mib))
    print(f"plain DuckDB: {beside.cpu_s:.1f} s of CPU, {beside.wall_s:.1f} s")
    with open_database(files=plain_files(files), memory_mib=memory_mib) as database:
        read = measured(lambda: read_into(database, files))
        judge = measured(database.judge)
        show = measured(lambda: examine(database))
        wrong, chains = wrong_chains(database, labels)
        records = database.records
    cpu_s, wall_s = (sum(getattr(one, name) for one in (read, judge, show)) for name in ("cpu_s", "wall_s"))
    parts = f"read {read.cpu_s:.1f}, judge {judge.cpu_s:.1f}, choose {show.cpu_s:.1f}"
    print(f"audit chains: {cpu_s:.1f} s of CPU ({parts}), {wall_s:.1f} s, of {records} records")
    print(f"ratio: {cpu_s / beside.cpu_s:.2f} of CPU, {wall_s / beside.wall_s:.2f} of time")
    print(f"right: {1 - wrong / chains:.4%} ({wrong} of {chains} chains wrong)")
    print(f"memory at most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


if __name__ == "__main__":
    main()
