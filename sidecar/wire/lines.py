"""Header lines, read: each distinct line is judged once and remembered, since most lines of a head come again.

What a line says depends on nothing but the line, so remembering it decides nothing about the request that holds it. A
line that is not seen again is forgotten after ``MAX_KNOWN`` others at the latest; a flood of new ones costs what
reading costs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from sidecar.errors import Denied, Reason
from sidecar.wire.head import Field, Fields

MAX_KNOWN: Final = 1024
MAX_KNOWN_BYTES: Final = 1024  # of one line: with its name and value, three times that is kept

# field-line of RFC 9112 section 5 without line folding: nothing before the colon but the name, no control in the value.
_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[\t ]*+([\t\x20-\x7e\x80-\xff]*+)")


class FieldLines:
    """Reads lines into fields. Two generations of what is known: who is asked for stays, the rest goes together."""

    __slots__ = ("_old", "_young")

    def __init__(self) -> None:
        self._young: dict[bytes, Field] = {}
        self._old: dict[bytes, Field] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def read(self, lines: Iterable[bytes]) -> Fields:
        """The fields of one head, in order; ``lines`` are without their line breaks.

        Raises:
            Denied: BAD_REQUEST, a line that is no header field.
        """
        known = self._young.get
        return Fields([known(line) or self._find(line) for line in lines])

    def _find(self, line: bytes) -> Field:
        field = self._old.get(line) or read_line(line)
        if len(line) <= MAX_KNOWN_BYTES:
            if len(self._young) >= MAX_KNOWN // 2:
                self._old, self._young = self._young, {}
            self._young[line] = field
        return field


def read_line(line: bytes) -> Field:
    """One header field: name in lower case, value without surrounding white space.

    Raises:
        Denied: BAD_REQUEST, the line is none. The detail does not quote it.
    """
    match = _LINE.fullmatch(line)
    if match is None:
        raise Denied(Reason.BAD_REQUEST, "a header field is malformed")
    return match[1].lower(), match[2].rstrip(b" \t")
