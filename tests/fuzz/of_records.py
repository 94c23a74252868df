"""Evidence from outside: record lines, foreign logs, status documents; and text on its way into them."""

from __future__ import annotations

import io
import json
from typing import Final

import orjson

from delegation_audit.attribution.elements import Document, entries_of
from delegation_audit.attribution.mapping_files import load_shipped
from delegation_audit.attribution.readings import Fields, Reader, same_party
from delegation_audit.attribution.recognition import Recogniser
from delegation_audit.attribution.roster import parse
from delegation_audit.attribution.splitting import names_somebody
from delegation_audit.attribution.tally import Tally
from delegation_audit.attribution.verdicts import Kind, judge
from delegation_core.records.reading import RecordError, parse_record, record_of
from delegation_core.records.record import EVENTS, FIELDS
from delegation_core.records.record_text import MAX_TEXT, encode, escape
from delegation_core.strict_json import parse_object
from tests.fuzz.properties import printable, quiet

_READERS: Final = [Reader(mapping, Fields(user=("who",), actor=("by.agent",))) for mapping in load_shipped()]
_ROSTER: Final = parse("writer = spiffe://example.org/writer, writer, 10.0.0.0/8, user-agent:writer/*")
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
    """A line of a foreign log reads in one way or in none, and never shows a query, a credential or a forged actor."""
    for found in Recogniser(_READERS).recognise(data):
        reading = found.reading
        if reading is None:
            continue
        assert reading.request is None or "?" not in reading.request
        for roster in (None, _ROSTER):
            judged = judge(reading, roster)
            Tally().add(judged, "log:1", reading.format, refused=reading.refused)
            if judged.kind is Kind.DELEGATES:
                assert reading.actors
                assert reading.users
                assert not any(same_party(reading.actors[0], user) for user in reading.users)
        shown = (*reading.users, *reading.actors, *reading.clients)
        assert all(names_somebody(value) for party in shown for value in party.values)


class _Pieces:
    """A stream that gives a few bytes at a time."""

    def __init__(self, data: bytes, most: int) -> None:
        self._stream = io.BytesIO(data)
        self._most = most

    def read(self, size: int, /) -> bytes:
        return self._stream.read(min(size, self._most))

    def readline(self, size: int, /) -> bytes:
        return self._stream.readline(size)


def log_document(data: bytes) -> None:
    """The entries of a log do not depend on how its bytes arrive, and their places only go forward."""
    whole = list(entries_of("log", data, io.BytesIO()))
    lines = [element.line for element in whole]
    assert lines == sorted(lines)
    for most in (1, 7):
        assert list(Document("log", _Pieces(data, most)).entries()) == list(Document("log", io.BytesIO(data)).entries())


def record_text(data: bytes) -> None:
    """Any text in any record is one line of JSON without active characters."""
    text = data.decode("utf-8", "surrogatepass") if _is_text(data) else data.decode("latin-1")
    shown = escape(text)
    printable(shown)
    assert len(shown) <= MAX_TEXT
    if shown == text:
        assert "\\u{" not in text
    for decision in ("deny", "allow"):
        (line,) = encode([{**_EMPTY, "decision": decision, "path": text, "subject": text, "scope": [text], "seq": 1}])
        printable(line.decode())
        assert orjson.loads(line) == json.loads(line)
        assert set(orjson.loads(line)) == set(FIELDS)


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True
