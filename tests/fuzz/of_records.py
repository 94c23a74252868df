"""Evidence from outside: record lines, foreign logs, status documents; and text on its way into them."""

from __future__ import annotations

import json
from typing import Final

import orjson

from sidecar.audit.attribution.readings import Fields, NoRequestError, named_by
from sidecar.audit.attribution.verdicts import Tally
from sidecar.audit.records import RecordError, parse_record, record_of
from sidecar.delegation.strict_json import parse_object
from sidecar.observe.record import EVENTS, FIELDS
from sidecar.observe.record_text import MAX_TEXT, encode, escape
from tests.fuzz.properties import printable, quiet

_EMPTY: Final[dict[str, object]] = dict.fromkeys(FIELDS)


def record_line(data: bytes) -> None:
    """A line of a record stream is a record or an error; its digest covers its members, not their spelling."""
    try:
        record = parse_record(data)
    except RecordError as error:
        quiet(error)
        return
    assert record.event in EVENTS
    assert record.seq > 0
    members = parse_object(data, max_bytes=1 << 20)
    assert record_of(dict(reversed(members.items()))) == record
    assert record_of({**members, "subject": "another"}).digest != record.digest or record.subject == "another"


def log_line(data: bytes) -> None:
    """A line of a foreign log names the same identities as its text, and never repeats a query or a credential."""
    try:
        named = named_by(data, Fields(user=("who",), actor=("by.agent",)))
    except NoRequestError as error:
        quiet(error)
        return
    if named is not None:
        Tally().add(named)
        assert named.request is None or "?" not in named.request


def record_text(data: bytes) -> None:
    """Any text in any record is one line of JSON without active characters."""
    text = data.decode("utf-8", "surrogatepass") if _is_text(data) else data.decode("latin-1")
    shown = escape(text)
    printable(shown)
    assert len(shown) <= MAX_TEXT
    if shown == text:
        assert "\\u{" not in text
    for decision in ("deny", "allow"):
        line = encode([{**_EMPTY, "decision": decision, "path": text, "subject": text, "scope": [text], "seq": 1}])
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
        printable(line.decode()[:-1])
        assert orjson.loads(line) == json.loads(line)
        assert set(orjson.loads(line)) == set(FIELDS)


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True
