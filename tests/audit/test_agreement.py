"""Codes, commands and verdicts that pages and samples name are those of the code, and none is missing."""

from __future__ import annotations

import argparse
import io
import json
import re
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import Final, get_args

import pytest

from delegation_audit.all.overview import Outcome
from delegation_audit.all.sample import write_sample
from delegation_audit.attribution.verdicts import Kind as Verdict
from delegation_audit.chains.findings import Kind as Finding
from delegation_audit.command import AUDITS, REPLAY, add_commands
from delegation_audit.credentials.kinds import Kind as Credential
from delegation_audit.verify.verdicts import Kind as Tampering
from delegation_core.errors import Reason
from delegation_core.records.record import Decision
from tests.audit.report import evidence

_ROOT: Final = Path(__file__).parents[2]
_PAGES: Final = (
    *("docs/audit.md", "docs/attribution.md", "docs/credentials.md", "docs/selectors.md", "docs/ratio.md"),
    *("docs/post-mortem.md", "docs/tamper-evidence.md", "docs/siem.md", "audit/README.md"),
)
_COMMAND: Final = re.compile(r"(?:sidecar audit|delegation-audit) ([a-z]+)([^\n`|]*)")
_NOT_COMMANDS: Final = {"describes"}  # "the command `delegation-audit` …" in prose
_OPTION: Final = re.compile(r"^ +-.*?(?=  |$)", re.MULTILINE)  # in the text of --help
_FLAG: Final = re.compile(r"(?<!\S)--[a-z][a-z-]*")
_CODE: Final = re.compile(r"`([a-z][a-z_-]+)`")


def page(name: str) -> str:
    return (_ROOT / name).read_text(encoding="utf-8")


def reasons_of(records: list[dict[str, object]]) -> list[str]:
    """Return a sentence for each record whose decision, reason and status do not belong together."""
    wrong: list[str] = []
    for record in records:
        decision, reason, status = (record.get(key) for key in ("decision", "reason", "status"))
        if decision is not None and decision not in get_args(Decision):
            wrong.append(f"no decision: {decision}")
        elif decision == "deny" and reason not in set(Reason):
            wrong.append(f"no reason: {reason}")
        elif decision == "deny" and status != Reason(str(reason)).answer.status:
            wrong.append(f"{reason} has no status {status}")
        elif decision == "allow" and reason not in ("ok", None):
            wrong.append(f"allowed for {reason}")
    return wrong


def test_the_records_of_the_sample_have_reasons_that_exist(tmp_path: Path) -> None:
    write_sample(tmp_path)
    lines = [line for file in (tmp_path / "records").iterdir() for line in file.read_text().splitlines()]
    records = [json.loads(line) for line in lines]
    assert sum(record["decision"] == "deny" for record in records) == 1
    assert reasons_of(records) == []
    (denied,) = (record for record in records if record["decision"] == "deny")
    for change in ({"reason": "scope_missing"}, {"status": 401}, {"decision": "refuse"}, {"decision": "allow"}):
        assert len(reasons_of([{**denied, **change}])) == 1


def test_the_evidence_of_the_reports_tests_has_reasons_that_exist() -> None:
    assert reasons_of(evidence.document()["chains"][0]["hops"]) == []


@pytest.mark.parametrize("name", _PAGES)
def test_each_command_of_a_page_exists_with_its_options(name: str) -> None:
    for audit, rest in _COMMAND.findall(page(name)):
        if audit in _NOT_COMMANDS:
            continue
        assert audit in {*AUDITS, REPLAY}, f"{name}: sidecar audit {audit}"
        if audit == REPLAY:  # a sidecar's own: its parser needs that distribution
            continue
        known = options(audit)
        ours = re.split(r" [|&>] ?|&&|;", rest)[0]
        assert not [flag for flag in _FLAG.findall(ours) if flag not in known], f"{name}: sidecar audit {audit}{ours}"


def options(audit: str) -> set[str]:
    parser = argparse.ArgumentParser()
    add_commands(parser, [audit])
    with redirect_stdout(io.StringIO()) as text, pytest.raises(SystemExit):
        parser.parse_args([audit, "--help"])
    return {flag for option in _OPTION.findall(text.getvalue()) for flag in _FLAG.findall(option)}


def codes(name: str, heading: str) -> set[str]:
    """Return the codes in the first column of the table whose header begins so."""
    _, found, below = page(name).partition(f"\n| {heading} |")
    assert found, f"{name} has no table of {heading}"
    rows = below.partition("\n\n")[0].split("\n")[2:]
    return {code for row in rows for code in _CODE.findall(row.split("|")[1])}


@pytest.mark.parametrize(
    ("name", "heading", "kinds", "others"),
    [
        ("docs/attribution.md", "verdict", Verdict, {"no_agent"}),  # no verdict on an agent
        ("docs/post-mortem.md", "kind", Finding, set()),
        ("docs/tamper-evidence.md", "finding", Tampering, set()),
        ("docs/credentials.md", "kind", Credential, set()),
    ],
)
def test_each_table_of_kinds_has_every_kind_and_no_other(
    name: str, heading: str, kinds: type[StrEnum], others: set[str]
) -> None:
    assert codes(name, heading) == {kind.value for kind in kinds} - others


def test_every_audit_and_the_outcome_of_all_are_in_the_page() -> None:
    text = page("docs/audit.md")
    named = set(re.findall(r"sidecar audit ([a-z]+)", text)) | set(re.findall(r"`audit ([a-z]+)", text))
    assert named == {*AUDITS, REPLAY}
    assert set(re.findall(r'"outcome": "(\w+)"', text)) <= {outcome.value for outcome in Outcome}
