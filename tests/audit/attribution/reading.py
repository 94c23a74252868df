"""Reads and judges one line, for tests."""

from __future__ import annotations

from typing import Any

from delegation_audit.attribution.mapping_files import load_shipped
from delegation_audit.attribution.readings import Fields, Reader, Reading
from delegation_audit.attribution.recognition import Recognised, Recogniser
from delegation_audit.attribution.roster import parse
from delegation_audit.attribution.verdicts import Judged, judge
from tests.audit.attribution.samples import AGENTS, text

READERS = [Reader(mapping, Fields()) for mapping in load_shipped()]
ROSTER = parse(AGENTS)


def recognised(line: str | dict[str, Any]) -> Recognised:
    """Return the outcome for a line."""
    (found,) = Recogniser(READERS).recognise(text(line).encode())
    return found


def read(line: str | dict[str, Any]) -> Reading:
    """Return the parties that a request's line names."""
    found = recognised(line).reading
    assert found is not None
    return found


def judged(line: str | dict[str, Any], *, listed: bool = True) -> Judged:
    """Judge a request's line, with the list of agents or without."""
    return judge(read(line), ROSTER if listed else None)
