"""``sidecar audit verify``: finds record lines that were changed, removed, inserted or moved, and prints their places.

Exit codes: 0 no findings, 1 findings, 2 a file cannot be read or there is no record in any.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import orjson

from delegation_audit.verify.streams import Streams
from delegation_audit.verify.verdicts import Finding, Kind, RunVerdict, Verdict, judge
from delegation_core.console.counts import pluralise
from delegation_core.console.examples import add_examples
from delegation_core.console.output import add_logs, complain, print_json, print_line, print_table
from delegation_core.keyset import MAX_JWKS_BYTES, KeySet, KeySetError, parse_jwks
from delegation_core.records.folders import record_files
from delegation_core.records.log_lines import read_lines
from delegation_core.strict_json import StrictJsonError, parse_object

_COMMAND: Final = "sidecar audit verify"
_MOST_SHOWN: Final = 40
_MAX_KEYS: Final = 10_000

LIMITS: Final = (
    "Records after the last checkpoint of a run can be rewritten by whoever can write the file.",
    "A run without checkpoints can be rewritten by whoever also computes its hashes again.",
    "The holder of a host can stop its sidecar, or write false records from then on; earlier checkpoints stay valid.",
    "Records state what one sidecar saw. To compare them with other witnesses: sidecar audit chains.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_examples(
        parser,
        "sidecar audit verify records.jsonl",
        "sidecar audit verify --keys jwks.json --countersigned records/ sts.jsonl.gz",
    )
    add_logs(parser)
    parser.add_argument(
        "--keys",
        action="append",
        default=[],
        metavar="FILE",
        help="the token service's keys (JWKS), retired keys included; without keys signatures are not checked",
    )
    parser.add_argument(
        "--countersigned",
        action="store_true",
        help="a run without a valid checkpoint is a finding as well (needs --keys)",
    )
    parser.add_argument("--ignore", action="append", default=[], metavar="KIND", help="a kind of finding to ignore")


def examine(
    files: Sequence[str], keys: Sequence[str] = (), *, countersigned: bool = False, ignore: Sequence[str] = ()
) -> tuple[Streams, Verdict]:
    """Read and judge record files; drop findings of the kinds in ``ignore``.

    Raises:
        OSError: a file cannot be read; the text names it.
        ValueError: a file of ``keys`` is no JWKS or holds no usable key, or the records are of too many runs.
    """
    known = _keys(keys) if keys else None
    streams = Streams()
    streams.read(read_lines(files))
    verdict = judge(streams, known, countersigned=countersigned)
    findings = [one for one in verdict.findings if one.kind not in ignore]
    return streams, Verdict(verdict.runs, findings, verdict.signatures_checked)


def run(arguments: argparse.Namespace) -> int:
    """Verify record files and print the result. Returns the exit code."""
    unknown = sorted(set(arguments.ignore) - set(Kind))
    if unknown:
        return complain(_COMMAND, f"{', '.join(unknown)} is not a kind of finding; there are {', '.join(Kind)}")
    if arguments.countersigned and not arguments.keys:
        return complain(_COMMAND, "--countersigned needs --keys FILE, the JWKS that the token service serves at its"
                        " jwks_uri: curl -s https://sts.example/jwks > jwks.json")  # fmt: skip
    try:
        streams, verdict = examine(
            record_files(arguments.files),
            arguments.keys,
            countersigned=arguments.countersigned,
            ignore=arguments.ignore,
        )
    except (OSError, ValueError) as error:
        return complain(_COMMAND, str(error))
    if arguments.json:
        print_json(_document(streams, verdict))
    else:
        _show(streams, verdict)
    if not streams.records:
        return complain(_COMMAND, "no line is a record")
    return 1 if verdict.findings else 0


def _keys(files: Sequence[str]) -> KeySet:
    """Read the keys of all files as one set. A key in several files counts once. Raises OSError, ValueError."""
    keys: list[object] = []
    for file in files:
        with Path(file).open("rb") as opened:
            content = opened.read(MAX_JWKS_BYTES + 1)
        try:
            found = parse_object(content, max_bytes=MAX_JWKS_BYTES).get("keys")
            parse_jwks(content)
        except (StrictJsonError, KeySetError) as error:
            raise ValueError(f"{file}: not a JWKS ({error}); fetch it from the token service's jwks_uri") from None
        keys += found if isinstance(found, list) else []
    document = orjson.dumps({"keys": keys})
    known = parse_jwks(document, max_bytes=len(document), max_keys=_MAX_KEYS)
    if not len(known):
        raise ValueError(f"{', '.join(files)}: no usable key; fetch the JWKS from the token service's jwks_uri")
    return known


def _document(streams: Streams, verdict: Verdict) -> dict[str, object]:
    return {
        "records": streams.records,
        "signatures_checked": verdict.signatures_checked,
        "runs": [
            {
                **{name: value for name, value in asdict(one).items() if name != "countersigned"},
                "countersigned_up_to": one.countersigned and one.countersigned[0],
                "countersigned_at": one.countersigned and _time(one.countersigned[1]),
                "uncovered": one.uncovered,
            }
            for one in verdict.runs
        ],
        "findings": [asdict(one) for one in verdict.findings],
        "limits": list(LIMITS),
    }


def _show(streams: Streams, verdict: Verdict) -> None:
    runs = sorted(verdict.runs, key=lambda one: -one.findings)
    if runs:
        print_table(
            ("workload", "run", "records", "countersigned", "after that", "end", "findings"),
            map(_row, runs[:_MOST_SHOWN]),
        )
        if len(runs) > _MOST_SHOWN:
            print_line(f"and {pluralise(len(runs) - _MOST_SHOWN, 'more run')}; --json lists all", style="dim")
    for finding in verdict.findings[:_MOST_SHOWN]:
        _show_finding(finding)
    if len(verdict.findings) > _MOST_SHOWN:
        more = pluralise(len(verdict.findings) - _MOST_SHOWN, "more finding")
        print_line(f"and {more}; --json lists all", style="dim")
    print_line()
    print_line(f"{pluralise(streams.records, 'record')}: {verdict.summary[1]}", style="bold")
    if not verdict.signatures_checked and any(one.countersigned for one in verdict.runs):
        print_line("Signatures of checkpoints were not checked: give the token service's keys with --keys")
    print_line()
    print_line("Limits of this report:")
    for sentence in LIMITS:
        print_line(f"  {sentence}", style="dim")


def _row(one: RunVerdict) -> tuple[object, ...]:
    countersigned = None
    if one.countersigned is not None:
        seq, at = one.countersigned
        countersigned = f"to {seq}, {_time(at)}"
    end = "stopped" if one.stopped else "runs, or was killed"
    return one.workload, one.run, f"{one.first}-{one.last}", countersigned, one.uncovered, end, one.findings


def _show_finding(finding: Finding) -> None:
    print_line(f"{finding.kind.value.replace('_', ' ')}: {finding.text}", style="red")
    for place in finding.places:
        print_line(f"    {place}", style="dim")


def _time(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
