"""Rewrites the ids of server-sent events (WHATWG HTML section 9.2) in a stream. Pure.

The rest of a stream passes unchanged and at once. Only an incomplete line that may be an id is held back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from delegation_core.errors import Denied, Reason
from delegation_core.mcp_session import BOUND_BEFORE, MAX_ID

MAX_AT_ONCE: Final = 2048  # ids in one read of 64 KB, each costs a MAC; every message of MCP is longer than 32 bytes

_ID: Final = re.compile(rb"(?:\A|(?<=[\r\n]))id: ?+([^\r\n]+)(?=[\r\n])")
_END: Final = re.compile(rb"[\r\n]")
_BOUND_BEFORE: Final = re.compile(BOUND_BEFORE.encode())
_BOM: Final = b"\xef\xbb\xbf"


class EventIds:
    """Filter of one stream that replaces each event id by the result of ``bind``."""

    __slots__ = ("_at_once", "_begun", "_bind", "_held", "_line_begins")

    def __init__(self, bind: Callable[[bytes], bytes]) -> None:
        self._bind = bind
        self._held = b""
        self._line_begins = True
        self._begun = False
        self._at_once = 0

    def feed(self, data: bytes) -> bytes:
        """Feed ``data`` and return the bytes to pass on. A line of an id that never ends is never passed on.

        Raises:
            Denied: UPSTREAM_BAD_RESPONSE, an id is too long, or ``data`` has more than ``MAX_AT_ONCE`` ids.
        """
        text, self._held = self._held + data, b""
        self._at_once = 0
        before = b""
        if not self._begun:
            if len(text) < len(_BOM) and _BOM.startswith(text):
                self._held = text
                return b""
            self._begun = True
            if text.startswith(_BOM):
                before, text = _BOM, text[len(_BOM) :]
        if not self._line_begins:
            end = _END.search(text)
            if end is None:
                return before + text
            before, text = before + text[: end.start()], text[end.start() :]
        last = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        lines, rest = text[:last], text[last:]
        self._line_begins = not rest
        if rest in {b"i", b"id"} or rest.startswith(b"id:"):
            _check(rest.removeprefix(b"id:").removeprefix(b" "))
            self._held, rest = rest, b""
            self._line_begins = True
        return before + _ID.sub(self._bound, lines) + rest

    def _bound(self, found: re.Match[bytes]) -> bytes:
        self._at_once += 1
        if self._at_once > MAX_AT_ONCE:
            raise Denied(Reason.UPSTREAM_BAD_RESPONSE, "too many ids of events at once")
        _check(found[1])
        return b"id: " + self._bind(found[1])


def _check(event: bytes) -> None:
    before = _BOUND_BEFORE.match(event)
    assert before is not None  # noqa: S101 - for the type only: it matches an empty text, too
    if len(event) - before.end() > MAX_ID:
        raise Denied(Reason.UPSTREAM_BAD_RESPONSE, "the id of an event is too long")
