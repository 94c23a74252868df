"""Audits of evidence: sets of records in a database in memory, many at once where a test has many."""

import functools
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from delegation_audit.chains.choice import EVERYTHING, Choice
from delegation_audit.chains.database import Block, open_database
from delegation_audit.chains.examination import Audit, examine
from delegation_audit.chains.findings import Finding
from tests.audit.evidence import Evidence

_IDENTIFIERS = (
    "run", "txn", "jti_in", "jti_out", "parent_jti", "fp", "call_in", "call_out", "request_id", "trace_id",
)  # fmt: skip


def read(evidence: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records as their streams would hold them; those with a number keep it."""
    numbers: dict[str, int] = {}
    read = []
    for members in evidence:
        run = members["run"]
        numbers[run] = members["seq"] or numbers.get(run, 0) + 1
        chain = members["chain"]
        depth = members["chain_depth"] or (None if chain is None else len(chain))
        read.append({**members, "seq": numbers[run], "chain_depth": depth})
    return read


def rebuild(records: Iterable[dict[str, Any]], choice: Choice = EVERYTHING) -> Audit:
    """Audit numbered records."""
    lines = [json.dumps(one, separators=(",", ":")) for one in records]
    with open_database(threads=1) as database:
        database.read([Block(0, "\n".join(lines).encode())])
        database.judge()
        return examine(database, choice)


def audit(*evidence: Evidence) -> Audit:
    return rebuild(read(one for told in evidence for one in told.values()))


def marked(cases: Iterable[Evidence]) -> list[dict[str, Any]]:
    """Return the records of many sets as one set, each with identifiers of its own."""
    return [
        {**one, **{name: f"#{number}#{one[name]}" for name in _IDENTIFIERS if one[name] is not None}}
        for number, case in enumerate(cases)
        for one in read(case.values())
    ]


def findings_of_each(cases: Sequence[Evidence]) -> list[list[Finding]]:
    """Audit many sets at once, each with identifiers of its own, and return the findings of each as if it were alone.

    One audit costs about as much for a hundred chains as for one.
    """
    found: list[list[Finding]] = [[] for _ in cases]
    for finding in rebuild(marked(cases)).findings:
        (number,) = {int(mark) for mark in re.findall(r"#(\d+)#", f"{finding.text} {finding.chain} {finding.records}")}
        strip = functools.partial(re.sub, r"#\d+#", "")
        chain = None if finding.chain is None else strip(finding.chain)
        found[number].append(Finding(finding.kind, strip(finding.text), chain, tuple(map(strip, finding.records))))
    return found
