"""Parser for heads of HTTP/1.1 messages: strict and pure.

The grammar is that of RFC 9112 without its allowances: no bare LF, no folding, no white space before a colon, no other
version, and exactly one Host. The length of a body is stated once and plainly. One expression finds a head, which is
then judged as a whole, so that a new head costs no more than a known one; a malformed head is parsed again to find the
reason. All errors are ``Denied`` with the reason that fits a request; their detail never quotes the input.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from ipaddress import AddressValueError, IPv6Address
from typing import Final

from delegation_core.errors import Denied, Reason
from sidecar.wire.h1_fields import TEXT, H1Layout, answer_layouts, request_layouts
from sidecar.wire.message import NO_NAMES, Request, Response

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
# field-line of RFC 9112 section 5 in three steps, as character classes are slow to match: expressions find the ends of
# lines and names; each layout checks once that names are tokens; ``translate`` checks that there is no control.
_LINE: Final = rb"[^:\r]++:[^\r]*+\r\n"
_field_lines: Final = re.compile(rb"([^:]++):[\t ]*+([^\r]*+)\r\n").findall
_strip: Final = bytes.strip
_METHOD: Final = rb"(?!(?:CONNECT|TRACE|TRACK) )%b{1,32}" % _TOKEN
_METHOD_OF_PROXY: Final = rb"(?!(?:TRACE|TRACK) )%b{1,32}" % _TOKEN
_CONNECT: Final = b"CONNECT"
_REFUSED_METHOD: Final = re.compile(rb"(?:CONNECT|TRACE|TRACK) [!-~]+ HTTP/1\.[01]")
_REQUEST_LINE: Final = rb"(%b) ([!-~]{1,%d}+) HTTP/1\.([01])\r\n"  # method, most bytes of the target
_PREFACE_LINE: Final = b"PRI * HTTP/2.0"  # RFC 9113 section 3.4: no HTTP/1.1 server may accept it as a request
_ANY_REQUEST_LINE: Final = re.compile(_REQUEST_LINE % (_METHOD, 0xFFFFFFF))
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*+)?\r\n")
# Host = uri-host [":" port] (RFC 9110 section 7.2), without user information, escapes or empty parts.
_AUTHORITY: Final = re.compile(
    rb"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,254})|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{1,5}))?"
)
# The usual spelling, which needs no further check.
plain_authority: Final = re.compile(rb"[a-z0-9_][a-z0-9._-]{0,254}(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}))?").fullmatch
_NO_FIELDS: Final[tuple[tuple[bytes, ...], tuple[bytes, ...]]] = ((), ())
_MINOR: Final = {b"0": 0, b"1": 1}
_SLASH: Final = 0x2F
_End = tuple[int | None, bool, frozenset[bytes], bool, int, bytes | None, bytes | None]
_PLAIN_END: Final[dict[bytes, _End]] = {
    version: (None, False, NO_NAMES, minor == 1, minor, None, None) for version, minor in _MINOR.items()
}


class RequestGrammar:
    """Reads request heads within the limits of one kind of listener.

    ``proxy_form`` also admits requests to a proxy: ``http://authority/path`` with the Host as its authority (then the
    target becomes origin-form), and CONNECT with the Host and its port as its target (RFC 9112 section 3.2).
    ``match`` matches one whole head at the beginning of some bytes, unless the head is malformed or too large.
    """

    __slots__ = ("_max_fields", "_max_target_bytes", "_proxy_form", "match")

    def __init__(self, *, max_target_bytes: int, max_fields: int, proxy_form: bool) -> None:
        self._max_target_bytes = max_target_bytes
        self._max_fields = max_fields
        self._proxy_form = proxy_form
        self.match = _request_head(max_target_bytes, max_fields, proxy_form).match

    def read(self, head: bytes) -> Request:
        """Parse one whole head, including its empty line (RFC 9112 section 3).

        Raises:
            Denied: BAD_REQUEST, AMBIGUOUS_FRAMING, METHOD_REFUSED, PATH_REFUSED, URI_TOO_LONG, HEAD_TOO_LARGE,
                EXPECTATION_REFUSED, HTTP_VERSION.
        """
        match = self.match(head)
        if match is None:
            raise self._fault(head)
        return self.head(match)

    def head(self, match: re.Match[bytes]) -> Request:
        """Return the parsed head of a match of ``match``.

        Raises:
            Denied: as ``read``.
        """
        method, target, version, lines = match.groups()
        names, values = zip(*_field_lines(lines))  # noqa: B905 - there are only pairs
        layout, values = request_layouts[names], tuple(map(_strip, values))
        if lines.translate(None, TEXT) != layout.breaks:
            raise Denied(Reason.BAD_REQUEST, "a header field is malformed")
        if layout.host is None:
            raise Denied(Reason.BAD_REQUEST, "there is not exactly one Host")
        host = values[layout.host]
        end: _End
        if layout.plain:
            authority = host.decode() if plain_authority(host) else parse_authority(host)
            end = _PLAIN_END[version]
        else:
            expect = _expect(layout, values)
            authority = parse_authority(host)
            upgrade = _upgrade(layout, values)
            length, chunked, listed, keep_alive, minor = layout.end_of(values, _MINOR[version])
            keep_alive = keep_alive and upgrade is None  # without the switch, the next bytes may not be HTTP
            end = length, chunked or bool(length), listed, keep_alive, minor, expect, upgrade
        if method == _CONNECT:
            end = _end_of_connect(target, host, authority, end)
        elif target[0] != _SLASH:
            target = self._origin_form(target, host, authority)
        return Request(layout, values, method.decode(), target, authority, *end)

    def _origin_form(self, target: bytes, host: bytes, authority: str) -> bytes:
        if not self._proxy_form or not target.startswith(b"http://"):
            raise Denied(Reason.PATH_REFUSED, "the request target is not in origin-form")
        if target.startswith(host + b"/", 7):
            return target[7 + len(host) :]
        rest = target[7:]
        cut = min((at for at in (rest.find(b"/"), rest.find(b"?"), rest.find(b"#")) if at >= 0), default=len(rest))
        if parse_authority(rest[:cut]) != authority:
            raise Denied(Reason.BAD_REQUEST, "the request target and Host name different authorities")
        origin = rest[cut:]
        return origin if origin.startswith(b"/") else b"/" + origin

    def _fault(self, head: bytes) -> Denied:
        """Return the error of a head that does not match: its first error."""
        lines = _lines_of(head, self._max_fields)
        match = _ANY_REQUEST_LINE.fullmatch(lines[0] + b"\r\n")
        if match is None:
            if _REFUSED_METHOD.fullmatch(lines[0]):
                return Denied(Reason.METHOD_REFUSED, "CONNECT and TRACE are never served")
            return fault_of_line(lines[0])
        if len(match[2]) > self._max_target_bytes:
            return Denied(Reason.URI_TOO_LONG, "the request target is too long")
        return Denied(Reason.BAD_REQUEST, "a header field is malformed")


class NotHttp(Denied):
    """A first line without an HTTP version: the sender speaks another protocol."""


def fault_of_line(line: bytes) -> Denied:
    """Return the error of a line that should begin a request, and is no request line of HTTP/1.0 or HTTP/1.1."""
    if line == _PREFACE_LINE:
        return Denied(Reason.HTTP_VERSION, "the connection begins with the preface of HTTP/2")
    if line and b"HTTP/" not in line.upper() and b"\r" not in line and not line.translate(None, TEXT):
        return NotHttp(Reason.BAD_REQUEST, "the first line names no version of HTTP")
    return Denied(Reason.BAD_REQUEST, "the request line is malformed or of another version")


class ResponseGrammar:
    """Reads answer heads within the limits of one kind of connection. ``match`` as for requests."""

    __slots__ = ("_max_fields", "match")

    def __init__(self, *, max_fields: int) -> None:
        self._max_fields = max_fields
        self.match = _response_head(max_fields).match

    def read(self, head: bytes) -> Response:
        """Parse one whole head, including its empty line (RFC 9112 section 4).

        Raises:
            Denied: BAD_REQUEST, AMBIGUOUS_FRAMING, HEAD_TOO_LARGE; the caller knows that this was an answer.
        """
        match = self.match(head)
        if match is None:
            raise self._fault(head)
        return self.head(match)

    def head(self, match: re.Match[bytes]) -> Response:
        """Return the parsed head of a match of ``match``.

        Raises:
            Denied: as ``read``.
        """
        version, status, lines = match.groups()
        names, values = zip(*_field_lines(lines)) if lines else _NO_FIELDS  # noqa: B905 - as above
        layout, values = answer_layouts[names], tuple(map(_strip, values))
        if lines.translate(None, TEXT) != layout.breaks:
            raise Denied(Reason.BAD_REQUEST, "a header field is malformed")
        end = layout.end_of(values, _MINOR[version])
        return Response(layout, values, int(status), *end)

    def _fault(self, head: bytes) -> Denied:
        """Return the error of a head that does not match: its first error."""
        lines = _lines_of(head, self._max_fields)
        if _STATUS_LINE.fullmatch(lines[0] + b"\r\n") is None:
            return Denied(Reason.BAD_REQUEST, "the status line is malformed or of another version")
        return Denied(Reason.BAD_REQUEST, "a header field is malformed")


@cache  # one per kind of listener
def _request_head(max_target_bytes: int, max_fields: int, proxy_form: bool) -> re.Pattern[bytes]:  # noqa: FBT001
    method = _METHOD_OF_PROXY if proxy_form else _METHOD
    return re.compile(_head(_REQUEST_LINE % (method, max_target_bytes), 1, max_fields))


@cache  # as above
def _response_head(max_fields: int) -> re.Pattern[bytes]:
    return re.compile(_head(_STATUS_LINE.pattern, 0, max_fields))


def _head(first_line: bytes, least: int, most: int) -> bytes:
    """Build the pattern of a first line, a number of fields, and the empty line. No part of it is ambiguous."""
    return rb"%b((?:%b){%d,%d}+)\r\n" % (first_line, _LINE, least, max(most, least))


def _end_of_connect(target: bytes, host: bytes, authority: str, end: _End) -> _End:
    """Return the ``_End`` of a CONNECT: no request follows it (RFC 9110 section 9.3.6)."""
    length, has_body, listed, _, minor, expect, upgrade = end
    if target.lower() != host.lower() or not _with_port(authority):
        raise Denied(Reason.BAD_REQUEST, "the target of CONNECT is not the Host with its port")
    if has_body or expect is not None or upgrade is not None:
        raise Denied(Reason.BAD_REQUEST, "CONNECT with content, an expectation or an upgrade")
    return length, False, listed, False, minor, None, None


def _with_port(authority: str) -> bool:
    return authority.rpartition(":")[2].isdigit() and not authority.endswith("]")


def _lines_of(head: bytes, max_fields: int) -> list[bytes]:
    """Split a head into its first line and its field lines."""
    # Split no further: each line as an object takes ten times its bytes.
    lines = head.split(b"\r\n", max_fields + 2) if max_fields >= 0 else []
    if len(lines) < 3 or lines[-2:] != [b"", b""]:
        raise Denied(Reason.HEAD_TOO_LARGE, "too many header fields")
    return lines[:-2]


def _expect(layout: H1Layout, values: Sequence[bytes]) -> bytes | None:
    if len(layout.expect) > 1:
        raise Denied(Reason.EXPECTATION_REFUSED, "two Expect fields")
    return values[layout.expect[0]] if layout.expect else None


def _upgrade(layout: H1Layout, values: Sequence[bytes]) -> bytes | None:
    """Return the requested upgrade protocol; None for h2c alone, which a server may ignore.

    Java's client makes this offer with every request by default (RFC 9110 section 7.8, RFC 9113 appendix B).
    """
    if not layout.upgrade:
        return None
    last = values[layout.upgrade[-1]]
    return None if len(layout.upgrade) == 1 and last.lower() == b"h2c" else last


def parse_authority(value: bytes) -> str:
    """Parse a host with an optional port, in lower case; ``Denied`` BAD_REQUEST if it is anything else."""
    match = _AUTHORITY.fullmatch(value)
    if match is None:
        raise Denied(Reason.BAD_REQUEST, "the Host is not a host with an optional port")
    address, port = match.groups()
    if port is not None and not 0 < int(port) < 65536:
        raise Denied(Reason.BAD_REQUEST, "the Host is not a host with an optional port")
    if address is not None:
        try:
            IPv6Address(address.decode("ascii"))
        except AddressValueError as error:
            raise Denied(Reason.BAD_REQUEST, "the Host is not an IPv6 address") from error
    return value.decode("ascii").lower()
