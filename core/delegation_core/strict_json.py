"""Strict parser for untrusted JSON: one object, no duplicate members, bounded depth and numbers (RFC 8259, RFC 7493).

Python's own parser accepts duplicate members (the last counts), NaN, and numbers of any length. Parsers that differ
there disagree about what was signed, so ambiguous documents are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Final, NoReturn

MAX_DEPTH: Final = 16
MAX_INTEGER_DIGITS: Final = 16
_MAX_FLOAT_CHARACTERS: Final = 40


class StrictJsonError(ValueError):
    """The document is refused. ``duplicate``: because of two members with one name. The message never quotes input."""

    def __init__(self, message: str, *, duplicate: bool = False) -> None:
        super().__init__(message)
        self.duplicate = duplicate


def members_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the members of an object. Raises StrictJsonError if two have the same name."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise StrictJsonError("an object has two members with one name", duplicate=True)
    return members


def _integer(digits: str) -> int:
    if len(digits.removeprefix("-")) > MAX_INTEGER_DIGITS:
        raise StrictJsonError("an integer is too long")
    return int(digits)


def _float(digits: str) -> float:
    if len(digits) > _MAX_FLOAT_CHARACTERS or not math.isfinite(value := float(digits)):
        raise StrictJsonError("a number is out of range")
    return value


def _constant(_name: str) -> NoReturn:
    raise StrictJsonError("NaN and Infinity are not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=members_once, parse_int=_integer, parse_float=_float, parse_constant=_constant
)


def parse_object(document: bytes, *, max_bytes: int = 65536, max_depth: int = MAX_DEPTH) -> dict[str, object]:
    """Parse one UTF-8 JSON object without a byte order mark.

    Raises:
        StrictJsonError: any other document, or one with duplicate members at any level, NaN or Infinity, integers of
            more than 16 digits, lone surrogates, or objects and arrays nested more than ``max_depth`` deep.
    """
    if len(document) > max_bytes:
        raise StrictJsonError("the document is too large")
    try:
        value = _DECODER.decode(document.decode("utf-8"))
        if b"\\u" in document:  # only an escape can produce a lone surrogate, and encoding the result detects it
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        raise StrictJsonError("the document is not Unicode") from None  # the original error quotes the input
    except json.JSONDecodeError:
        raise StrictJsonError("the document is not JSON") from None
    except RecursionError:
        raise StrictJsonError("the document is nested too deeply") from None
    if not isinstance(value, dict):
        raise StrictJsonError("the document is not an object")
    if may_nest(document, max_depth) and nesting_of(value) > max_depth:
        raise StrictJsonError("the document is nested too deeply")
    return value


def parse_value(text: str, at: int, *, max_depth: int) -> tuple[object, int]:
    """Parse the JSON value at offset ``at``; return the value and the offset after it. Raises as ``parse_object``."""
    try:
        value, end = _DECODER.raw_decode(text, at)
        if text.find("\\u", at, end) >= 0:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        raise StrictJsonError("the document is not Unicode") from None
    except json.JSONDecodeError:
        raise StrictJsonError("the document is not JSON") from None
    except RecursionError:
        raise StrictJsonError("the document is nested too deeply") from None
    if text.count("{", at, end) + text.count("[", at, end) > max_depth and nesting_of(value) > max_depth:
        raise StrictJsonError("the document is nested too deeply")
    return value, end


def may_nest(document: bytes, deeper_than: int) -> bool:
    """True if the document has more than ``deeper_than`` opening brackets, also in strings, and so may nest deeper."""
    return document.count(b"{") + document.count(b"[") > deeper_than


def nesting_of(value: object) -> int:
    """Return the nesting depth of objects and arrays: 0 for a string or a number, 1 for ``{}``."""
    depth = 0
    level: list[object] = [value]
    while containers := [inner for inner in level if isinstance(inner, dict | list)]:
        depth += 1
        level = [inner for container in containers for inner in _contents(container)]
    return depth


def _contents(container: dict[str, object] | list[object]) -> Iterable[object]:
    return container.values() if isinstance(container, dict) else container
