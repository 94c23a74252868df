"""``sidecar audit report``: writes one HTML page for a post-mortem, from the records of all witnesses.

Exit codes: 0 no findings, 1 findings, 2 a file cannot be read or there is no record in any.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from delegation_audit import __version__
from delegation_audit.chains.choice import Choice
from delegation_audit.chains.command import add_filters, choice_of, document, examine_files, unknown_kinds
from delegation_audit.chains.database import MissingError
from delegation_audit.report.build import MOST_EVIDENCE, evidence_in, names_in, stories_of
from delegation_audit.report.story import Report
from delegation_audit.verify.command import examine as verify
from delegation_audit.verify.verdicts import Kind, Verdict
from delegation_core.console.counts import pluralise
from delegation_core.console.examples import add_examples
from delegation_core.console.extras import needs
from delegation_core.console.output import complain, print_line
from delegation_core.records.folders import RECORDS, record_files
from delegation_core.records.log_lines import read_lines

_COMMAND: Final = "sidecar audit report"
_NEEDED: Final = f"this {needs('audit')}"
_MOST_CHAINS: Final = 20  # more would be too long to read
_LINES: Final = (".jsonl", ".json", ".ndjson", ".log", ".records", ".gz", ".zst")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_examples(
        parser,
        "sidecar audit report -o report.html records/",
        "sidecar audit report -o alice.html --subject alice --since 2026-11-24 --keys jwks.json records/",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="records, as for `sidecar audit chains`")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the page to write")
    parser.add_argument("--title", default="Delegation report", help="the title of the page (default %(default)s)")
    parser.add_argument("--keys", action="append", default=[], metavar="FILE", help="as for `sidecar audit verify`")
    add_filters(parser)
    parser.set_defaults(limit=_MOST_CHAINS)


def run(arguments: argparse.Namespace) -> int:
    """Write the page and print a summary. Returns the exit code."""
    unknown = unknown_kinds(arguments.ignore)
    if unknown is not None:
        return complain(_COMMAND, unknown)
    if find_spec("jinja2") is None:
        return complain(_COMMAND, _NEEDED)
    from delegation_audit.report.page import page

    try:
        files = record_files(arguments.files, endings=RECORDS)
        if _is_among(arguments.output, [*files, *arguments.keys]):
            return complain(_COMMAND, f"{arguments.output}: is evidence, and would be overwritten; name another file")
        report, findings = report_of(
            files,
            choice_of(arguments),
            title=arguments.title,
            keys=arguments.keys,
            ignore=arguments.ignore,
            most_chains=arguments.limit,
            memory_mib=arguments.memory,
        )
        if report.records:
            Path(arguments.output).write_text(page(report), encoding="utf-8")
    except (OSError, ValueError, MissingError) as error:
        return complain(_COMMAND, str(error))
    if not report.records:
        return complain(_COMMAND, "no line is a record")
    chains = f"{len(report.stories)} of {pluralise(report.all_chains, 'chain')}, broken: {report.broken_chains}"
    seen = f"{pluralise(findings, 'finding')}, from {pluralise(report.records, 'record')}"
    print_line(f"{arguments.output}: {chains}, {seen}")
    return 1 if findings else 0


def report_of(
    files: Sequence[str],
    choice: Choice,
    *,
    title: str = "Delegation report",
    keys: Sequence[str] = (),
    ignore: Sequence[str] = (),
    most_chains: int = _MOST_CHAINS,
    memory_mib: int | None = None,
) -> tuple[Report, int]:
    """Audit and verify record files; return the report and the number of findings.

    Raises:
        OSError: a file cannot be read; the text names it.
        ValueError: a file of ``keys`` is no usable JWKS, or the records are of too many runs.
        MissingError: DuckDB is not installed.
    """
    audit, findings = examine_files(files, choice, ignore=ignore, most_chains=most_chains, memory_mib=memory_mib)
    stories, problems = stories_of(document(audit, findings))
    lines = [file for file in files if file.endswith(_LINES) or "." not in Path(file).name]
    _, verdict = verify(lines, keys)
    names = names_in(stories, problems)
    report = Report(
        title=title,
        made_at=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        version=__version__,
        files=files,
        choice=_describe(choice),
        records=audit.records,
        all_chains=audit.all_chains,
        broken_chains=audit.broken_chains,
        stories=stories,
        problems=problems,
        integrity=_integrity(verdict, lines, files),
        evidence=evidence_in(read_lines(lines), names),
        evidence_left_out=max(0, len(names) - MOST_EVIDENCE),
    )
    return report, len(findings)


def _is_among(output: str, files: Sequence[str]) -> bool:
    """Return True if ``output`` is one of the files, also by another path or a link."""
    return Path(output).exists() and any(file != "-" and Path(output).samefile(file) for file in files)


def _describe(choice: Choice) -> str | None:
    given = [f"{name} {value}" for name, value in asdict(choice).items() if value is not None]
    return ", ".join(given) or None


def _integrity(verdict: Verdict, lines: Sequence[str], files: Sequence[str]) -> list[str]:
    """Return sentences on the proof that hash chains and checkpoints give for the records."""
    sentences = [f"{verdict.summary[1]}."]
    sentences += [
        f"{one.kind.replace('_', ' ')}: {one.text}" for one in verdict.findings if one.kind != Kind.UNREADABLE
    ]
    for run in verdict.runs:
        who = run.workload or "an unknown workload"
        if run.countersigned is None:
            sentences.append(f"{who}, run {run.run}: no checkpoint, so the holder of the file could have rewritten it.")
        else:
            proven = f"countersigned up to record {run.countersigned[0]} of {run.last}"
            checked = "" if verdict.signatures_checked else ", signature not checked (no --keys)"
            sentences.append(f"{who}, run {run.run}: {proven}{checked}.")
    if len(lines) < len(files):
        sentences.append("Parquet files hold no lines: their hash chains were not checked.")
    return sentences
