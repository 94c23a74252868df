"""Messages in a stream of server-sent events (WHATWG HTML section 9.2), changed one by one as they pass. Pure.

An event passes when it is complete, byte for byte unless its message changes. A rest that is no complete event at the
end of the stream is dropped, as its reader would drop it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from sidecar.errors import Denied, Reason

_END: Final = re.compile(rb"(?:\A|\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n|\Z))")  # of an event: an empty line
_LINE: Final = re.compile(rb"([^\r\n]*)(\r\n|\n|\r)")
_BOM: Final = b"\xef\xbb\xbf"
_LONGEST_END: Final = 3  # bytes of an end that may be here already


class EventMessages:
    """Passes events of at most ``max_bytes``, with their messages as ``change`` returns them: on one line."""

    __slots__ = ("_begun", "_change", "_held", "_max_bytes")

    def __init__(self, change: Callable[[bytes], bytes], *, max_bytes: int) -> None:
        self._change = change
        self._max_bytes = max_bytes
        self._held = bytearray()
        self._begun = False

    def passed(self, data: bytes) -> bytes:
        """Return the events that are complete with ``data``.

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
        """Return the last event, if it is complete now that nothing follows: its last line feed may be missing."""
        return self.passed(b"\n") if self._held.endswith(b"\r") else b""

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
        # A carriage return before a line feed would be one end with it, and the event would lose its own.
        return b"data: " + changed + (b"\n" if first == b"\r" else first) + b"".join(others)


def _data_of(line: bytes) -> bytes | None:
    """Return the value of a line that holds data; None if it holds none."""
    name, _, value = line.partition(b":")
    return value.removeprefix(b" ") if name == b"data" else None
