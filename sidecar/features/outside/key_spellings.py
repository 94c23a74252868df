"""Finds a key in the content of an answer, in many encodings, and across pieces of the content.

Encodings: plain and in other case; with characters escaped as in URLs (percent), JSON and programming languages
(backslash) or HTML (numbers and names), also repeatedly, or quoted-printable; in hex; in base64 of both alphabets, at
each of the three offsets of the key, with line breaks; and all of these in UTF-16 and UTF-32.

Theory of operation. The content is searched in several *views*: without zero bytes, unescaped, without line breaks.
Each view is searched for the *forms* of the key: the key, its hex digits, and the part of its base64 that is the same
at any offset of 3 bytes. A view maps each of its bytes to its place in the content. The next piece may complete a form
or an escape that begins at the end of the data, so the data from there on is held back.
"""

from __future__ import annotations

import base64
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import lru_cache
from html.entities import html5
from typing import Final

_KEYS: Final = 32  # keys with cached forms
_ROUNDS: Final = 3  # of unescaping
_LEAST: Final = 6  # characters of base64 before a line break that may begin a key: fewer are common in text
_TAIL: Final = 64  # bytes searched for an incomplete escape at the end
_MOST: Final = 64  # bytes of content per byte of a form: more than any real encoding needs
_APART: Final = bytes(4)  # more zero bytes than UTF-32 has between two characters
_ENTITIES: Final = {name.rstrip(";").encode(): value.encode() for name, value in html5.items() if value.isascii()}
_OF_BACKSLASH: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")  # the alphabets of base64

_HEX: Final = rb"[0-9a-fA-F]"
_escapes: Final = re.compile(
    rb"%%(?:25)*(%b{2})|(?<!\\)\\++(?:u\{0*(%b{1,2})\}|u00(%b{2})|U0{6}(%b{2})|x(%b{2})|([^0-9a-zA-Z\\]|[nrtbf]))"
    rb"|&(?:amp;)*(?:#0*([0-9]{2,3})|#[xX]0*(%b{2})|([a-zA-Z]{2,24}));?" % ((_HEX,) * 6)
)
_partial_escape: Final = re.compile(
    rb"(?:%%(?:25)*%b?|\\+(?:[uUx]\{?%b{0,7})?|&(?:amp;)*(?:#[xX]?%b{0,8}|[a-zA-Z]{0,24}))\Z" % ((_HEX,) * 3)
)
_quoted: Final = re.compile(rb"=(?:\r?\n|(%b{2}))" % _HEX)
_partial_quoted: Final = re.compile(rb"=(?:\r|%b)?\Z" % _HEX)
_breaks: Final = re.compile(rb"(?:\r?\n[ \t]*)+")
_partial_break: Final = re.compile(rb"\r\Z")


class _View:
    """Content ``of`` with each match of ``tokens`` replaced. ``held``: start of an incomplete token, else the end."""

    def __init__(
        self,
        of: bytes,
        tokens: re.Pattern[bytes],
        partial: re.Pattern[bytes],
        replace: Callable[[re.Match[bytes]], bytes],
        *,
        final: bool,
    ) -> None:
        unfinished = None if final else partial.search(of, max(0, len(of) - _TAIL))
        self.held = len(of) if unfinished is None else unfinished.start()
        self._here, self._there = [0], [0]  # corresponding places in view and content: before and behind each token
        parts: list[bytes] = []
        here = there = 0
        for found in tokens.finditer(of, 0, self.held):
            parts += of[there : found.start()], (instead := replace(found))
            here += found.start() - there
            there = found.end()
            self._here += here, here + len(instead)
            self._there += found.start(), there
            here += len(instead)
        parts.append(of[there : self.held])
        self.data = b"".join(parts)

    def place(self, here: int) -> int:
        """Return the place in ``of`` of the view's byte ``here``."""
        at = bisect_right(self._here, here) - 1
        return self._there[at] + here - self._here[at]


