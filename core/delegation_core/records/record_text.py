"""Text of records: escaped, truncated and without tokens on its way into a line.

Control characters from outside are escaped, no value is longer than ``MAX_TEXT``, and a token in a wrong place is
replaced by its fingerprint.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import compress, repeat
from operator import itemgetter, ne
from typing import Any, Final

import orjson

from delegation_core.jws import TOKEN_BEGINNING, TOKEN_PATTERN
from delegation_core.records.record import MAX_ITEMS, Record, RecordFields

MAX_TEXT: Final = 2048  # characters: a SPIFFE ID may have 2048 bytes and is never truncated
CUT: Final = "…truncated:"  # then 16 hex digits of the whole text's SHA-256, so that two long texts stay different
CUT_PATH: Final = "…cut"  # ends the path of a refused target whose rest may hold a secret
# replaces a token, followed by its fingerprint: callers put tokens in wrong places, such as a path
INSTEAD: Final = "…token:"

_TOKEN: Final = re.compile(TOKEN_PATTERN)
_may_hold_token: Final = re.compile(TOKEN_BEGINNING).search
_line_may_hold_token: Final = re.compile(TOKEN_BEGINNING.encode("ascii")).search

# The start of a query, a fragment or a path parameter for some server: plain, escaped, or escaped any number of times.
# A percent sign without two hex digits may become an escape once the rest is decoded ("%%33f", "%25%33%66"), or is one
# to some server ("%u003f"); so is the overlong UTF-8 that begins with C0.
_END_OF_PATH: Final = re.compile(r"[?#;]|%(?:25)*(?:3[BbFf]|23|[Cc]0|(?![0-9A-Fa-f]{2}))")

_PATH: Final = itemgetter("path")
_DECISION: Final = itemgetter("decision")

_BACKSLASH: Final = 0x5C  # searched as numbers: four times as fast as a bytes object of one
_DEL: Final = 0x7F


def encode(records: Sequence[Record]) -> list[bytes]:
    """Encode each record as one line, without its newline. Plain text is cheap: only the lines are inspected.

    A line that is short, ASCII, without DEL and without a backslash (JSON's only escape) holds nothing but printable
    text below the limit. Every other record, and one with a token in it, is cleaned value by value and encoded again.
    """
    try:
        # A slice, and so a copy: what orjson returns occupies 8 or 16 KiB, which 64 lines would hold at once.
        lines = [orjson.dumps(record, None, orjson.OPT_APPEND_NEWLINE)[:-1] for record in records]
    except orjson.JSONEncodeError:  # a lone surrogate, an integer beyond 64 bits, a type that JSON lacks
        return [_cleaned(records[0])] if len(records) == 1 else [encode([record])[0] for record in records]
    # The claims of an allowed record were masked when they became facts: only its path may hold a token.
    paths = "\n".join(filter(None, map(_PATH, records)))
    refused = b"".join(compress(lines, map(ne, map(_DECISION, records), repeat("allow"))))
    if (
        max(map(len, lines), default=0) <= MAX_TEXT
        and _is_plain(b"".join(lines))
        and not _may_hold_token(paths)
        and not _line_may_hold_token(refused)
    ):
        return lines
    return list(map(_with_care, records, lines))


def refused_path(target: bytes) -> str:
    """Return the loggable part of a target that could not be canonicalised.

    The text ends before the first character that starts a query, a fragment or a path parameter, however it is escaped:
    callers put secrets there. A cut text ends in ``CUT_PATH``.
    """
    text = target.decode("latin-1")
    end = _END_OF_PATH.search(text)
    return text if end is None else text[: end.start()] + CUT_PATH


def mask_tokens(text: str) -> str:
    """Replace each token in a text by ``INSTEAD`` and its fingerprint; any other text stays as it is."""
    if not _may_hold_token(text):
        return text
    return _TOKEN.sub(lambda token: token[1] + INSTEAD + hashlib.sha256(token[2].encode()).hexdigest()[:32], text)


def masked(fields: RecordFields) -> RecordFields:
    """Mask the tokens in every text of ``fields``: a trusted issuer may sign a ``sub`` that is itself a token."""
    try:
        if not _line_may_hold_token(orjson.dumps(fields)):  # one search for all values: every outbound call pays for it
            return fields
    except orjson.JSONEncodeError:  # a type that JSON lacks: check each value
        pass
    found: dict[str, Any] = {name: value for name, value in fields.items() if _holds_token(value)}
    if not found:
        return fields
    changed: Any = {
        name: mask_tokens(value) if isinstance(value, str) else tuple(map(mask_tokens, value))
        for name, value in found.items()
    }
    whole: RecordFields = fields | changed
    return whole


def _holds_token(value: object) -> bool:
    if isinstance(value, str):
        return _may_hold_token(value) is not None
    return isinstance(value, tuple | list) and any(map(_holds_token, value))


def escape(text: str) -> str:
    r"""Escape every active character: controls, bidi marks, line separators, unassigned ones, lone surrogates.

    Each becomes ``\u{hex}``; so does the backslash of a text that already contains ``\u{``, therefore no two texts
    have the same result. A text longer than ``MAX_TEXT`` is truncated and ends in ``CUT`` and a digest. A token becomes
    ``INSTEAD`` and its fingerprint.
    """
    text = mask_tokens(text)
    if text.isprintable() and "\\u{" not in text:
        visible = text
    else:
        visible = "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in text.replace("\\u{", "\\u{5c}u{"))
    if len(visible) <= MAX_TEXT:
        return visible
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{visible[: MAX_TEXT - len(CUT) - 16]}{CUT}{digest[:16]}"


def _with_care(record: Record, line: bytes) -> bytes:
    """Encode a record that needs cleaning, or was encoded together with one that does."""
    if len(line) > MAX_TEXT or not _is_plain(line):
        return _cleaned(record)
    token = _may_hold_token(record["path"] or "") if record["decision"] == "allow" else _line_may_hold_token(line)
    return line if token is None else _cleaned(record)


def _is_plain(text: bytes) -> bool:
    return text.isascii() and _BACKSLASH not in text and _DEL not in text


def _cleaned(record: Record) -> bytes:
    cleaned = {name: _clean(value) for name, value in record.items()}
    return orjson.dumps(cleaned)


def _clean(value: object) -> object:
    if isinstance(value, str):
        return escape(str(value))
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else None
    if isinstance(value, list | tuple | set | frozenset):
        items = [escape(str(item)) for item in value]
        return items if len(items) <= MAX_ITEMS else [*items[:MAX_ITEMS], f"{CUT}{len(items) - MAX_ITEMS} more"]
    return None
