"""SQL that reads lines as evidence: keeps lines that are surely records, and returns the others for the strict parser.

``audit.records`` defines a record. A line is surely a record if DuckDB's strict reader finds each key exactly once,
each value has its type, and the lengths of all keys and values, as DuckDB writes them, add up to that of the line.
DuckDB never writes more than it read, except some numbers, which are searched for in the line. So the line holds
nothing else: no other key, no space, no trailing comma. The strict parser judges all other lines and writes their
members out again, so that they pass through here as well. Texts stay JSON texts with their quotes: they compare alike,
and nothing is lost. A differential test compares both parsers on mutated lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from delegation_core.records.reading import KEPT, MAX_LINE_BYTES, RecordError, is_short_number, record_of
from delegation_core.records.record import EVENTS, FIELDS, KEYS, MAX_ITEMS
from delegation_core.strict_json import StrictJsonError, parse_object

# Keys that an audit of chains reads; only the digest covers the others.
READ: Final = (
    "event", "ts", "run", "seq", "decision", "reason", "direction", "workload", "peer", "subject", "subject_iss",
    "actor", "chain", "chain_depth", "audience", "scope", "scope_needed", "route", "op", "method", "path", "status",
    "upstream_status", "jti_in", "jti_out", "parent_jti", "txn", "fp", "host", "crossed_from", "call_in",
    "call_out", "request_id", "trace_id", "verified",
)  # fmt: skip
_UNREAD: Final = frozenset(FIELDS) - frozenset(KEPT)  # their types are not checked
_ALWAYS: Final = frozenset({"event", "ts", "run", "seq"})
# Keys that records of 0.1.0 lack.
YOUNGEST: Final = tuple(name for name, key in KEYS.items() if key.since)
_WITH_YOUNGEST: Final = "".join(f',"{name}":null' for name in YOUNGEST) + "}"
# Bytes of a line besides its values: braces, keys, colons, commas.
FRAME: Final = 1 + sum(len(name) + 4 for name in FIELDS)

_PLAIN_LIST: Final = r'\[("[^"\\]*"(,"[^"\\]*")*)?\]'
_TYPES: Final = "STRUCT(" + ", ".join(f'"{name}" VARCHAR' for name in FIELDS) + ")"
_SHAPE: Final = json.dumps(dict.fromkeys(FIELDS, "JSON"))


def _is_text(name: str) -> str:
    """Return the condition for a JSON text; for a key with choices, one of them."""
    choices = tuple(EVENTS) if name == "event" else KEYS[name].choices
    if choices:
        # Neither IN nor a list: for many values DuckDB plans a join, which loses the order of lines. A JSON text holds
        # no bare quote, so it matches one whole choice.
        return f"""contains('|{"|".join(map(json.dumps, choices))}|', '|' || v."{name}" || '|')"""
    return f'prefix(v."{name}", \'"\')'


def _is_count(name: str) -> str:
    value = f'v."{name}"'
    return f"strlen({value}) <= 16 AND {value} = TRY_CAST({value} AS BIGINT)::VARCHAR AND NOT prefix({value}, '-')"


def _is_flag(name: str) -> str:
    return f"v.\"{name}\" IN ('true', 'false')"


def _is_list(name: str) -> str:
    return f"""prefix(v."{name}", '[')"""  # `is_list_of_texts` judges its items, once for each distinct list


def _is_plain(name: str) -> str:
    """Return the condition for an unchecked value: a text, flag or short number; for a list, texts without escapes."""
    value = f'v."{name}"'
    if KEYS[name].kind == "texts":
        return f"regexp_full_match({value}, '{_PLAIN_LIST}')"
    number = f"{value} >= '0' AND {value} < ':' AND NOT contains({value}, 'e') AND NOT contains({value}, 'E')"
    short = f"(strlen({value}) <= 16 OR (strlen({value}) <= 25 AND contains({value}, '.')))"
    return f"prefix({value}, '\"') OR {value} IN ('true', 'false') OR ({number} AND {short})"


def _is_of_its_kind(name: str) -> str:
    tests = {"text": _is_text, "texts": _is_list, "count": _is_count, "flag": _is_flag}
    test = _is_plain(name) if name in _UNREAD else tests[KEYS[name].kind](name)
    return f"({test})" if name in _ALWAYS else f'(v."{name}" IS NULL OR {test})'


def require_types(names: Iterable[str]) -> str:
    """Return the condition that the JSON texts in ``v`` have the types of these keys and ts, run, seq are not empty."""
    return " AND ".join((*map(_is_of_its_kind, names), """v.ts <> '""' AND v.run <> '""' AND v.seq <> '0'"""))


_TYPED: Final = require_types(FIELDS)


def _is_as_read(name: str) -> str:
    """Return a condition: if DuckDB may have lengthened the number, the line contains it literally."""
    value = f'v."{name}"'
    longer = f"prefix({value}, '0.00') OR suffix({value}, '0.0')"
    return f"CASE WHEN {longer} THEN contains(line, '\"{name}\":' || {value}) ELSE true END"


# The lengths of keys and values, as read, add up to that of the line.
_WHOLE: Final = " AND ".join((
    f"strlen(line) = {FRAME} + " + " + ".join(f'coalesce(strlen(v."{name}"), 4)' for name in FIELDS),
    f"strlen(line) <= {MAX_LINE_BYTES}",
    *map(_is_as_read, (name for name in FIELDS if name in _UNREAD)),
))  # fmt: skip

# The columns of a record. `jti`: the token whose claims the record holds: the token issued, else the incoming one.
# `outside`: the record belongs to no chain, as a login at a front app's own sidecar, or unverified claims.
_NUMBERS: Final = frozenset({"seq", "chain_depth", "status", "upstream_status"})
_LOGIN: Final = """
    coalesce(v.direction = '"outbound"' AND (v.op = '"login"' OR prefix(v.path, '"/.sidecar/')), false)
