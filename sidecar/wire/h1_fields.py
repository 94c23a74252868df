"""Fields of HTTP/1.1 heads: layouts cached by field names, and encoders.

A ``Layout`` depends on the names of a head's fields alone. The next head with these names shares it: ``Layouts`` is the
only cache of heads. No value is part of its keys or entries, so it holds nothing that differs by user or request, and a
new value costs as much as a known one. Pure: no socket, no clock, no policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from itertools import compress, count
from typing import Final

from delegation_core.errors import Denied, Reason
from sidecar.wire.message import FRAMING, NO_NAMES, NOT_PASSED, Edits, Field, Layout, Message, Passes, Pick, picking

LAYOUT_CACHE_BYTES: Final = 1024 * 1024  # of requests, and as much of answers
_MAX_CACHED_NAMES: Final = 2048  # bytes of the names of one head
_LAYOUT_BYTES: Final = 1024  # besides its names
_MAX_CACHED_NAME: Final = 64  # bytes
_MAX_ANSWERS: Final = 512  # of one rule
_NAME_BYTES: Final = 256  # of one name, besides its own bytes: places and templates
_MAX_RULES: Final = 8  # per layout, with templates: there are four
_MAX_ANSWERED: Final = 32  # cached rules: routes may have their own
_are_tokens: Final = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:)*+").fullmatch
is_length: Final = re.compile(rb"0|[1-9][0-9]{0,14}").fullmatch
_CONTROLS: Final = frozenset({*range(0x20), 0x7F}) - {0x09}  # no value holds one; a tab is not a control here
CONTROLS_MARKED: Final = bytes([0x3F if octet in _CONTROLS else octet for octet in range(256)])
"""A table for ``translate``: text without control bytes is equal to its translation."""

TEXT: Final = bytes([octet for octet in range(256) if octet not in _CONTROLS]) + b"\r"
"""The octets of lines except line feeds: what ``translate`` leaves of lines without them are their breaks, or there is
a fault.
"""

_SPEAKING: Final = frozenset({b"connection", b"content-length", b"expect", b"transfer-encoding", b"upgrade"})
_NOWHERE: Final[list[int]] = []
_CONTROL_BYTE: Final = "a header field holds a line break or NUL, or another control byte"
_MAX_TEMPLATES: Final = 256  # of lines that are set: there are some twenty
_OPTIONS: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z \t,]*")
_LF, _CR, _NUL = b"\n\r\0"  # searched as numbers: one-byte strings take eight times as long
_MAX_OPTIONS: Final = 64  # in one Connection field: each becomes an object
_USUAL_OPTIONS: Final = frozenset({b"keep-alive", b"Keep-Alive"})  # values that change nothing
STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class H1Layout(Layout):
    """Layout of an HTTP/1.1 head, with the places of the fields that frame its body or control the connection.

    ``host`` is the place of Host; None unless there is exactly one. ``plain``: there are no framing or connection
    fields. ``usual``: at most one Content-Length and one Connection field, at the places ``length`` and ``option``.
    ``constant``: places of all other fields whose values affect parsing. ``breaks``: line feeds of the head's lines;
    None if a name is not a token.
    """

    __slots__ = (
        "breaks",
        "codings",
        "connection",
        "constant",
        "expect",
        "host",
        "length",
        "lengths",
        "option",
        "plain",
        "upgrade",
        "usual",
    )

    def __init__(self, names: Iterable[bytes]) -> None:
        super().__init__(names)
        sound = _are_tokens(b":".join((*self.names, b"")))
        self.breaks = b"\n" * len(self.names) if sound else None
        hosts = self.places.get(b"host", _NOWHERE)
        self.host = hosts[0] if len(hosts) == 1 else None
        self.plain = _SPEAKING.isdisjoint(self.places)
        if self.plain:
            self.expect = self.upgrade = self.connection = self.lengths = self.codings = _NOWHERE
            self.length = self.option = None
            self.usual = True
            self.constant = set() if self.host is None else {self.host}
            return
        self.expect = self.places.get(b"expect", [])
        self.upgrade = self.places.get(b"upgrade", [])
        self.connection = self.places.get(b"connection", [])
        self.lengths = self.places.get(b"content-length", [])
        self.codings = self.places.get(b"transfer-encoding", [])
        self.length = self.lengths[0] if self.lengths else None
        self.option = self.connection[0] if self.connection else None
        self.usual = not self.codings and len(self.lengths) < 2 and len(self.connection) < 2
        self.constant = {*self.connection, *self.expect, *self.upgrade, *self.codings}
        if self.host is not None:
            self.constant.add(self.host)
        if not self.usual:
            self.constant |= {*self.lengths}

    def end_of(self, values: Sequence[bytes], minor: int) -> tuple[int | None, bool, frozenset[bytes], bool, int]:
        """Return (content length, chunked, ``Message.listed``, whether another message may follow, ``minor``).

        Raises:
            Denied: AMBIGUOUS_FRAMING, BAD_REQUEST, HEAD_TOO_LARGE.
        """
        length, option = self.length, self.option
        if self.usual and (option is None or values[option] in _USUAL_OPTIONS):
            if length is None:
                return None, False, NO_NAMES, minor == 1, minor
            if is_length(values[length]):
                return int(values[length]), False, NO_NAMES, minor == 1, minor
        listed, keep_alive = _connection([values[at] for at in self.connection], minor)
        content_length, chunked = self._framing(values, minor)
        return content_length, chunked, listed, keep_alive, minor

    def _framing(self, values: Sequence[bytes], minor: int) -> tuple[int | None, bool]:
        """Return (content length, chunked): at most one of them, stated once in its plain form (RFC 9112 section 6)."""
        if len(self.lengths) > 1 or len(self.codings) > 1:
            raise Denied(Reason.AMBIGUOUS_FRAMING, "the length of the body is stated twice")
        if self.lengths and self.codings:
            raise Denied(Reason.AMBIGUOUS_FRAMING, "a Content-Length beside a Transfer-Encoding")
        if self.length is not None:
            value = values[self.length]
            if not is_length(value):
                raise Denied(Reason.AMBIGUOUS_FRAMING, "the Content-Length is not a plain number")
            return int(value), False
        if not self.codings:
            return None, False
        if not minor or values[self.codings[0]].lower() != b"chunked":
            raise Denied(Reason.AMBIGUOUS_FRAMING, "another transfer coding than chunked alone in HTTP/1.1")
        return None, True


class Layouts(dict[tuple[bytes, ...], H1Layout]):
    """Cache of layouts, keyed by field names as spelled. Evicts the oldest first.

    A dict, so that a hit runs no Python code of ours. ``bytes``: the size of all entries.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __missing__(self, names: tuple[bytes, ...]) -> H1Layout:
        layout = H1Layout(names)
        if layout.breaks is not None and sum(map(len, names)) <= _MAX_CACHED_NAMES:
            self.bytes += _cost_of(names)
            self[names] = layout
            while self.bytes > LAYOUT_CACHE_BYTES:
                oldest = next(iter(self))
                del self[oldest]
                self.bytes -= _cost_of(oldest)
        return layout


