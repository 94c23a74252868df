"""Ids of server-sent events (WHATWG HTML section 9.2), changed as they pass. Pure.

Nothing else of a stream changes or waits: only a line that is not complete and may still be one of an id is held.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from sidecar.errors import Denied, Reason

MAX_ID_BYTES: Final = 1024

_END: Final = re.compile(rb"[\r\n]")
_NAME: Final = b"id"
_BOM: Final = b"\xef\xbb\xbf"


class EventIds:
    """Passes a stream with each id as ``bind`` returns it."""

    __slots__ = ("_begun", "_bind", "_held", "_line_begins")

    def __init__(self, bind: Callable[[bytes], bytes]) -> None:
        self._bind = bind
        self._held = b""
        self._line_begins = True
        self._begun = False

    def passed(self, data: bytes) -> bytes:
        """Return what may pass with ``data``. A line of an id that is never completed does not pass.

        Raises:
            Denied: UPSTREAM_BAD_RESPONSE, an id is too long.
        """
        text, self._held = self._held + data, b""
        passed: list[bytes] = []
        at = 0
        if not self._begun:
            if len(text) < len(_BOM) and _BOM.startswith(text):
                self._held = text
                return b""
            self._begun = True
            if text.startswith(_BOM):
                passed.append(_BOM)
                at = len(_BOM)
        while at < len(text):
            end = _END.search(text, at)
            if self._line_begins and (text.startswith(_NAME, at) or text[at:] == _NAME[:1]):
                if end is None:
                    self._hold(text[at:])
                    break
                passed.append(self._line(text[at : end.start()]))
                at = end.start()
            if end is None:
                passed.append(text[at:])
                self._line_begins = False
                break
            passed.append(text[at : end.end()])
            at = end.end()
            self._line_begins = True
        return b"".join(passed)

    def _hold(self, line: bytes) -> None:
        if len(line) > MAX_ID_BYTES + len(_NAME) + 2:
            raise Denied(Reason.UPSTREAM_BAD_RESPONSE, "the id of an event is too long")
        self._held = line

    def _line(self, line: bytes) -> bytes:
        name, _, value = line.partition(b":")
        if name != _NAME:
            return line
        value = value.removeprefix(b" ")
        if len(value) > MAX_ID_BYTES:
            raise Denied(Reason.UPSTREAM_BAD_RESPONSE, "the id of an event is too long")
        return b"id: " + self._bind(value) if value else line