"""
# Permitted, even if a later decision ended the request: `Record.allowed`.
_TIMES: Final = ("decide_ms", "upstream_ms")
_ALLOWED: Final = """
    (v.decision IS NOT DISTINCT FROM '"allow"' OR (v.decision IS NOT DISTINCT FROM '"deny"'
        AND coalesce(v.decide_ms >= '0' AND v.decide_ms < ':' AND strlen(v.decide_ms) <= 16, false)
        AND CASE WHEN v.upstream_status IS NULL THEN v.upstream_ms IS NULL
            ELSE v.upstream_status IS NOT DISTINCT FROM v.status END))
"""
COLUMNS: Final = (
    ", ".join(
        "v.verified = 'true'"
        if name == "verified"
        else f"TRY_CAST(v.{name} AS BIGINT)"
        if name in _NUMBERS
        else f"v.{name}"
        for name in READ
    )
    + f"""
    , {_ALLOWED}, v.direction IS NOT DISTINCT FROM '"outbound"',
    CASE WHEN v.verified = 'true' AND v.subject IS NOT NULL AND v.subject_iss IS NOT NULL
            AND v.event IN ('"request"', '"request.opened"', '"token.exchanged"') AND NOT {_LOGIN}
        THEN CASE WHEN v.event = '"token.exchanged"'
                OR (v.direction = '"outbound"' AND {_ALLOWED})
            THEN v.jti_out ELSE v.jti_in END
    END,
    v.event IN ('"request"', '"request.opened"')
        AND ({_LOGIN} OR (v.verified IS DISTINCT FROM 'true' AND v.call_in IS NULL))
