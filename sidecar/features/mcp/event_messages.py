"""Rewrites the messages in a stream of server-sent events (WHATWG HTML section 9.2). Pure.

Each complete event passes, byte for byte unless its message changes. An incomplete event at the end of the stream is
dropped, as every reader would drop it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from delegation_core.errors import Denied, Reason

_END: Final = re.compile(rb"(?:\A|\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n|\Z))")  # of an event: an empty line
_LINE: Final = re.compile(rb"([^\r\n]*)(\r\n|\n|\r)")
_BOM: Final = b"\xef\xbb\xbf"
_LONGEST_END: Final = 3  # bytes of an incomplete ``_END`` that earlier data may end with


class EventMessages:
    """Filter of one stream: replaces each message by ``change(message)``, one line. ``max_bytes`` limits an event."""

    __slots__ = ("_begun", "_change", "_held", "_max_bytes")

    def __init__(self, change: Callable[[bytes], bytes], *, max_bytes: int) -> None:
        self._change = change
        self._max_bytes = max_bytes
        self._held = bytearray()
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        """Feed ``data`` and return the events that are complete now.

        Raises:
            Denied: LIST_UNREADABLE, an event is too long; or as ``change``.
        """
        held = self._held
        seen = max(0, len(held) - _LONGEST_END)
        held += data
        passed: list[bytes] = []
        while (end := _END.search(held, seen)) is not None:
            event = bytes(held[: end.end()])
            del held[: end.end()]
            seen = 0
            passed.append(self._event(event))
        if len(held) > self._max_bytes:
            raise Denied(Reason.LIST_UNREADABLE, "an event is too long")
        return b"".join(passed)

    def rest(self) -> bytes:
        """Return the last event at the end of the stream, if a carriage return ends it; else nothing."""
        return self.feed(b"\n") if self._held.endswith(b"\r") else b""

    def _event(self, event: bytes) -> bytes:
        shown = event if self._begun else event.removeprefix(_BOM)
        self._begun = True
        lines = [(line[1], line[2]) for line in _LINE.finditer(shown)]
        values = [value for line, _ in lines if (value := _data_of(line)) is not None]
        text = b"\n".join(values)
        if not text.strip():
            return event
        changed = self._change(text)
        if changed == text:
            return event
        others = [line + end for line, end in lines if _data_of(line) is None]
        first = lines[0][1]
        # A carriage return and the next line's feed would read as one line end: the event would lose its empty line.
        return b"data: " + changed + (b"\n" if first == b"\r" else first) + b"".join(others)


def _data_of(line: bytes) -> bytes | None:
    """Return the value of a ``data`` line; None for other lines."""
    name, _, value = line.partition(b":")
    return value.removeprefix(b" ") if name == b"data" else None
