"""Header fields that repeat a message of MCP 2026-07-28: decodes ``Mcp-Name``, and checks ``Mcp-Param-*``.

A tool's schema names the field of each argument (``x-mcp-header``), but the sidecar reads no schemas. So a value must
equal that of an argument of the same name, if there is one, else that of any argument. The server knows the schema: it
compares exactly, and detects missing fields.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

_ENCODED: Final = re.compile(r"=\?base64\?(.*)\?=", re.DOTALL)
_LOOKS_ENCODED: Final = re.compile(r"=\?base64\?.*=", re.DOTALL | re.IGNORECASE)
_TEXT: Final = re.compile(r"[\t -~]*")  # values that need no encoding
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,20})?")
_MOST: Final = 2**53  # below it all parsers read the same number (RFC 7493 section 2.2)


def decode_field(value: str) -> str | None:
    """Return the decoded value of a field: plain, or base64 of UTF-8 as ``=?base64?…?=``.

    None if the value is malformed, or only some parsers would take it as encoded.
    """
    encoded = _ENCODED.fullmatch(value)
    if encoded is None:
        suspicious = _LOOKS_ENCODED.fullmatch(value) is not None and value.endswith("?=")
        return None if suspicious or not _TEXT.fullmatch(value) else value
    try:
        text = base64.b64decode(encoded[1], validate=True)
        return text.decode() if base64.b64encode(text).decode() == encoded[1] else None
    except (binascii.Error, ValueError):
        return None


def problem_of_params(fields: Iterable[tuple[str, str]], arguments: object) -> str | None:
    """Return the problem if ``Mcp-Param-*`` fields contradict a call's ``arguments``; None if they do not.

    ``fields``: the lower-case rest of each name after ``Mcp-Param-``, and the value.
    """
    shown: dict[str, str] = {}
    for name, value in fields:
        decoded = decode_field(value)
        if decoded is None:
            return "an Mcp-Param field cannot be decoded"
        if _folded(name) in shown:
            return "two Mcp-Param fields of one name"
        shown[_folded(name)] = decoded
    if not shown:
        return None
    if not isinstance(arguments, dict):
        return "an Mcp-Param field, but the call has no arguments"
    everywhere, by_name = _Values(), {name: _Values() for name in shown}
    objects: list[Mapping[str, object]] = [arguments]
    while objects:
        members = objects.pop()
        if _is_ambiguous(members, by_name):
            return "two arguments with the name of an Mcp-Param field differ in case alone"
        for member, said in members.items():
            if isinstance(said, dict):
                objects.append(said)
                continue
            everywhere.add(said)
            if (same := by_name.get(_folded(member))) is not None:
                same.add(said)
    for name, text in shown.items():
        if not (by_name[name] if by_name[name].named else everywhere).have(text):
            return "an Mcp-Param field differs from its argument"
    return None


class _Values:
    """Set of argument values. ``named``: an argument was added, even null or an array, which no field can repeat."""

    __slots__ = ("_numbers", "_texts", "named")

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._numbers: set[Decimal] = set()
        self.named = False

    def add(self, value: object) -> None:
        self.named = True
        if isinstance(value, bool):
            self._texts.add("true" if value else "false")
        elif isinstance(value, str):
            self._texts.add(value)
        elif isinstance(value, int | float) and abs(value) < _MOST:
            self._numbers.add(Decimal(str(value)))

    def have(self, text: str) -> bool:
        """True if ``text`` represents one of the values. Numbers compare by value: 42 equals 42.0."""
        return text in self._texts or (_NUMBER.fullmatch(text) is not None and Decimal(text) in self._numbers)


def _folded(name: str) -> str:
    """Fold an argument's or a field's name so that ``user_id`` and ``User-Id`` are equal."""
    return name.replace("-", "").replace("_", "").casefold()


def _is_ambiguous(members: Mapping[str, object], names: Mapping[str, object]) -> bool:
    """True if two members for a field in ``names`` differ only in case; some parsers treat those as equal."""
    same = [name.casefold() for name in members if _folded(name) in names]
    return len(set(same)) != len(same)