"""
)
_DIGEST: Final = "hash(" + ", ".join(f'v."{name}"' for name in FIELDS) + ", {extra})"


def _parse(lines: str, *, one_by_one: bool) -> str:
    """Return a query that parses lines one by one, or all or none, which is faster. Adds keys that old lines lack."""
    line = f"""
        CASE WHEN contains(line, '{YOUNGEST[-1]}":') THEN line
            WHEN suffix(line, '}}') THEN concat(left(line, -1), '{_WITH_YOUNGEST}') ELSE line END
    """
    parsed = f"json_transform_strict(line, '{_SHAPE}')"
    return f"""
        SELECT *, {f"TRY({parsed})" if one_by_one else parsed}::{_TYPES} AS v
        FROM (SELECT * REPLACE ({line} AS line), line AS given FROM ({lines}) WHERE line <> '')
    """


_SURE: Final = f"({_TYPED} AND {_WHOLE}) IS TRUE"

# `$files`: whole files, or the copy of a block. If one line is not surely a record, no line is kept. DuckDB's reader
# takes a carriage return for a line end, so no file with one is read here; it refuses a line with the separator.
_LINES_OF_FILES: Final = f"""
    SELECT line FROM read_csv($files, columns = {{'line': 'VARCHAR'}}, delim = chr(1), quote = '', escape = '',
        header = false, auto_detect = false, compression = 'none', max_line_size = {2 * MAX_LINE_BYTES})
"""
READ_FILES: Final = f"""
    INSERT INTO kept
    SELECT {_DIGEST.format(extra="''")}, {COLUMNS} FROM ({_parse(_LINES_OF_FILES, one_by_one=False)})
    WHERE CASE WHEN {_SURE} THEN true ELSE error('a line is not surely a record') END
"""
LISTS_OF_FILES: Final = """
    SELECT chain FROM kept WHERE rowid >= $first AND chain IS NOT NULL
    UNION SELECT scope FROM kept WHERE rowid >= $first AND scope IS NOT NULL
    UNION SELECT scope_needed FROM kept WHERE rowid >= $first AND scope_needed IS NOT NULL
"""
KEEP_LINES: Final = f"""
    INSERT INTO kept
    SELECT v.digest, {COLUMNS} FROM block AS v WHERE v.sure AND NOT list_contains($bad, v.place) ORDER BY v.place
"""


def _read_lines(lines: str) -> str:
    return f"""
        CREATE OR REPLACE TEMP TABLE block AS
        SELECT place, CASE WHEN NOT sure THEN given END AS line, sure,
            {_DIGEST.format(extra="extra")} AS digest,
            {", ".join(f'v."{name}" AS {name}' for name in (*READ, *_TIMES))}
        FROM (SELECT place, given, extra, v, {_SURE} AS sure FROM ({_parse(lines, one_by_one=True)}))
    """


# Statements for the lines of a block, one by one, and for lines that the strict parser accepted, with their places.
READ_LINES: Final = _read_lines(
    "SELECT $first + 1 + unnest(range(len($lines))) AS place, unnest($lines) AS line, '' AS extra"
)
READ_JUDGED: Final = _read_lines("SELECT unnest($places) AS place, unnest($lines) AS line, unnest($extras) AS extra")


def judge(line: bytes) -> tuple[str, str]:
    """Parse a line strictly; return it in canonical form, and a digest of all members that the form lacks, or "".

    Raises:
        RecordError: the line is no record.
    """
    try:
        members = parse_object(line, max_bytes=MAX_LINE_BYTES)
    except StrictJsonError as error:
        raise RecordError(str(error)) from error
    record_of(members)
    known = {name: _plain(name, members.get(name)) for name in FIELDS}
    others = {name: value for name, value in members.items() if name not in known or known[name] != value}
    extra = sha256(json.dumps(others, sort_keys=True).encode()).hexdigest() if others else ""
    return json.dumps(known, ensure_ascii=False, separators=(",", ":")), extra


def _plain(name: str, value: object) -> object:
    """Return the value if ``_TYPED`` accepts it, else None; only keys whose types are not checked may differ."""
    if name in KEPT or value is None:
        return value
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if KEYS[name].kind == "texts":
        return value if is_list_of_texts(text) and re.fullmatch(_PLAIN_LIST, text) else None
    if isinstance(value, str | bool):
        return value
    return value if is_short_number(value) else None


def is_list_of_texts(text: str) -> bool:
    """Return True if a JSON text is a list of strings, at most as many as a sidecar writes."""
    try:
        items = json.loads(text)
    except RecursionError:
        return False
    return isinstance(items, list) and len(items) <= MAX_ITEMS + 1 and all(isinstance(item, str) for item in items)
