"""Forwards a call with the sidecar's key, and searches the answer for that key: the agent must not see it.

The call asks for an answer without content coding. An answer that cannot be searched is refused: one with a content
coding, with a character set that is neither a superset of ASCII nor UTF-16 or UTF-32, an archive, or partial content.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from delegation_core.errors import Denied, Reason
from sidecar.features.outside.key_spellings import spellings_of
from sidecar.proxy.journeys.forward import Forwarding, Way
from sidecar.wire.message import Field, Response

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PARTS: Final = frozenset({206, 226})  # partial content: a range (RFC 9110), a delta (RFC 3229)
_charset: Final = re.compile(rb"(?i);[ \t]*charset[ \t]*=[ \t]*\"?([^\";, \t]*)").findall
_searched: Final = re.compile(
    rb"(?i)(?:utf-?8|(?:us-)?ascii|iso-?8859-[0-9]{1,2}|latin-?1|windows-125[0-9]|utf-?(?:16|32)(?:le|be)?)"
).fullmatch
_archive: Final = re.compile(
    rb"(?i)[ \t]*+(?:application/(?:x-)?(?:gzip|zip|zip-compressed|zstd|bzip2?|xz|lzma|lzip|compress|7z-compressed"
    rb"|brotli|rar-compressed|java-archive|vnd\.rar|vnd\.openxmlformats[^;,]*+)|(?:[^;,+]*+\+)++(?:gzip|zip|zstd))"
    rb"[ \t]*+(?:[;,]|\Z)"
).match
_ARCHIVES: Final = (
    *(b"\x1f\x8b", b"\x1f\x9d", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!"),
    *(b"x\x01", b"x\x9c", b"x\xda", b"\x04\x22\x4d\x18"),
)
_MARK: Final = max(map(len, _ARCHIVES))


class KeyedForwarding(Forwarding):
    """A call with a ``key``. Refuses an answer that contains the key or cannot be searched for it."""

    __slots__ = ("_begins", "_screen")

    def __init__(self, way: Way, key: bytes) -> None:
        super().__init__(*way)
        self._screen = AnswerScreen(key)
        self._begins = b""

    def on_whole_response(self, head: Response, data: bytes) -> None:
        """Pass a whole answer back, or refuse it."""
        self._upstream = None  # the connection may serve another request already
        fault = self._fault_of(head, data) or (None if self._screen.lets(data) else _exposure())
        if fault is not None:
            self._refuse(head, fault)
            return
        super().on_whole_response(head, data)

    def on_response(self, head: Response, data: bytes) -> None:
        """Begin to pass the answer back, or refuse it by its head or its first bytes."""
        fault = self._fault_of(head, data)
        passed = self._screen.feed(data)
        if fault is not None or passed is None:
            self._refuse(head, fault or _exposure())
            return
        super().on_response(head, passed)

    def on_response_data(self, data: bytes) -> None:
        """Pass content back; cut the answer before the key."""
        if len(self._begins) < _MARK and (fault := self._fault_of_content(data)) is not None:
            self._finish(fault)
            return
        passed = self._screen.feed(data)
        if passed is None:
            self._finish(_exposure())
        elif passed:
            super().on_response_data(passed)

    def on_response_end(self) -> None:
        """Pass the bytes that were held back and end the answer, or cut it."""
        rest = self._screen.rest()
        if rest is None:
            self._finish(_exposure())
            return
        if rest:
            super().on_response_data(rest)
        super().on_response_end()

    def end_answer(self, found: Sequence[Field]) -> None:
        """End the answer with its trailers, or cut it if they contain the key."""
        if all(map(self._screen.lets, _texts(found))):
            super().end_answer(found)
        else:
            self._finish(_exposure())

    def _refuse(self, head: Response, fault: Denied) -> None:
        self._entry.responded(head.status)
        self._finish(fault)

    def _fault_of(self, head: Response, data: bytes) -> Denied | None:
        if not all(map(self._screen.lets, _texts(head.fields))):
            return _exposure()
        if head.status in _REDIRECTS:
            return Denied(Reason.UPSTREAM_BAD_RESPONSE, "a redirect, which is not followed with a static key")
        if head.status in _PARTS:
            return _unsearchable("partial content")
        if any(value.strip().lower() != b"identity" for value in head.all(b"content-encoding")):
            return Denied(Reason.UPSTREAM_BAD_RESPONSE, "the content is encoded, though identity was asked for")
        types = head.all(b"content-type")
        if not all(_searched(charset) for value in types for charset in _charset(value)):
            return _unsearchable("content of another character set")
        return _unsearchable("an archive") if any(map(_archive, types)) else self._fault_of_content(data)

    def _fault_of_content(self, data: bytes) -> Denied | None:
        """Return an error for an archive, recognised by its first bytes; its declared type does not matter."""
        self._begins += data[: _MARK - len(self._begins)]
        return _unsearchable("an archive") if self._begins.startswith(_ARCHIVES) else None


def _texts(fields: Sequence[Field]) -> list[bytes]:
    return [text for field in fields for text in field]


class AnswerScreen:
    """Looks for a key in the content of an answer, whatever the pieces in which it arrives.

    Bytes that may be the beginning of the key are held back until what follows shows that they are not.
    """

    __slots__ = ("_held", "_spellings")

    def __init__(self, key: bytes) -> None:
        self._spellings = spellings_of(key)
        self._held = b""

    def feed(self, data: bytes) -> bytes | None:
        """Return the bytes that may go on; None: the key is in them."""
        data = self._held + data
        safe = self._spellings.find(data)
        if safe is None:
            return None
        self._held = data[safe:]
        return data[:safe]

    def rest(self) -> bytes | None:
        """Return the bytes held back until the end of the answer; None: the key is in them."""
        held, self._held = self._held, b""
        return held if self.lets(held) else None

    def lets(self, whole: bytes) -> bool:
        """Return True if a complete text is free of the key."""
        return self._spellings.find(whole, final=True) is not None


def _exposure() -> Denied:
    return Denied(Reason.CREDENTIAL_EXPOSED)


def _unsearchable(detail: str) -> Denied:
    return Denied(Reason.UPSTREAM_BAD_RESPONSE, f"{detail}, which cannot be searched for the key")
