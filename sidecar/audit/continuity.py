"""Checks that a record stream is complete: each run numbers its records from 1 without gaps or repeats."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.audit.findings import Finding, Kind
from sidecar.audit.records import Record


class Continuity:
    """The record numbers of all runs, noted in any order."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[int, str]] = {}
        self._workloads: dict[str, str] = {}
        self._findings: list[Finding] = []

    def is_new(self, record: Record) -> bool:
        """Note a record. False if its number in its run is already in use: the first record counts."""
        numbers = self._seen.setdefault(record.run, {})
        if record.workload is not None:
            self._workloads.setdefault(record.run, record.workload)
        if record.seq not in numbers:
            numbers[record.seq] = record.digest
            return True
        if numbers[record.seq] == record.digest:
            kind, text = Kind.REPEATED_RECORD, f"record {record.seq} of {self._who(record.run)} appears again"
        else:
            kind, text = Kind.FORGED_RECORD, f"two different records are number {record.seq} of {self._who(record.run)}"
        self._findings.append(Finding(kind, text, record.txn, (record.name,)))
        return False

    def findings(self) -> Iterator[Finding]:
        """Return the faults of all streams, once all records are noted."""
        yield from self._findings
        for run in sorted(self._seen):
            yield from self._gaps(run)

    def _gaps(self, run: str) -> Iterator[Finding]:
        before = 0
        for number in sorted(self._seen[run]):
            if number > before + 1:
                first, last = before + 1, number - 1
                names = tuple(dict.fromkeys((f"{run}/{first}", f"{run}/{last}")))
                which = f"record {first} is" if first == last else f"records {first} to {last} are"
                yield Finding(Kind.RECORDS_LOST, f"{which} missing from {self._who(run)}", None, names)
            before = number

    def _who(self, run: str) -> str:
        workload = self._workloads.get(run)
        return f"run {run}" if workload is None else f"{workload} (run {run})"
