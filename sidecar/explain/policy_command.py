"""Command ``sidecar sts policy``: prints or writes who may act for whom where, by a token service's settings.

Exit codes: 0 somebody may, 1 nobody may by these filters, 2 unusable settings.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from delegation_core.console.counts import pluralise
from delegation_core.console.examples import add_examples
from delegation_core.console.extras import needs
from delegation_core.console.output import complain, print_json, print_line, print_table
from delegation_core.errors import ConfigError
from sidecar import __version__
from sidecar.config import load_sts
from sidecar.explain.policy_rows import Row, covers, rows_of

_COMMAND: Final = "sidecar sts policy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_examples(
        parser,
        "sidecar sts policy --settings sts.yaml",
        "sidecar sts policy --settings sts.yaml --subject alice --audience spiffe://acme.example/tool/crm",
        "sidecar sts policy --settings sts.yaml --html policy.html",
    )
    parser.add_argument(
        "--settings", metavar="FILE", default="/etc/sidecar/sts.yaml", help="the settings (default %(default)s)"
    )
    parser.add_argument("--actor", metavar="SPIFFE_ID", help="only rules for this workload")
    parser.add_argument("--subject", metavar="SUB", help="only rules for this subject, of any issuer")
    parser.add_argument("--audience", metavar="NAME", help="only rules at this audience, or this workload")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained page")
    parser.add_argument("--json", action="store_true", help="for machines")


def run(arguments: argparse.Namespace) -> int:
    """Print the rows, or write the page."""
    try:
        policy = load_sts(Path(arguments.settings), os.environ).policy
    except ConfigError as error:
        return complain(_COMMAND, f"the settings cannot be used; run sidecar check --sts: {error.problems[0]}")
    chosen = {name: getattr(arguments, name) for name in ("actor", "subject", "audience")}
    rows = [row for row in rows_of(policy) if covers(row, policy, **chosen)]
    choice = ", ".join(f"{name} {value}" for name, value in chosen.items() if value is not None)
    if arguments.html is not None:
        return _write(arguments.html, policy.issuer, rows, choice)
    if arguments.json:
        print_json({"issuer": policy.issuer, "rows": [row.document() for row in rows]})
    else:
        _show(rows)
    return 0 if rows else 1


def _write(path: Path, issuer: str, rows: Sequence[Row], choice: str) -> int:
    if find_spec("delegation_audit") is None:
        return complain(_COMMAND, f"--html {needs('audit')}")
    try:
        path.write_text(page(issuer, rows, choice=choice, now=time.time()), encoding="utf-8")
    except OSError as error:
        return complain(_COMMAND, f"{path}: {error.strerror}")
    print_line(f"wrote {path}")
    return 0 if rows else 1


def page(issuer: str, rows: Sequence[Row], *, choice: str, now: float) -> str:
    """Return the page, in the style of the audit's report."""
    from delegation_audit.report.page import render

    return render(
        files("sidecar.explain").joinpath("policy.html").read_text(encoding="utf-8"),
        issuer=issuer,
        rows=rows,
        idle=[row for row in rows if not row.ways],
        choice=choice,
        made_at=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)),
        version=__version__,
    )


def _show(rows: Sequence[Row]) -> None:
    if rows:
        print_table(
            ("who", "for whom", "where", "with at most", "by what, and how long", "rule"),
            (
                (
                    row.actor,
                    "itself" if row.subjects == row.actor else row.subjects,
                    row.audience,
                    " ".join(row.scopes) + (", bound to its certificate" if row.bound else ""),
                    "; ".join(way.text() for way in row.ways) or "nothing: it never applies",
                    row.rule,
                )
                for row in rows
            ),
        )
        print_line()
    idle = sum(not row.ways for row in rows)
    print_line(f"{pluralise(len(rows), 'rule')}" + (f", of which {idle} never apply" if idle else ""))
    print_line("Anything not listed is denied to every workload.", style="dim")
