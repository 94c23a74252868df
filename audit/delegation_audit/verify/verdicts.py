"""Verdicts on record streams: lines that were changed, removed, inserted or moved, and the proven part of each run.

A changed line breaks the link of the line after it; a removed line breaks the link across the gap. If the chain links
the records around a gap, the records between were never written: the process lost them.

The chain alone proves nothing against whoever can write the file, and so can compute all of it again. A checkpoint
does: the token service signed the hash of one line, and so every line before it. The token service's own records hold
these checkpoints as well: if they are given too, a truncated or missing run is found.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby, pairwise
from typing import Final

from delegation_audit.verify.streams import Claim, Run, Stored, Streams
from delegation_core.checkpoint import Checkpoint, CheckpointError, parse_checkpoint
from delegation_core.console.counts import pluralise
from delegation_core.errors import Denied
from delegation_core.keyset import KeySet

_SHOWN: Final = 3  # workloads of one run


class Kind(StrEnum):
    """Kinds of findings: stable codes for machines."""

    CHANGED = "changed"
    REMOVED = "removed"
    INSERTED = "inserted"
    REORDERED = "reordered"
    REPEATED = "repeated"
    TWO_WORKLOADS = "two_workloads"
    LOST = "lost"
    BEGINS_LATE = "begins_late"
    TAIL_REMOVED = "tail_removed"
    RUN_MISSING = "run_missing"
    FALSE_CHECKPOINT = "false_checkpoint"
    UNKNOWN_KEY = "unknown_key"
    NOT_COUNTERSIGNED = "not_countersigned"
    UNCHAINED = "unchained"
    UNREADABLE = "unreadable"


MEANINGS: Final[dict[Kind, str]] = {
    Kind.CHANGED: "a line does not match the hash in the line after it",
    Kind.REMOVED: "lines are missing that existed when the line after them was written",
    Kind.INSERTED: "a second line claims the number of a line in the chain",
    Kind.REORDERED: "lines come after lines that were written later",
    Kind.REPEATED: "a line appears again",
    Kind.TWO_WORKLOADS: "lines of one run name several workloads: lines were inserted, or its identity changed",
    Kind.LOST: "numbers are missing, and the chain spans the gap: the process could not write these records",
    Kind.BEGINS_LATE: "the first lines of a run are not in these files: removed, or rotated away",
    Kind.TAIL_REMOVED: "the token service countersigned a later line than the last line in these files",
    Kind.RUN_MISSING: "the token service countersigned a run that has no line in these files",
    Kind.FALSE_CHECKPOINT: "a checkpoint is not the token service's, or does not match the line in these files",
    Kind.UNKNOWN_KEY: "a checkpoint is signed by a key that was not given",
    Kind.NOT_COUNTERSIGNED: "a run has no valid checkpoint, and --countersigned requires one",
    Kind.UNCHAINED: "records without a hash: of a version before 0.2, or the hashes were removed",
    Kind.UNREADABLE: "lines that are not records",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One contradiction. ``places`` are FILE:LINE, the evidence first."""

    kind: Kind
    text: str
    run: str | None = None
    places: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunVerdict:
    """One run. ``countersigned``: the last record that a valid checkpoint covers, and its time, seconds since 1970."""

    run: str
    workload: str | None
    records: int
    first: int
    last: int
    stopped: bool
    countersigned: tuple[int, int] | None
    findings: int

    @property
    def uncovered(self) -> int:
        """Count of record numbers after the last checkpoint: these records can be rewritten without a trace."""
        return self.last - (self.countersigned[0] if self.countersigned else 0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result: all runs and all findings. ``signatures_checked``: False if no keys were given."""

    runs: Sequence[RunVerdict]
    findings: Sequence[Finding]
    signatures_checked: bool

    @property
    def summary(self) -> tuple[int, str]:
        """Number of findings, and a sentence."""
        count = len(self.findings)
        if count:
            return count, f"{pluralise(count, 'contradiction')} in {pluralise(len(self.runs), 'run')}"
        return 0, f"{pluralise(len(self.runs), 'run')}, and no line was changed, removed, inserted or moved"


def judge(streams: Streams, keys: KeySet | None, *, countersigned: bool = False) -> Verdict:
    """Judge all runs of the streams.

    ``keys``: the token service's; if None, signatures are not checked. ``countersigned``: report each run without a
    valid checkpoint.
    """
    findings: list[Finding] = []
    if streams.unreadable:
        count = streams.unreadable
        text = pluralise(count, "line is not a record", "lines are not records")
        findings.append(Finding(kind=Kind.UNREADABLE, text=text, places=tuple(streams.unreadable_places)))
    if streams.unchained:
        findings.append(
            Finding(
                kind=Kind.UNCHAINED,
                text=f"{pluralise(streams.unchained, 'record is', 'records are')} without the hash of the line before",
                places=tuple(streams.unchained_places),
            )
        )
    runs = []
    claims = _group_claims(streams)
    for name, run in streams.runs.items():
        chain, found = _chain(streams, run)
        if len(run.workloads) > 1:
            named = ", ".join(sorted(run.workloads)[:_SHOWN])
            text = f"lines of run {name} name {len(run.workloads)} workloads: {named}"
            found.append(Finding(kind=Kind.TWO_WORKLOADS, text=text, run=name))
        checkpoints, of_checkpoints = _checkpoints(_take_claims(run, claims), chain, keys)
        found += of_checkpoints
        if countersigned and not checkpoints:
            found.append(Finding(kind=Kind.NOT_COUNTERSIGNED, text=f"{_who(run)} has no valid checkpoint", run=name))
        last = max(checkpoints, key=lambda one: one.head.seq, default=None)
        runs.append(
            RunVerdict(
                run=name,
                workload=run.workload,
                records=len(chain),
                first=chain[0].seq,
                last=chain[-1].seq,
                stopped=run.stopped,
                countersigned=None if last is None else (last.head.seq, last.at),
                findings=len(found),
            )
        )
        findings += found
    findings += [_report_missing(one[-1], keys) for of_run in claims.values() for one in of_run.values()]
    return Verdict(runs, findings, keys is not None)


def _group_claims(streams: Streams) -> dict[str, dict[str, list[Claim]]]:
    """Group the streams' checkpoints by run, then by the workload for which they were signed."""
    claims: dict[str, dict[str, list[Claim]]] = {}
    for one in streams.claims:
        claims.setdefault(one.run, {}).setdefault(one.workload, []).append(one)
    return claims


def _take_claims(run: Run, claims: dict[str, dict[str, list[Claim]]]) -> list[Claim]:
    """Remove and return a run's checkpoints. The token service signs any run name for any workload, but names that
    workload: a checkpoint for a workload that is not the run's proves nothing about the run.
    """
    of_run = claims.get(run.name, {})
    return [one for workload in (run.workloads or set(of_run)) for one in of_run.pop(workload, [])]


def _chain(streams: Streams, run: Run) -> tuple[list[Stored], list[Finding]]:
    """Return one record of each number of a run, and the findings on order, gaps and links."""
    found: list[Finding] = []
    chain = _choose_records(streams, run, found)
    moved = list(run.find_out_of_order())
    if moved:
        places = tuple(streams.place(run, index) for index in moved[:1])
        text = f"{pluralise(len(moved), 'line')} of {_who(run)} out of order"
        found.append(Finding(kind=Kind.REORDERED, text=text, run=run.name, places=places))
    first = chain[0]
    if first.seq > 1:
        text = f"{_records(1, first.seq - 1)} of {_who(run)} {_are(1, first.seq - 1)} not here"
        found.append(_make_finding(streams, run, Kind.BEGINS_LATE, text, first))
    elif first.prev is not None:
        text = f"record 1 of {_who(run)} claims a line before it"
        found.append(_make_finding(streams, run, Kind.CHANGED, text, first))
    found += _find_broken_links(streams, run, chain)
    return chain, found


def _choose_records(streams: Streams, run: Run, found: list[Finding]) -> list[Stored]:
    """Return one record of each number: of several, the one whose hash the next record holds. Append findings."""
    chain: list[Stored] = []
    groups = [list(group) for _, group in groupby(run.sort_by_number(), key=lambda one: one.seq)]
    for number, group in enumerate(groups):
        chosen = group[0]
        different = {one.own: one for one in reversed(group)}
        if len(different) > 1:
            after = groups[number + 1] if number + 1 < len(groups) else []
            before = chain[-1].own if chain else None
            prevs = {one.prev for one in after}
            chosen = max(different.values(), key=lambda one: (one.own in prevs, one.prev == before, -one.order))
            for one in different.values():
                if one is not chosen:
                    text = f"a second record {one.seq} of {_who(run)} does not belong to its chain"
                    found.append(_make_finding(streams, run, Kind.INSERTED, text, one, chosen))
        elif len(group) > 1:
            text = f"record {chosen.seq} of {_who(run)} appears {len(group)} times"
            found.append(_make_finding(streams, run, Kind.REPEATED, text, *group[1:3]))
        chain.append(chosen)
    return chain


def _find_broken_links(streams: Streams, run: Run, chain: Sequence[Stored]) -> Iterator[Finding]:
    changed: list[Stored] = []  # adjacent records, each of which differs from the hash in the next record
    for before, after in pairwise(chain):
        linked = after.prev == before.own
        adjacent = after.seq == before.seq + 1
        if linked or not adjacent:
            yield from _find_changed(streams, run, changed)
            changed = []
        if not linked and adjacent:
            changed.append(before)
        elif not adjacent:
            first, last = before.seq + 1, after.seq - 1
            kind, verb = (Kind.LOST, "never written") if linked else (Kind.REMOVED, "removed")
            text = f"{_records(first, last)} of {_who(run)} {_was(first, last)} {verb}"
            yield _make_finding(streams, run, kind, text, before, after)
    yield from _find_changed(streams, run, changed)


def _find_changed(streams: Streams, run: Run, changed: Sequence[Stored]) -> Iterator[Finding]:
    if not changed:
        return
    first, last = changed[0].seq, changed[-1].seq
    if first == last:
        text = f"record {first} of {_who(run)} was changed"
    else:
        text = f"some or all of records {first} to {last} of {_who(run)} were changed"
    yield _make_finding(streams, run, Kind.CHANGED, text, changed[0], changed[-1])


def _checkpoints(
    claims: Sequence[Claim], chain: Sequence[Stored], keys: KeySet | None
) -> tuple[list[Checkpoint], list[Finding]]:
    """Return the checkpoints that match their records, and a finding for each other one."""
    held: list[Checkpoint] = []
    found: list[Finding] = []
    own = {one.seq: one.own for one in chain}
    for one in claims:
        checkpoint = _prove(one, keys)
        if isinstance(checkpoint, Finding):
            found.append(checkpoint)
            continue
        seq, wanted = checkpoint.head.seq, bytes.fromhex(checkpoint.head.hash)
        there = own.get(seq)
        if there is None and seq <= chain[-1].seq:
            if _spans(chain, seq):
                text = f"record {seq} of run {one.run} was countersigned, and the chain spans its gap: it was removed"
                found.append(Finding(kind=Kind.REMOVED, text=text, run=one.run, places=(one.place,)))
            continue  # any other gap already has a finding
        if there is not None and wanted.startswith(there):
            held.append(checkpoint)
        elif there is not None:
            text = f"record {seq} of run {one.run} differs from the one that was countersigned: it was rewritten"
            found.append(Finding(kind=Kind.FALSE_CHECKPOINT, text=text, run=one.run, places=(one.place,)))
        else:
            text = f"record {seq} of run {one.run} was countersigned, and the last one here is {chain[-1].seq}"
            found.append(Finding(kind=Kind.TAIL_REMOVED, text=text, run=one.run, places=(one.place,)))
    return held, found


def _spans(chain: Sequence[Stored], seq: int) -> bool:
    """Return True if the chain links the records around a missing record, as if it had never been written."""
    at = bisect(chain, seq, key=lambda one: one.seq)
    return at > 0 and chain[at].prev == chain[at - 1].own


def _report_missing(claim: Claim, keys: KeySet | None) -> Finding:
    """Return the finding for a countersigned run without any line, or for its checkpoint if that is invalid."""
    checkpoint = _prove(claim, keys)
    if isinstance(checkpoint, Finding):
        return checkpoint
    text = (
        f"run {claim.run} of {claim.workload} was countersigned up to record {checkpoint.head.seq}, and no line of it"
        " is here; give its files too, or ignore run_missing"
    )
    return Finding(kind=Kind.RUN_MISSING, text=text, run=claim.run, places=(claim.place,))


def _prove(claim: Claim, keys: KeySet | None) -> Checkpoint | Finding:
    def because(kind: Kind, text: str) -> Finding:
        text = f"a checkpoint of run {claim.run} {text}"
        return Finding(kind=kind, text=text, run=claim.run, places=(claim.place,))

    try:
        checkpoint = parse_checkpoint(claim.text, workload=claim.workload, run=claim.run)
    except CheckpointError:
        return because(Kind.FALSE_CHECKPOINT, "does not have the format that the token service writes")
    if not claim.by_service and checkpoint.head.seq >= claim.seq:
        return because(Kind.FALSE_CHECKPOINT, "covers a line that was not written before it")
    if keys is None:
        return checkpoint
    key = keys.find(checkpoint.kid)
    if key is None:
        return because(Kind.UNKNOWN_KEY, f"is signed by the key {checkpoint.kid}, which was not given")
    try:
        checkpoint.verify(key)
    except Denied:
        return because(Kind.FALSE_CHECKPOINT, "has an invalid signature")
    return checkpoint


def _make_finding(streams: Streams, run: Run, kind: Kind, text: str, *evidence: Stored) -> Finding:
    places = tuple(dict.fromkeys(streams.place(run, one.order) for one in evidence))
    return Finding(kind=kind, text=text, run=run.name, places=places)


def _who(run: Run) -> str:
    return f"run {run.name}" if run.workload is None else f"{run.workload} (run {run.name})"


def _records(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"records {first} to {last}"


def _was(first: int, last: int) -> str:
    return "was" if first == last else "were"


def _are(first: int, last: int) -> str:
    return "is" if first == last else "are"