def _cost_of(names: tuple[bytes, ...]) -> int:
    return _LAYOUT_BYTES + _NAME_BYTES * len(names) + 4 * sum(map(len, names))


request_layouts: Final = Layouts()
answer_layouts: Final = Layouts()


def _connection(found: Sequence[bytes], minor: int) -> tuple[frozenset[bytes], bool]:
    """Return (``Message.listed``, whether another message may follow). Every Connection field counts."""
    for value in found:
        if not _OPTIONS.fullmatch(value):
            raise Denied(Reason.BAD_REQUEST, "a Connection field is not a list of tokens")
        if value.count(b",") > _MAX_OPTIONS:
            raise Denied(Reason.HEAD_TOO_LARGE, "too many Connection options")
    options = connection_options(found)
    return options - NOT_PASSED, minor == 1 and b"close" not in options


def connection_options(values: Iterable[bytes]) -> frozenset[bytes]:
    """Return the lower-case members of all Connection fields (RFC 9110 section 7.6.1)."""
    return frozenset([option.strip(b" \t").lower() for value in values for option in value.split(b",")]) - {b""}


def edited(message: Message, edits: Edits) -> bytes:
    """Return the lines of a message's fields after the edits, each with its line break.

    Raises:
        ValueError: as ``encode_fields``.
    """
    passes, names, values = edits
    layout = message.layout
    template = layout.templates.get((passes, names))
    if template is None:
        template = _template(layout, map(_names_that_pass[passes].__getitem__, layout.names), names)
        if len(layout.templates) < _MAX_RULES:
            layout.templates[passes, names] = template
    if message.listed:
        passing = [passes(name) and name not in message.listed for name in layout.names]
        template = _template(layout, passing, names)
    text, pick = template
    if not names:
        return text % pick(message.values)
    ours = b"".join(values)
    if ours.translate(CONTROLS_MARKED) != ours:  # as ``_check``, on the warm path
        raise ValueError(_CONTROL_BYTE)
    return text % (pick(message.values) + values)


