"""Bytes of one whole head → ``RequestHead`` or ``ResponseHead``: strict and pure, and the same for the same bytes.

What is read is the grammar of RFC 9112 without its allowances: no bare LF, no folding, no white space before a colon,
no other version, and exactly one Host. What states the body's length is said once and plainly. All errors are
``Denied`` with the reason that fits a request; their detail never quotes the input.
"""

from __future__ import annotations

import re
from functools import lru_cache, partial
from ipaddress import AddressValueError, IPv6Address
from typing import Final, NamedTuple

from sidecar.errors import Denied, Reason
from sidecar.wire.head import Fields, RequestHead, ResponseHead, plain_length
from sidecar.wire.known import KnownHeads, differing_in
from sidecar.wire.lines import MAX_HEADS, MAX_KNOWN, MAX_KNOWN_BYTES, NEVER_AGAIN, FieldLines

_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!-~]+) HTTP/1\.([01])")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")
# Host = uri-host [":" port] (RFC 9110 section 7.2), without user information, escapes or empty parts.
_AUTHORITY: Final = re.compile(
    rb"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,254})|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{1,5}))?"
)
_MAX_KNOWN_LINE: Final = 512  # bytes of a first line that is remembered
_MAX_KNOWN_HEAD: Final = 2 * MAX_KNOWN_BYTES  # of a head that is remembered whole
REQUESTS_DIFFER: Final = differing_in(NEVER_AGAIN | {b"content-length"})
ANSWERS_DIFFER: Final = differing_in(NEVER_AGAIN | {b"content-length", b"date"})
_MAX_KINDS: Final = 16  # of listeners, by their limits
_MAX_OPTIONS: Final = 64  # in one Connection field: each becomes an object
_OPTIONS: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z \t,]*")
_REFUSED_METHODS: Final = frozenset({b"CONNECT", b"TRACE", b"TRACK"})


_END: Final = [b"", b""]  # what a head that is cut at line breaks ends with
_request_lines: Final = FieldLines()
_answer_lines: Final = FieldLines()


def parse_request_head(head: bytes, *, max_target_bytes: int, max_fields: int, proxy_form: bool) -> RequestHead:
    """Read one request head, ``head`` ending with its empty line (RFC 9112 section 3).

    ``proxy_form`` also admits ``http://authority/path`` whose authority is the Host; the target is origin-form then.

    Raises:
        Denied: BAD_REQUEST, AMBIGUOUS_FRAMING, METHOD_REFUSED, PATH_REFUSED, URI_TOO_LONG, HEAD_TOO_LARGE,
            EXPECTATION_REFUSED.
    """
    return request_heads(max_target_bytes, max_fields, proxy_form).read(head)


def parse_response_head(head: bytes, *, max_fields: int) -> ResponseHead:
    """Read one answer head, ``head`` ending with its empty line (RFC 9112 section 4).

    Raises:
        Denied: BAD_REQUEST, AMBIGUOUS_FRAMING, HEAD_TOO_LARGE; the caller knows that this was an answer.
    """
    return (_response_head if len(head) <= _MAX_KNOWN_HEAD else _read_response_head)(head, max_fields)


def _read_request_head(
    head: bytes,
    max_target_bytes: int,
    max_fields: int,
    proxy_form: bool,  # noqa: FBT001 - a memory that looks at names takes longer
) -> RequestHead:
    first, lines = _lines_of(head, max_fields)
    method, target, minor = (_request_line if len(first) <= _MAX_KNOWN_LINE else _read_request_line)(first)
    if len(target) > max_target_bytes:
        raise Denied(Reason.URI_TOO_LONG, "the request target is too long")
    common, fresh = _request_lines.read(lines)
    said = common.once(_said_by_request)
    content_length, chunked = None, False
    if said.framed:
        content_length, chunked = _framing(common, fresh, minor=minor)
    absolute = not target.startswith(b"/")
    if absolute:
        target = _origin_form(target, said.authority, proxy_form=proxy_form)
    keep_alive = said.keeps_1_1 if minor else said.keeps_1_0
    return RequestHead(
        common,
        fresh,
        method,
        target,
        said.authority,
        absolute,
        minor,
        content_length,
        chunked,
        keep_alive,
        said.expect,
        said.upgrade,
    )


