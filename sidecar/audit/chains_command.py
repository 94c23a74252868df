"""``sidecar audit chains``: rebuilds every chain from the records of all witnesses and prints the contradictions.

Exit codes: 0 no findings, 1 findings, 2 a file cannot be read or there is no record in any.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Final

from sidecar.audit.chains import Audit, Chain, rebuild
from sidecar.audit.findings import MEANINGS, Finding, Kind
from sidecar.audit.hops import Hop
from sidecar.audit.log_lines import read_lines
from sidecar.audit.output import add_logs, complain, hang_up, print_json, print_line, print_table
from sidecar.audit.records import Record, RecordError, parse_record
from sidecar.audit.witnesses import missing_witnesses
from sidecar.examples import add_examples

_COMMAND: Final = "sidecar audit chains"
_MOST_PLACES: Final = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_examples(
        parser,
        "sidecar audit chains records/*.jsonl",
        "sidecar audit chains records.jsonl.gz --ignore missing_witness --json  # one kind of finding is known",
    )
    add_logs(parser)
    parser.add_argument("--ignore", action="append", default=[], metavar="KIND", help="a kind of finding to ignore")


def run(arguments: argparse.Namespace) -> int:
    """Audit the record files."""
    unreadable = _Unreadable()
    unknown = sorted(set(arguments.ignore) - set(Kind))
    if unknown:
        return complain(_COMMAND, f"{', '.join(unknown)} is not a kind of finding; there are {', '.join(Kind)}")
    try:
        audit = rebuild(_records(arguments.files, unreadable))
    except OSError as error:
        return complain(_COMMAND, str(error))
    findings = [one for one in (*audit.findings, *unreadable.findings()) if one.kind not in arguments.ignore]
    try:
        if arguments.json:
            print_json(_document(audit, findings))
        else:
            _show(audit, findings)
    except BrokenPipeError:
        return hang_up()
    if not audit.records:  # no records is not the same as no findings
        return complain(_COMMAND, "no line is a record")
    return 1 if findings else 0


class _Unreadable:
    """Lines that are no records: their number, and the places of the first few."""

    def __init__(self) -> None:
        self._count = 0
        self._places: list[str] = []

    def add(self, place: str) -> None:
        self._count += 1
        if len(self._places) < _MOST_PLACES:
            self._places.append(place)

    def findings(self) -> Iterator[Finding]:
        if self._count:
            more = ", …" if self._count > len(self._places) else ""
            lines = "1 line is not a record" if self._count == 1 else f"{self._count} lines are not records"
            yield Finding(Kind.UNREADABLE, f"{lines}: {', '.join(self._places)}{more}")


def _records(files: Sequence[str], unreadable: _Unreadable) -> Iterator[Record]:
    for line in read_lines(files):
        if line.content is None:
            unreadable.add(line.place)
            continue
        try:
            yield parse_record(line.content)
        except RecordError:
            unreadable.add(line.place)


def _document(audit: Audit, findings: Sequence[Finding]) -> dict[str, object]:
    return {
        "records": audit.records,
        "chains": [
            {
                "chain": chain.name,
                "subjects": [{"iss": issuer, "sub": subject} for issuer, subject in chain.subjects],
                "hops": [_hop_document(hop, depth) for depth, hop in chain.hops],
            }
            for chain in audit.chains
        ],
        "outside": audit.outside,
        "findings": [
            {"kind": one.kind, "text": one.text, "chain": one.chain, "records": list(one.records)} for one in findings
        ],
    }


def _hop_document(hop: Hop, depth: int) -> dict[str, object]:
    end = hop.callee or hop.caller
    told = next(iter(hop.records), None)
    return {
        "depth": depth,
        "ts": hop.ts or None,
        "actor": hop.actor,
        "audience": hop.audience,
        "act_chain": None if told is None or told.chain is None else list(told.chain),
        "scope": None if told is None or told.scope is None else sorted(told.scope),
        "jti": None if hop.token is None else hop.token[1],
        "call": hop.call,
        "method": None if end is None else end.method,
        "path": None if end is None else end.path,
        "decision": None if end is None else end.decision,
        "reason": None if end is None else end.reason,
        "status": None if end is None else end.status,
        "witnesses": {
            name.replace(" ", "_"): None if record is None else record.name for name, record in _witnesses(hop).items()
        },
        "missing_witnesses": missing_witnesses(hop),
    }


def _show(audit: Audit, findings: Sequence[Finding]) -> None:
    for chain in audit.chains:
        _show_chain(chain)
    if audit.outside:
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(audit.outside.items()))
        print_line(f"of no chain: {counts}", style="dim")
    hops = sum(len(chain.hops) for chain in audit.chains)
    print_line(f"{_many(len(audit.chains), 'chain')}, {_many(hops, 'hop')}, from {_many(audit.records, 'record')}")
    if not findings and audit.records:
        print_line("nothing found: every hop has its witnesses, and they agree", style="green")
    if not findings:
        return
    print_line(f"{_many(len(findings), 'finding')}:", style="bold red")
    for kind in Kind:
        of_kind = [finding for finding in findings if finding.kind is kind]
        if of_kind:
            print_line(f"{kind} ({len(of_kind)}): {MEANINGS[kind]}", style="bold")
            for finding in of_kind:
                where = f" [chain {finding.chain}]" if finding.chain else ""
                seen = f" (records {', '.join(finding.records)})" if finding.records else ""
                print_line(f"  {finding.text}{where}{seen}")


def _show_chain(chain: Chain) -> None:
    whose = ", ".join(f"{subject} ({issuer})" for issuer, subject in chain.subjects) or "nobody known"
    prefix = _common_prefix(chain)
    left_out = f" ({prefix} left out)" if prefix else ""
    print_line(f"chain {chain.name}, for {whose}{left_out}", style="bold")
    print_table(
        ("hop", "call", "scope", "outcome", "told by"),
        ((number, *_cells(depth, hop, prefix)) for number, (depth, hop) in enumerate(chain.hops, 1)),
    )
    print_line()


def _common_prefix(chain: Chain) -> str:
    """Return ``spiffe://`` and the trust domain, if all workloads of the chain share one."""
    names = {name for _, hop in chain.hops for name in (hop.actor, hop.audience) if name is not None}
    domains = {"/".join(name.split("/")[:3]) for name in names if name.startswith("spiffe://")}
    return domains.pop() if len(domains) == 1 else ""


def _cells(depth: int, hop: Hop, prefix: str) -> tuple[object, ...]:
    call = f"{'  ' * depth}{str(hop).replace(prefix, '') if prefix else hop}"
    told = next(iter(hop.records), None)
    if told is None:
        return call, None, None, "nobody"
    end = hop.callee or hop.caller
    said = () if end is None else (end.decision, end.status, end.reason)
    outcome = "issued, not used" if end is None else " ".join(str(word) for word in said if word is not None)
    return call, " ".join(sorted(told.scope or ())) or None, outcome, _told_by(hop)


def _told_by(hop: Hop) -> str:
    by = {name: record for name, record in _witnesses(hop).items() if record is not None}
    missing = missing_witnesses(hop)
    if missing:
        return f"MISSING: {', '.join(missing)}"
    return "all three" if len(by) == 3 else ", ".join(by)


def _witnesses(hop: Hop) -> dict[str, Record | None]:
    """Return the record of each witness. For an unused token the caller's evidence is its record of the exchange."""
    caller = hop.caller or (None if hop.callee else hop.exchanged)
    return {"caller": caller, "token service": hop.issued, "callee": hop.callee}


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
