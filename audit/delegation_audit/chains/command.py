"""``sidecar audit chains``: rebuilds every chain from the records of all witnesses and prints contradictions.

Exit codes: 0 no findings, 1 findings, 2 a file or an engine cannot be read, or there is no record.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from delegation_audit.chains.chain_list import depth_of, is_broken, show_list
from delegation_audit.chains.choice import EVERYTHING, Choice
from delegation_audit.chains.clickhouse import EngineError, examine_table
from delegation_audit.chains.database import Database, MissingError, open_database
from delegation_audit.chains.examination import MOST_CHAINS, Audit, examine
from delegation_audit.chains.findings import MEANINGS, Finding, Kind
from delegation_audit.chains.hops import Chain, Hop
from delegation_audit.chains.inputs import place_of, plain_files, read_into
from delegation_core.console.counts import pluralise
from delegation_core.console.examples import add_examples
from delegation_core.console.output import complain, print_json, print_line, print_table
from delegation_core.records.folders import RECORDS, record_files
from delegation_core.records.reading import Record

_COMMAND: Final = "sidecar audit chains"
_MOST_PLACES: Final = 5
_MOST_WHOLE: Final = 5  # without filters, at most so many chains are printed hop by hop
_FILTERS: Final = {
    "subject": "chains for this subject (`sub`)",
    "actor": "chains in which this workload acted, called or was called",
    "trace": "chains with this W3C trace id",
    "txn": "the chain of this name, as in the list of chains",
    "jti": "chains with this token, or a token derived from it",
    "route": "chains with a call by this route",
    "host": "chains with a call to this host or audience",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_examples(
        parser,
        "sidecar audit chains records/",
        "sidecar audit chains 'logs/*.jsonl.zst' --subject alice --since 2026-11-24",
        "kubectl logs -l app=crm -c sidecar | sidecar audit chains - --json",
        "sidecar audit chains --engine clickhouse://clickhouse.example:8443 --table logs.records --subject alice",
    )
    parser.add_argument(
        "files", nargs="*", metavar="FILE",
        help="records: JSON lines, .gz, .zst or .parquet; a folder, a pattern, or - for standard input",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument(
        "--engine", metavar="URL",
        help="judge there, not files: clickhouse://HOST:PORT/DATABASE, with CLICKHOUSE_USER and CLICKHOUSE_PASSWORD",
    )  # fmt: skip
    parser.add_argument("--table", metavar="NAME", help="the table or view of the engine with the records")
    parser.add_argument(
        "--scratch", metavar="NAME", help="name of a database to create there and drop (default: a random name)"
    )
    add_filters(parser)


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add the options that filter chains and limit output and memory."""
    parser.add_argument("--ignore", action="append", default=[], metavar="KIND", help="a kind of finding to ignore")
    for name, text in _FILTERS.items():
        parser.add_argument(f"--{name}", help=f"show only {text}")
    parser.add_argument("--since", type=_since, metavar="TIME", help="show only chains with a record from then on")
    parser.add_argument("--until", type=_until, metavar="TIME", help="show only chains with a record up to then")
    parser.add_argument(
        "--limit",
        type=int,
        default=MOST_CHAINS,
        metavar="N",
        help="chains to show, worst first (default %(default)s)",
    )
    parser.add_argument(
        "--memory",
        type=int,
        metavar="MIB",
        help="memory to use before spilling to disk (default: half of the machine's or the container's)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Audit record files or the table of an engine, and print the result. Returns the exit code."""
    unknown = unknown_kinds(arguments.ignore)
    if unknown is not None:
        return complain(_COMMAND, unknown)
    if bool(arguments.files) == bool(arguments.engine):
        return complain(_COMMAND, "give files, as sidecar audit chains records/, or an engine by --engine and --table")
    if bool(arguments.table) != bool(arguments.engine) or (arguments.scratch and not arguments.engine):
        return complain(_COMMAND, "--engine and --table need each other; --scratch needs both")
    try:
        audit, findings = _examine(arguments)
    except (OSError, MissingError, EngineError) as error:
        return complain(_COMMAND, str(error))
    if arguments.json:
        print_json(document(audit, findings))
    else:
        _show(audit, findings, chosen=choice_of(arguments) is not EVERYTHING)
    if not audit.records:  # an audit without records must not pass as one without findings
        return complain(_COMMAND, "no row of the table is a record" if arguments.engine else "no line is a record")
    return 1 if findings else 0


def _examine(arguments: argparse.Namespace) -> tuple[Audit, list[Finding]]:
    choice, limit = choice_of(arguments), arguments.limit
    if arguments.engine:
        return examine_table(
            arguments.engine, arguments.table, choice,
            scratch=arguments.scratch, ignore=arguments.ignore, most_chains=limit,
        )  # fmt: skip
    return examine_files(
        record_files(arguments.files, endings=RECORDS), choice,
        ignore=arguments.ignore, most_chains=limit, memory_mib=arguments.memory,
    )  # fmt: skip


def unknown_kinds(ignored: Sequence[str]) -> str | None:
    """Return an error message for values of ``--ignore`` that name no kind of finding; None if all name one."""
    unknown = sorted(set(ignored) - set(Kind))
    return f"{', '.join(unknown)} is not a kind of finding; there are {', '.join(Kind)}" if unknown else None


def choice_of(arguments: argparse.Namespace) -> Choice:
    """Return the filters of the command line; ``EVERYTHING`` itself if there is none."""
    choice = Choice(**{name: getattr(arguments, name) for name in (*_FILTERS, "since", "until")})
    return EVERYTHING if choice == EVERYTHING else choice


def examine_files(
    files: Sequence[str],
    choice: Choice = EVERYTHING,
    *,
    ignore: Sequence[str] = (),
    most_chains: int = MOST_CHAINS,
    memory_mib: int | None = None,
) -> tuple[Audit, list[Finding]]:
    """Read and judge record files. Returns the audit of the chosen chains, and the findings.

    Raises:
        OSError: a file cannot be read; the text names it.
        MissingError: DuckDB is not installed.
    """
    with open_database(files=plain_files(files), memory_mib=memory_mib) as database:
        read_into(database, files)
        database.judge()
        audit = examine(database, choice, ignore=ignore, most_chains=most_chains)
        unreadable = [] if Kind.UNREADABLE in ignore else _unreadable(database, files)
    return audit, [*audit.findings, *unreadable]


def _since(text: str) -> str:
    return _time(text)


def _until(text: str) -> str:
    return _time(text) + ("~" if len(text) == len("2026-11-24") else "")  # ~ sorts after every time of that day


def _time(text: str) -> str:
    try:
        told = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a time; write 2026-11-24 or 2026-11-24T21:04:00Z") from None
    if len(text) == len("2026-11-24"):
        return text
    in_utc = told.replace(tzinfo=told.tzinfo or UTC).astimezone(UTC)
    return in_utc.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _unreadable(database: Database, files: Sequence[str]) -> list[Finding]:
    """Return one finding for all lines that are no records, with the places of the first few; none if there is none."""
    places = sorted(database.unreadable)
    if not places:
        return []
    told = ", ".join(place_of(place, files) for place in places[:_MOST_PLACES])
    more = ", …" if len(places) > _MOST_PLACES else ""
    lines = pluralise(len(places), "line is not a record", "lines are not records")
    return [Finding(Kind.UNREADABLE, f"{lines}: {told}{more}")]


def document(audit: Audit, findings: Sequence[Finding]) -> dict[str, object]:
    """Return the result as ``--json`` prints it."""
    return {
        "records": audit.records,
        "all_chains": audit.all_chains,
        "broken_chains": audit.broken_chains,
        "counts": {kind: audit.counts[kind] for kind in Kind if kind in audit.counts},
        "chains": [
            {
                "chain": chain.name,
                "depth": depth_of(chain),
                "verdict": "broken" if is_broken(chain, audit) else "whole",
                "subjects": [{"iss": issuer, "sub": subject} for issuer, subject in chain.subjects],
                "hops": [_hop_document(hop, depth) for depth, hop in chain.hops],
            }
            for chain in audit.chains
        ],
        "others": [] if audit.others is None else list(audit.others.verdicts),
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
        "allowed": None if end is None else end.allowed,
        "reason": None if end is None else end.reason,
        "status": None if end is None else end.status,
        "witnesses": {
            name.replace(" ", "_"): None if record is None else record.name for name, record in _witnesses(hop).items()
        },
        "missing_witnesses": hop.missing,
    }


def _show(audit: Audit, findings: Sequence[Finding], *, chosen: bool) -> None:
    """Print chains and findings. Without filters, prints many chains only as a list with the option for each."""
    if not chosen and len(audit.chains) > 1:
        show_list(audit)
    if chosen or len(audit.chains) <= _MOST_WHOLE:
        for chain in audit.chains:
            _show_chain(chain)
    if audit.outside:
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(audit.outside.items()))
        print_line(f"outside any chain: {counts}", style="dim")
    hops = sum(len(chain.hops) for chain in audit.chains)
    of = f" of {audit.all_chains}, worst first" if audit.all_chains > len(audit.chains) else ""
    found = pluralise(hops, "hop")
    print_line(f"{pluralise(len(audit.chains), 'chain')}{of}, {found}, from {pluralise(audit.records, 'record')}")
    if not findings and not audit.all_chains and audit.records:
        print_line("no chain to judge: the records hold none, or none satisfies the filters", style="yellow")
        if audit.others is not None and audit.others.chains:
            print_line("without the filters:")
            show_list(audit.others)
    elif not findings and audit.records:
        print_line("nothing found: every hop has its witnesses, and they agree", style="green")
    if not findings:
        return
    total = sum(audit.counts.values()) + sum(one.kind is Kind.UNREADABLE for one in findings)
    shown = f", {len(findings)} shown" if total > len(findings) else ""
    print_line(audit.summary[1], style="bold")
    print_line(f"{pluralise(total, 'finding')}{shown}:", style="bold red")
    for kind in Kind:
        of_kind = [finding for finding in findings if finding.kind is kind]
        if of_kind:
            print_line(f"{kind} ({audit.counts.get(kind, len(of_kind))}): {MEANINGS[kind]}", style="bold")
            for finding in of_kind:
                where = f" [chain {finding.chain}]" if finding.chain else ""
                seen = f" (records {', '.join(finding.records)})" if finding.records else ""
                print_line(f"  {finding.text}{where}{seen}")