@lru_cache(maxsize=_MAX_KINDS)
def request_heads(
    max_target_bytes: int,
    max_fields: int,
    proxy_form: bool,  # noqa: FBT001 - as above
) -> KnownHeads[RequestHead]:
    """What reads the heads of all listeners with these limits: what a head says depends on its bytes and them alone."""
    return KnownHeads(
        partial(_read_request_head, max_target_bytes=max_target_bytes, max_fields=max_fields, proxy_form=proxy_form),
        REQUESTS_DIFFER,
    )


def _read_response_head(head: bytes, max_fields: int) -> ResponseHead:
    first, lines = _lines_of(head, max_fields)
    status, minor = (_status_line if len(first) <= _MAX_KNOWN_LINE else _read_status_line)(first)
    common, fresh = _answer_lines.read(lines)
    content_length, chunked = _framing(common, fresh, minor=minor)
    keep_alive = common.once(_keeps_1_1 if minor else _keeps_1_0)
    return ResponseHead(common, fresh, status, minor, content_length, chunked, keep_alive)


@lru_cache(maxsize=_MAX_KINDS)
def _response_heads(max_fields: int) -> KnownHeads[ResponseHead]:
    return KnownHeads(partial(_read_response_head, max_fields=max_fields), ANSWERS_DIFFER)


@lru_cache(maxsize=MAX_HEADS)
def _response_head(head: bytes, max_fields: int) -> ResponseHead:
    """Within a second an answer may have the very same head."""
    return _response_heads(max_fields).read(head)


def _lines_of(head: bytes, max_fields: int) -> tuple[bytes, list[bytes]]:
    """The first line, and those of the fields."""
    # No more become objects: one takes ten times the bytes of its line.
    lines = head.split(b"\r\n", max_fields + 2) if max_fields >= 0 else []
    if len(lines) < 3 or lines[-2:] != _END:
        raise Denied(Reason.HEAD_TOO_LARGE, "too many header fields")
    del lines[-2:]
    return lines.pop(0), lines


def _read_request_line(line: bytes) -> tuple[str, bytes, int]:
    """(method, target, minor version) of a first line that may be served."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise Denied(Reason.BAD_REQUEST, "the request line is malformed or of another version")
    method, target, minor = match.groups()
    if method in _REFUSED_METHODS:
        raise Denied(Reason.METHOD_REFUSED, "CONNECT and TRACE are never served")
    return method.decode("ascii"), target, int(minor)


_request_line: Final = lru_cache(maxsize=MAX_KNOWN)(_read_request_line)


def _read_status_line(line: bytes) -> tuple[int, int]:
    """(status, minor version)."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise Denied(Reason.BAD_REQUEST, "the status line is malformed or of another version")
    return int(match[2]), int(match[1])


_status_line: Final = lru_cache(maxsize=MAX_KNOWN)(_read_status_line)


class _Said(NamedTuple):
    """What the fields of a request say about it. ``framed``: they say something about its body."""

    authority: str
    expect: bytes | None
    upgrade: bytes | None
    keeps_1_1: bool
    keeps_1_0: bool
    framed: bool


def _said_by_request(fields: Fields) -> _Said:
    if len(fields.values(b"host")) != 1:
        raise Denied(Reason.BAD_REQUEST, "there is not exactly one Host")
    if fields.repeated and len(fields.values(b"expect")) > 1:
        raise Denied(Reason.EXPECTATION_REFUSED, "two Expect fields")
    last = fields.last
    return _Said(
        parse_authority(last[b"host"]),
        last.get(b"expect"),
        _upgrade(fields),
        _keeps_1_1(fields),
        _keeps_1_0(fields),
        b"content-length" in last or b"transfer-encoding" in last,
    )


