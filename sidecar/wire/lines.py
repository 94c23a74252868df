"""Header lines, read: each distinct line is judged once and remembered, and so is each set of lines.

What a line says depends on nothing but the line, and what lines say together on nothing but those lines, so remembering
it decides nothing about the request that holds them. A flood of new ones costs what reading costs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, cast

from sidecar.errors import Denied, Reason
from sidecar.wire.head import FRESH, Field, Fields

MAX_KNOWN: Final = 1024  # lines
MAX_HEADS: Final = 256  # sets of them; each holds a table of its fields, so that a flood of new ones weighs several MiB
MAX_KNOWN_BYTES: Final = 2048  # of one line, or twice that of one head; several times that is kept

# By these values heads differ that are otherwise alike; left in, hardly a head would come twice.
NEVER_AGAIN: Final = frozenset({b"delegation-call", b"traceparent", b"tracestate", b"x-request-id"})
FRESH_NAMES: Final = NEVER_AGAIN | {b"authorization", b"content-length", b"date"}
PLACES: Final[dict[bytes, Field]] = {name: (name, FRESH) for name in FRESH_NAMES}

# field-line of RFC 9112 section 5 without line folding: nothing before the colon but the name, no control in the value.
_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[\t ]*+([\t\x20-\x7e\x80-\xff]*+)")


class FieldLines:
    """Reads lines into fields, and remembers what was read until too much is known: then it begins anew."""

    __slots__ = ("_common", "_known", "_values")

    def __init__(self) -> None:
        self._known: dict[bytes, Field] = {}  # by line; of a fresh one its place, and its value in _values
        self._values: dict[bytes, bytes] = {}
        self._common: dict[tuple[Field | None, ...], Fields] = {}

    def __len__(self) -> int:
        return len(self._known) + len(self._common)

    def read(self, lines: Sequence[bytes]) -> tuple[Fields, dict[bytes, bytes]]:
        """The fields of one head, in order: (``Head.common``, ``Head.fresh``). ``lines`` are without line breaks.

        Raises:
            Denied: BAD_REQUEST, a line that is no header field.
        """
        found = [*map(self._known.get, lines)]
        values = self._values.get
        new = self._read_new(found, lines) if None in found else None
        key = tuple(found)
        common = self._common.get(key)
        if common is None:
            common = self._have_in_common(key)
        if common.repeated and common.has_doubled_place:
            return Fields([read_line(line) for line in lines]), {}
        fresh = dict(zip(common.fresh_names, map(values, map(lines.__getitem__, common.fresh_at)), strict=True))
        if new is not None:
            fresh.update(new)
        return common, cast("dict[bytes, bytes]", fresh)  # each value is either known or new

    def _read_new(self, found: list[Field | None], lines: Sequence[bytes]) -> dict[bytes, bytes]:
        """Read the lines that are not known; gives the fresh values among them."""
        fresh: dict[bytes, bytes] = {}
        at = -1
        for _ in range(found.count(None)):
            at = found.index(None, at + 1)
            line = lines[at]
            field = read_line(line)
            name, value = field
            if name in FRESH_NAMES:
                fresh[name] = value
                field = PLACES[name]
            found[at] = field
            if name not in NEVER_AGAIN and len(line) <= MAX_KNOWN_BYTES:
                self._keep(line, field, value)
        return fresh

    def _keep(self, line: bytes, field: Field, value: bytes) -> None:
        if len(self._known) >= MAX_KNOWN:  # new ones, since who is reading has hold of the old
            self._known, self._values = {}, {}
        self._known[line] = field
        if field[1] is FRESH:
            self._values[line] = value

    def _have_in_common(self, key: tuple[Field | None, ...]) -> Fields:
        common = Fields(field for field in key if field is not None)
        if sum(len(name) + len(value) for name, value in common) <= 2 * MAX_KNOWN_BYTES:
            if len(self._common) >= MAX_HEADS:
                self._common = {}
            self._common[key] = common
        return common


def read_line(line: bytes) -> Field:
    """One header field: name in lower case, value without surrounding white space.

    Raises:
        Denied: BAD_REQUEST, the line is none. The detail does not quote it.
    """
    match = _LINE.fullmatch(line)
    if match is None:
        raise Denied(Reason.BAD_REQUEST, "a header field is malformed")
    return match[1].lower(), match[2].rstrip(b" \t")
