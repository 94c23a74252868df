"""Registration entries from outside: documents of any form, and the fixes written for them."""

from __future__ import annotations

import json
import shlex

from delegation_audit.selectors import fixes
from delegation_audit.selectors.agents import Agents
from delegation_audit.selectors.documents import read_documents
from delegation_audit.selectors.entries import Entry
from delegation_audit.selectors.entry_checks import MAX_SHOWN, Setting
from delegation_audit.selectors.examination import judge
from delegation_audit.selectors.grades import grades_of
from delegation_audit.selectors.members import ShapeError
from delegation_audit.selectors.shapes import entry_of, is_entry
from delegation_core.console.output import visible
from tests.fuzz.properties import printable, quiet

_SETTING = Setting(agents=Agents(), now=1_900_000_000)


def registration_entries(data: bytes) -> None:
    """A document gives entries or faults. Judgements are bounded, and a command holds an entry's words as words."""
    entries: list[Entry] = []
    for found in read_documents(data.decode("utf-8", "replace")):
        assert found.line >= 1
        if found.error is not None or not is_entry(found.value) or not isinstance(found.value, dict):
            continue
        try:
            entries.append(entry_of(found.value, file="entries", line=found.line))
        except ShapeError as error:
            quiet(error)
    weaknesses = judge(entries, _SETTING)
    for one in weaknesses:
        assert len(one.fix) <= MAX_SHOWN + len(one.rule.fix) + 1
        printable(visible(one.text))
    assert set(grades_of(entries, weaknesses)) == {entry.spiffe_id for entry in entries if not entry.is_node}
    for entry in entries:
        words = shlex.split(fixes.update_command(entry))
        assert {str(one) for one in entry.selectors} <= set(words)
        assert words[:3] == ["spire-server", "entry", "update"]
    if _is_json(data):  # the same entries, whatever the blanks
        spread = json.dumps(json.loads(data), indent=1)
        values = [one.value for one in read_documents(spread) if one.error is None]
        assert values == [one.value for one in read_documents(data.decode()) if one.error is None]


def _is_json(data: bytes) -> bool:
    """Tell if the bytes are one object or list of JSON, in the form that Python writes."""
    if data[:1] not in (b"{", b"["):
        return False
    try:
        return bytes(json.dumps(json.loads(data), separators=(",", ":")), "ascii") == data.strip()
    except (ValueError, RecursionError):
        return False