def _upgrade(fields: Fields) -> bytes | None:
    """The protocol that must be switched to, or refused; None for h2c alone, an offer that a server may ignore.

    Java's client makes this offer with every request unless told otherwise (RFC 9110 section 7.8, RFC 9113 appendix B).
    """
    values = fields.values(b"upgrade")
    if not values or (len(values) == 1 and values[0].lower() == b"h2c"):
        return None
    return values[-1]


@lru_cache(maxsize=512)
def parse_authority(value: bytes) -> str:
    """A host with an optional port, in lower case; ``Denied`` BAD_REQUEST if it is anything else."""
    match = _AUTHORITY.fullmatch(value)
    if match is None or (match[2] is not None and not 0 < int(match[2]) < 65536):
        raise Denied(Reason.BAD_REQUEST, "the Host is no host with an optional port")
    if match[1] is not None:
        try:
            IPv6Address(match[1].decode("ascii"))
        except AddressValueError as error:
            raise Denied(Reason.BAD_REQUEST, "the Host is no IPv6 address") from error
    return value.decode("ascii").lower()


def _framing(common: Fields, fresh: dict[bytes, bytes], *, minor: int) -> tuple[int | None, bool]:
    """(content length, chunked): at most one of them, each said once and in its plain form (RFC 9112 section 6)."""
    if common.repeated and any(len(common.values(name)) > 1 for name in (b"content-length", b"transfer-encoding")):
        raise Denied(Reason.AMBIGUOUS_FRAMING, "the length of the body is stated twice")
    length = fresh.get(b"content-length") or common.last.get(b"content-length")
    if b"transfer-encoding" in common.last:
        if length is not None:
            raise Denied(Reason.AMBIGUOUS_FRAMING, "a Content-Length beside a Transfer-Encoding")
        if not minor or common.last[b"transfer-encoding"].lower() != b"chunked":
            raise Denied(Reason.AMBIGUOUS_FRAMING, "another transfer coding than chunked alone in HTTP/1.1")
        return None, True
    if length is None:
        return None, False
    content_length = plain_length(length)
    if content_length is None:
        raise Denied(Reason.AMBIGUOUS_FRAMING, "the Content-Length is no plain number")
    return content_length, False


def _origin_form(target: bytes, authority: str, *, proxy_form: bool) -> bytes:
    if not proxy_form or not target.startswith(b"http://"):
        raise Denied(Reason.PATH_REFUSED, "the request target is not in origin-form")
    return (_within if len(target) <= _MAX_KNOWN_LINE else _find_within)(target, authority)


def _find_within(target: bytes, authority: str) -> bytes:
    """The origin-form of an absolute form that names this authority."""
    rest = target[7:]
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?"), rest.find(b"#")) if at >= 0), default=len(rest))
    if parse_authority(rest[:cut]) != authority:
        raise Denied(Reason.BAD_REQUEST, "the request target and Host name different authorities")
    origin = rest[cut:]
    return origin if origin.startswith(b"/") else b"/" + origin


_within: Final = lru_cache(maxsize=MAX_KNOWN)(_find_within)


def _keeps_1_1(fields: Fields) -> bool:
    return _keeps_alive(fields, minor=True)


def _keeps_1_0(fields: Fields) -> bool:
    return _keeps_alive(fields, minor=False)


def _keeps_alive(fields: Fields, *, minor: bool) -> bool:
    """Whether another message may follow. Every Connection field is looked at, since each may name fields to remove."""
    if b"connection" not in fields.last:
        return minor
    keeps = minor
    for value in fields.values(b"connection"):
        if not _OPTIONS.fullmatch(value):
            raise Denied(Reason.BAD_REQUEST, "a Connection field is no list of tokens")
        if value.count(b",") > _MAX_OPTIONS:
            raise Denied(Reason.HEAD_TOO_LARGE, "too many Connection options")
        if b"close" in [option.strip(b" \t") for option in value.lower().split(b",")]:
            keeps = False
    return keeps