def _show_chain(chain: Chain) -> None:
    whose = ", ".join(f"{subject} ({issuer})" for issuer, subject in chain.subjects) or "unknown"
    prefix = _common_prefix(chain)
    left_out = f" ({prefix} left out)" if prefix else ""
    print_line(f"chain {chain.name}, for {whose}{left_out}", style="bold")
    print_table(
        ("hop", "call", "scope", "outcome", "evidence"),
        ((number, *_cells(depth, hop, prefix)) for number, (depth, hop) in enumerate(chain.hops, 1)),
    )
    print_line()


def _common_prefix(chain: Chain) -> str:
    """Return ``spiffe://`` and the trust domain if all SPIFFE IDs of the chain share one, else ""."""
    names = {name for _, hop in chain.hops for name in (hop.actor, hop.audience) if name is not None}
    domains = {"/".join(name.split("/")[:3]) for name in names if name.startswith("spiffe://")}
    return domains.pop() if len(domains) == 1 else ""


def _cells(depth: int, hop: Hop, prefix: str) -> tuple[object, ...]:
    call = f"{'  ' * depth}{str(hop).replace(prefix, '') if prefix else hop}"
    told = next(iter(hop.records), None)
    if told is None:
        return call, None, None, "none"
    end = hop.callee or hop.caller
    said = () if end is None else (end.decision, end.status, end.reason)
    outcome = "issued, not used" if end is None else " ".join(str(word) for word in said if word is not None)
    return call, " ".join(sorted(told.scope or ())) or None, outcome, _evidence(hop)


def _evidence(hop: Hop) -> str:
    by = {name: record for name, record in _witnesses(hop).items() if record is not None}
    missing = hop.missing
    if missing:
        return f"MISSING: {', '.join(missing)}"
    return "all three" if len(by) == 3 else ", ".join(by)


def _witnesses(hop: Hop) -> dict[str, Record | None]:
    """Return each witness's record or None. For an unused token, the caller's record is that of the exchange."""
    caller = hop.caller or (None if hop.callee else hop.exchanged)
    return {"caller": caller, "token service": hop.issued, "callee": hop.callee}
