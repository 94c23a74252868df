"""Header lines, read: each distinct line is judged once and remembered, and so is each set of lines.

What a line says depends on nothing but the line, and what lines say together on nothing but those lines, so remembering
it decides nothing about the request that holds them. What is not seen again is forgotten after as many others at the
latest; a flood of new ones costs what reading costs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from sidecar.errors import Denied, Reason
from sidecar.wire.head import FRESH, Field, Fields

MAX_KNOWN: Final = 1024  # lines, and as many sets of them
MAX_KNOWN_BYTES: Final = 2048  # of one line, or twice that of one head; several times that is kept

# By these values heads differ that are otherwise alike; left in, hardly a head would come twice.
FRESH_NAMES: Final = frozenset(
    {b"authorization", b"content-length", b"date", b"delegation-call", b"traceparent", b"tracestate"}
)
_NEVER_AGAIN: Final = frozenset({b"delegation-call", b"traceparent", b"tracestate"})
_PLACES: Final[dict[bytes, Field]] = {name: (name, FRESH) for name in FRESH_NAMES}

# field-line of RFC 9112 section 5 without line folding: nothing before the colon but the name, no control in the value.
_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[\t ]*+([\t\x20-\x7e\x80-\xff]*+)")


class FieldLines:
    """Reads lines into fields. Two generations of what is known: who is asked for stays, the rest goes together."""

    __slots__ = ("_common", "_fresh", "_old", "_old_common", "_old_fresh", "_young")

    def __init__(self) -> None:
        self._young: dict[bytes, Field] = {}
        self._old: dict[bytes, Field] = {}
        self._fresh: dict[bytes, Field] = {}
        self._old_fresh: dict[bytes, Field] = {}
        self._common: dict[tuple[Field, ...], Fields] = {}
        self._old_common: dict[tuple[Field, ...], Fields] = {}

    def __len__(self) -> int:
        return self.lines_known + len(self._common) + len(self._old_common)

    @property
    def lines_known(self) -> int:
        """How many lines are remembered."""
        return len(self._young) + len(self._old) + len(self._fresh) + len(self._old_fresh)

    def read(self, lines: Sequence[bytes]) -> tuple[Fields, dict[bytes, bytes]]:
        """The fields of one head, in order: (``Head.common``, ``Head.fresh``). ``lines`` are without line breaks.

        Raises:
            Denied: BAD_REQUEST, a line that is no header field.
        """
        fresh: dict[bytes, bytes] = {}
        found = [*map(self._young.get, lines)]
        if not all(found) and not self._complete(found, lines, fresh):
            return Fields([read_line(line) for line in lines]), {}
        key: tuple[Field, ...] = tuple(found)  # type: ignore[arg-type]  # complete by now
        common = self._common.get(key)
        if common is None:
            common = self._remember_common(key)
        return common, fresh

    def _complete(self, found: list[Field | None], lines: Sequence[bytes], fresh: dict[bytes, bytes]) -> bool:
        """Read what was not found; False if a field comes twice that should be told apart."""
        at = -1
        for _ in range(found.count(None)):
            at = found.index(None, at + 1)
            line = lines[at]
            name, value = field = self._fresh.get(line) or self._read(line)
            if name not in FRESH_NAMES:
                found[at] = field
            elif name not in fresh:
                found[at] = _PLACES[name]
                fresh[name] = value
            else:
                return False
        return True

    def _read(self, line: bytes) -> Field:
        field = self._old.get(line) or self._old_fresh.get(line) or read_line(line)
        name = field[0]
        if name in _NEVER_AGAIN or len(line) > MAX_KNOWN_BYTES:
            return field
        if name in FRESH_NAMES:
            if len(self._fresh) >= MAX_KNOWN // 2:
                self._old_fresh, self._fresh = self._fresh, {}
            self._fresh[line] = field
        else:
            if len(self._young) >= MAX_KNOWN // 2:
                self._old, self._young = self._young, {}
            self._young[line] = field
        return field

    def _remember_common(self, key: tuple[Field, ...]) -> Fields:
        common = self._old_common.get(key) or Fields(key)
        if sum(len(name) + len(value) for name, value in key) <= 2 * MAX_KNOWN_BYTES:
            if len(self._common) >= MAX_KNOWN // 2:
                self._old_common, self._common = self._common, {}
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