def _template(layout: Layout, passing: Iterable[bool], names: tuple[bytes, ...]) -> tuple[bytes, Pick]:
    """Build the lines of the fields that pass and of those that are set, with a placeholder for each value.

    ``passing``: for each field of the layout, True if it passes. Also returns the selector of the passing values.
    """
    places = [*compress(count(), passing)]
    text = _lines(map(layout.names.__getitem__, places))
    return text + _line_templates[names] if names else text, picking(places)


class _NamesThatPass(dict[bytes, bool]):
    """Cache of one rule's answers by field name; calls the rule for new names only."""

    def __init__(self, passes: Passes) -> None:
        super().__init__()
        self._passes = passes

    def __missing__(self, name: bytes) -> bool:
        passes = self._passes(name)
        if len(name) <= _MAX_CACHED_NAME:
            if len(self) == _MAX_ANSWERS:
                del self[next(iter(self))]
            self[name] = passes
        return passes


class _Rules(dict[Passes, _NamesThatPass]):
    """The answers of the rules in use. Evicts the oldest rule first: it belongs to an earlier policy."""

    def __missing__(self, passes: Passes) -> _NamesThatPass:
        if len(self) == _MAX_ANSWERED:
            del self[next(iter(self))]
        self[passes] = _NamesThatPass(passes)
        return self[passes]


_names_that_pass: Final = _Rules()


def _lines(names: Iterable[bytes]) -> bytes:
    """Return the lines of these fields with a placeholder for each value."""
    names = (*names, b"")
    lines = b": %b\r\n".join(names)
    if lines.count(b"%") == len(names) - 1:
        return lines
    return b": %b\r\n".join([name.replace(b"%", b"%%") for name in names])


def _check(values: Iterable[bytes]) -> None:
    """Raise ValueError if one of the values holds a control byte."""
    text = b"".join(values)
    if text.translate(CONTROLS_MARKED) != text:
        raise ValueError(_CONTROL_BYTE)


def encode_fields(fields: Sequence[Field]) -> bytes:
    """Encode the lines of some fields, each with its line break.

    Raises:
        ValueError: a field holds a control byte, or is a framing field, which only the wire may set.
    """
    if not fields:
        return b""
    names, values = zip(*fields)  # noqa: B905 - there are only pairs
    lines = _line_templates[names] % values
    _check(values)
    return lines


class _LineTemplates(dict[tuple[bytes, ...], bytes]):
    """Cache of line templates, keyed by field names. Evicts the oldest first."""

    def __missing__(self, names: tuple[bytes, ...]) -> bytes:
        if not FRAMING.isdisjoint(names):
            raise ValueError("a field states where the message ends")
        _check(names)
        template = _lines(names)
        if len(template) <= _MAX_CACHED_NAMES:
            if len(self) == _MAX_TEMPLATES:
                del self[next(iter(self))]
            self[names] = template
        return template


_line_templates: Final = _LineTemplates()


def encode_request(method: str, target: bytes, lines: bytes) -> bytes:
    """Encode a whole HTTP/1.1 request head. ``lines``: all its fields, as encoded by ``encode_fields``.

    Raises:
        ValueError: the target would break a line.
    """
    if _LF in target or _CR in target or _NUL in target:
        raise ValueError("a target holds a line break or NUL")
    return b"".join((method.encode("ascii"), b" ", target, b" HTTP/1.1\r\n", lines, b"\r\n"))


def encode_response(status: int, lines: bytes, framing: bytes = b"", data: bytes = b"") -> bytes:
    """Encode a whole HTTP/1.1 answer head. ``lines``: all its fields, as encoded by ``encode_fields``.

    ``framing``: the lines that the wire adds. ``data`` follows the head.
    """
    return b"".join((STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, lines, framing, b"\r\n", data))
