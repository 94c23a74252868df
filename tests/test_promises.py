"""Every event, decision and reason of the generated pages is emitted somewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

from delegation_core.errors import Reason
from delegation_core.records.record import EVENTS, FIELDS, KEYS
from tests.sources import python_files

ROOT: Final = Path(__file__).parent.parent
DESCRIBED: Final = (
    "core/delegation_core/errors.py",
    "core/delegation_core/records/record.py",
    "audit/",
    "sidecar/explain/",
    "sidecar/reasons/",
)  # these describe the output of other modules


LOOKED_FOR: Final = r"(?<![!=]= )(?<!is )(?<!not )"  # a comparison emits nothing


def emitted() -> tuple[set[str], set[str]]:
    """Texts and names of reasons in the code of the product, except those that are only compared with."""
    texts: set[str] = set()
    reasons: set[str] = set()
    for file in python_files():
        if not str(file.relative_to(ROOT)).startswith(DESCRIBED):
            code = file.read_text(encoding="utf-8")
            texts.update(re.findall(LOOKED_FOR + r'"([a-z_.]+)"', code))
            reasons.update(re.findall(LOOKED_FOR + r"\bReason\.([A-Z_]+)", code))
    return texts, reasons


def test_each_reason_is_named_by_a_test() -> None:
    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py"))
    named = set(re.findall(r"\bReason\.([A-Z_]+)", tests)) | {
        word.upper() for word in re.findall(r"\"([a-z_]+)\"", tests)
    }
    assert sorted({reason.name for reason in Reason} - named) == [], "no test names these reasons"


def test_each_key_of_records_is_set_somewhere() -> None:
    files = [file for file in python_files("core", "sidecar") if file.name != "record.py"]
    code = "".join(file.read_text(encoding="utf-8") for file in files)
    set_somewhere = set(re.findall(r'"([a-z_]+)"|\b([a-z_]+)=|\.([a-z_]+) [-+*]?=', code))
    never = sorted(set(FIELDS) - {word for words in set_somewhere for word in words})
    assert never == [], "no code sets these keys of records"


def test_an_event_sets_only_keys_that_the_page_allows_it() -> None:
    wrong = []
    for file in python_files():
        code = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(code)) if ".event(" in code else ():
            match node:
                case ast.Call(func=ast.Attribute(attr="event"), args=[ast.Constant(str(event)), *_]) if event in EVENTS:
                    names = {word.arg for word in node.keywords if word.arg}
                    wrong += [(event, name) for name in names if event not in KEYS[name].events]
    assert not wrong, f"core/delegation_core/records/record.py: the events of these keys lack these events: {wrong}"


def first_column(page: str, heading: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(heading)[2]
    return re.findall(r"^\| `([^`]+)` \|", text.partition("\n## ")[0], re.MULTILINE)


def decisions() -> list[str]:
    page = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| `decision` |"))
    return re.findall(r"`(\w+)`", row.split("|")[2])


def test_what_the_pages_name_is_emitted() -> None:
    texts, reasons = emitted()
    events, codes = first_column("records.md", "## Events"), first_column("reasons.md", "# Reason codes")
    assert (len(events) > 10, len(codes), decisions()) == (True, len(Reason), ["allow", "deny", "observed_deny"])
    assert [event for event in events if event not in texts] == [], "no code writes these events"
    assert [decision for decision in decisions() if decision not in texts] == [], "no code makes these decisions"
    assert [code for code in codes if Reason(code).name not in reasons] == [], "no code raises these reasons"