class KeySpellings:
    """Forms of one key, and the search for them."""

    def __init__(self, key: bytes) -> None:
        self._plain = [key.lower(), key.hex().encode()]
        unescaped = key
        for _ in range(_ROUNDS):  # a key may contain text that looks like an escape
            unescaped = _escapes.sub(_unescape, unescaped)
            if len(unescaped) >= len(key) // 2 + _LEAST:
                self._plain.append(unescaped.lower())
        self._plain = list(dict.fromkeys(self._plain))
        coded = list(dict.fromkeys(_base64_forms(key)))
        # Also without their beginning, which may have passed before a line break.
        self._coded = [*coded, *(form[_LEAST:] for form in coded if len(form) >= 3 * _LEAST)]
        self._most_held = _MOST * max(map(len, (*self._plain, *coded)))

    def find(self, data: bytes, *, final: bool = False) -> int | None:
        """Return the number of leading bytes that are free of the key and may pass; None: the data contains the key.

        The next piece may complete a form in the rest. None too if the rest is longer than any encoding of the key,
        because it would be held back and searched without end. ``final``: no data follows.
        """
        if b"\0" not in data:
            safe = self._find(data, final=final)
        else:
            text = data.replace(b"\0", b"")
            safe = self._find(text, final=final)
            if safe is not None:
                safe = max(_place_before(data, len(text) - safe), data.rfind(_APART) + 1)
        return None if safe is None or len(data) - safe > self._most_held else safe

    def _find(self, data: bytes, *, final: bool) -> int | None:
        places: list[Callable[[int], int]] = []

        def in_content(here: int) -> int:
            for place in reversed(places):
                here = place(here)
            return here

        safe = self._find_in_view(data)
        for _ in range(_ROUNDS):
            if safe is None or not any(mark in data for mark in b"%\\&"):
                break
            view = _View(data, _escapes, _partial_escape, _unescape, final=final)
            safe = min(safe, in_content(view.held))
            if view.data == data:
                break
            places.append(view.place)
            data = view.data
            found = self._find_in_view(data)
            safe = None if found is None else min(safe, in_content(found) if found < len(data) else safe)
        if safe is not None and any(mark in data for mark in b"\r\n="):
            return self._find_in_lines(data, safe, in_content, final=final)
        return safe

    def _find_in_lines(self, data: bytes, safe: int, in_content: Callable[[int], int], *, final: bool) -> int | None:
        """Search content without line breaks, and content decoded from quoted-printable."""
        unbroken = _View(data, _breaks, _partial_break, _nothing, final=final)
        coded = unbroken.data.translate(_TO_STANDARD)
        if any(form in coded for form in self._coded):
            return None
        held = max(_part_at_end(coded, form) for form in self._coded)
        if held >= (_LEAST if data.endswith((b"\n", b" ", b"\t")) else 1):
            safe = min(safe, in_content(unbroken.place(len(coded) - held)))
        quoted = _View(data, _quoted, _partial_quoted, _unquote, final=final)
        text = quoted.data.lower()
        if any(form in text for form in self._plain):
            return None
        held = max(_part_at_end(text, form) for form in self._plain)
        if held or quoted.held < len(data):
            safe = min(safe, in_content(quoted.held), in_content(quoted.place(len(text) - held)))
        return safe

    def _find_in_view(self, view: bytes) -> int | None:
        text, coded = view.lower(), view.translate(_TO_STANDARD)
        if any(form in text for form in self._plain) or any(form in coded for form in self._coded):
            return None
        held = max(
            *(_part_at_end(text, form) for form in self._plain), *(_part_at_end(coded, form) for form in self._coded)
        )
        return len(view) - held


@lru_cache(maxsize=_KEYS)
def spellings_of(key: bytes) -> KeySpellings:
    """Return the forms of a key."""
    return KeySpellings(key)


def _base64_forms(key: bytes) -> Iterator[bytes]:
    text = key.decode("ascii")
    for coded in (key, text.encode("utf-16-le"), text.encode("utf-16-be")):
        for before in range(3):
            encoded = base64.b64encode(bytes(before) + coded)
            first = (before * 8 + 5) // 6  # earlier characters contain bits from before the key
            last = (before + len(coded)) * 8 // 6  # later characters contain bits from behind the key
            yield encoded[first:last]


def _part_at_end(data: bytes, form: bytes) -> int:
    """Return the length of the longest suffix of the data that is a prefix of the form."""
    at = data.find(form[:1], max(0, len(data) - len(form) + 1))
    while at >= 0:
        if form.startswith(data[at:]):
            return len(data) - at
        at = data.find(form[:1], at + 1)
    return 0


def _place_before(data: bytes, count: int) -> int:
    """Return the place in ``data`` where its last ``count`` non-zero bytes begin."""
    at = len(data)
    while count:
        at -= 1
        count -= data[at] != 0
    return at


def _unescape(found: re.Match[bytes]) -> bytes:
    *digits, of_backslash, decimal, in_html, name = found.groups()
    code = next((one for one in (*digits, in_html) if one is not None), None)
    if code is not None:
        return bytes([int(code, 16)]).strip(b"\0")  # drop zeros, as unescaped ones are
    if decimal is not None:
        return bytes([int(decimal)]).strip(b"\0") if int(decimal) < 256 else found[0]
    if name is not None:
        return _ENTITIES.get(name, found[0])
    return _OF_BACKSLASH.get(of_backslash, of_backslash)


def _unquote(found: re.Match[bytes]) -> bytes:
    return b"" if found[1] is None else bytes([int(found[1], 16)])


def _nothing(_found: re.Match[bytes]) -> bytes:
    return b""
