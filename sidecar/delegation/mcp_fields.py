"""Values of header fields that repeat a message of MCP 2026-07-28: ``Mcp-Name``, and ``Mcp-Param-*`` of tool arguments.

A tool's schema names the field of each argument (``x-mcp-header``), and the sidecar reads no schemas. So a value has to
be that of an argument of the same name, if there is one, or else that of some argument. The server, which knows the
schema, compares the two themselves, and misses fields that are not there.
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
_TEXT: Final = re.compile(r"[\t -~]*")  # what a field may hold without being encoded
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,20})?")
_MOST: Final = 2**53  # beyond it parsers read one number from different texts (RFC 7493 section 2.2)


def decode_field(value: str) -> str | None:
    """Return the text that a field stands for: as it is, or the base64 of its UTF-8 between two marks.

    None: it is malformed, or looks encoded to some readers and not to others.
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


def fault_of_params(fields: Iterable[tuple[str, str]], arguments: object) -> str | None:
    """Return the error of a call whose ``Mcp-Param-*`` fields do not repeat its arguments; None: they do.

    ``fields`` are what follows ``Mcp-Param-`` in each name, in lower case, and its value.
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
        return "an Mcp-Param field without an argument"
    everywhere, by_name = _Values(), {name: _Values() for name in shown}
    objects: list[Mapping[str, object]] = [arguments]
    while objects:
        members = objects.pop()
        if _is_ambiguous(members, by_name):
            return "two arguments for an Mcp-Param field whose names differ in case alone"
        for member, said in members.items():
            if isinstance(said, dict):
                objects.append(said)
                continue
            everywhere.add(said)
            if (same := by_name.get(_folded(member))) is not None:
                same.add(said)
    for name, text in shown.items():
        if not (by_name[name] if by_name[name].named else everywhere).have(text):
            return "an Mcp-Param field is not what the arguments say"
    return None


class _Values:
    """Values of arguments. ``named``: there is an argument, if only null or an array, which no field repeats."""

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
        """True if one of them is written so. Numbers are compared as such: 42 is 42.0."""
        return text in self._texts or (_NUMBER.fullmatch(text) is not None and Decimal(text) in self._numbers)


def _folded(name: str) -> str:
    """Fold a name as servers fold those of fields, and as people name one thing in two places: ``user_id``, User-Id."""
    return name.replace("-", "").replace("_", "").casefold()


def _is_ambiguous(members: Mapping[str, object], names: Mapping[str, object]) -> bool:
    """True if an object has two members for one field that differ in case alone: some parsers take them for one."""
    same = [name.casefold() for name in members if _folded(name) in names]
    return len(set(same)) != len(same)
