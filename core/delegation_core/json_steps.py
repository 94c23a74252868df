"""Incremental parser of strict JSON documents of several megabytes; as ``parse_object``, with one more limit.

Steps end between members of the object and between items of arrays directly in it. So each such item, and each other
member, has at most about 64 KiB of text.
"""

from __future__ import annotations

import re
from typing import Final

from delegation_core.steps import Steps
from delegation_core.strict_json import MAX_DEPTH, StrictJsonError, members_once, parse_value

_STEP: Final = 16_384  # characters of a step: about a millisecond
_ROOM: Final = 65_536  # characters of the longest item
_SPACE: Final = re.compile(r"[ \t\n\r]*")


class _Text:
    """Cursor over a text, through a window that moves forward with each step."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._from = 0
        self._window = text[: _STEP + _ROOM]
        self._at = 0
        self._moved = False

    def moved(self) -> bool:
        """Return True if the window moved since the last call, and reset the flag."""
        moved, self._moved = self._moved, False
        return moved

    def peek(self) -> str:
        """Skip white space and return the next character without consuming it; empty at the end."""
        while True:
            found = _SPACE.match(self._window, self._at)
            self._at = self._at if found is None else found.end()
            if self._at < _STEP:
                return self._window[self._at : self._at + 1]
            self._from += self._at
            self._window = self._text[self._from : self._from + _STEP + _ROOM]
            self._at = 0
            self._moved = True

    def take(self, *expected: str) -> str:
        """Consume and return the next character. Raises StrictJsonError if it is not one of ``expected``."""
        found = self.peek()
        if found not in expected:
            raise StrictJsonError("the document is not JSON")
        self._at += 1
        return found

    def value(self, max_depth: int) -> object:
        """Consume and return the next value. Raises StrictJsonError if the window does not hold all of it."""
        self.peek()
        value, self._at = parse_value(self._window, self._at, max_depth=max_depth)
        return value


def object_in_steps(document: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> Steps[dict[str, object]]:
    """Parse one UTF-8 JSON object without a byte order mark, in steps.

    Raises:
        StrictJsonError: anything that ``parse_object`` refuses, or an item of more than 64 KiB.
    """
    if len(document) > max_bytes:
        raise StrictJsonError("the document is too large")
    try:
        text = _Text(document.decode("utf-8"))
    except UnicodeError:
        raise StrictJsonError("the document is not Unicode") from None  # the original error quotes the input
    if text.peek() != "{":
        raise StrictJsonError("the document is not an object")
    members: list[tuple[str, object]] = []
    between = text.take("{")
    if text.peek() == "}":
        between = text.take("}")
    while between != "}":
        name = text.value(0)
        if not isinstance(name, str):
            raise StrictJsonError("the document is not JSON")
        text.take(":")
        members.append(
            (name, (yield from _items(text, max_depth)) if text.peek() == "[" else text.value(max_depth - 1))
        )
        between = text.take(",", "}")
        if text.moved():
            yield
    if text.peek():
        raise StrictJsonError("the document is not JSON")
    return members_once(members)


def _items(text: _Text, max_depth: int) -> Steps[list[object]]:
    if max_depth < 2:
        raise StrictJsonError("the document is nested too deeply")
    items: list[object] = []
    between = text.take("[")
    if text.peek() == "]":
        between = text.take("]")
    while between != "]":
        items.append(text.value(max_depth - 2))
        between = text.take(",", "]")
        if text.moved():
            yield
    return items
