"""Heads of HTTP/2 as messages, and the reverse: strict and pure (RFC 9113 section 8).

A head arrives as a list of fields. What makes it malformed is refused with the reason that the same fault has in
HTTP/1.1, and nothing is mended, except that split Cookie fields are joined (section 8.2.3). The ``:authority`` becomes
the Host of the message, so that policy reads one authority whatever the version; beside a Host it must be the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from sidecar.errors import Denied, Reason
from sidecar.wire.h1_fields import CONTROLS_MARKED, H1Layout, answer_layouts, is_length, request_layouts
from sidecar.wire.h1_head import parse_authority
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.message import NO_NAMES, Field, Request, Response

_is_method: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}").fullmatch
_is_path: Final = re.compile(rb"[!-~]++").fullmatch
_is_status: Final = re.compile(rb"[1-5][0-9][0-9]").fullmatch
_is_name: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]++").fullmatch
_has_capital: Final = re.compile(rb"[A-Z]").search
_OF_REQUESTS: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_OF_ANSWERS: Final = frozenset({b":status"})
_SCHEMES: Final = frozenset({b"http", b"https"})
_NEVER_SERVED: Final = frozenset({b"CONNECT", b"TRACE", b"TRACK"})
_OF_CONNECTIONS: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"http2-settings"}
)
"""Fields that speak of a connection of HTTP/1.1: in HTTP/2 they make a message malformed (section 8.2.2)."""

FIELD_BYTES: Final = 32  # that each field counts beside its own (section 10.5.1)


def request_of(fields: Sequence[Field], limits: ServerLimits, *, ends: bool) -> Request:
    """Read the head of a request. ``ends``: nothing follows it.

    Raises:
        Denied: BAD_REQUEST, AMBIGUOUS_FRAMING, METHOD_REFUSED, PATH_REFUSED, URI_TOO_LONG, HEAD_TOO_LARGE,
            EXPECTATION_REFUSED, TOO_LARGE.
    """
    _check_size(fields, max_bytes=limits.max_head_bytes, max_fields=limits.max_fields)
    pseudo, names, values = _split(fields, _OF_REQUESTS)
    method = pseudo.get(b":method", b"")
    if not _is_method(method):
        raise Denied(Reason.BAD_REQUEST, "the method is missing or no token")
    if method in _NEVER_SERVED:
        raise Denied(Reason.METHOD_REFUSED, "CONNECT and TRACE are never served in HTTP/2")
    if pseudo.get(b":scheme") not in _SCHEMES:
        raise Denied(Reason.BAD_REQUEST, "the scheme is neither http nor https")
    path = pseudo.get(b":path", b"")
    if len(path) > limits.max_target_bytes:
        raise Denied(Reason.URI_TOO_LONG, "the request target is too long")
    if not _is_path(path):
        raise Denied(Reason.BAD_REQUEST, "the path is missing, empty or malformed")
    if not path.startswith(b"/"):
        raise Denied(Reason.PATH_REFUSED, "the request target is not in origin-form")
    names, values = _with_host(pseudo.get(b":authority"), names, values)
    layout, values = _joined(names, values)
    assert layout.host is not None  # noqa: S101 - for the type only
    expect = _expectation(layout, values)
    length = _length(layout, values)
    if length is not None and length > limits.max_body_bytes:
        raise Denied(Reason.TOO_LARGE, "the Content-Length is larger than allowed")
    if ends and length:
        raise Denied(Reason.AMBIGUOUS_FRAMING, "the request ends with its head, and states a length")
    authority = parse_authority(values[layout.host])
    return Request(layout, values, method.decode(), path, authority, length, not ends, NO_NAMES, True, 1, expect)  # noqa: FBT003


def response_of(fields: Sequence[Field], limits: ClientLimits) -> Response:
    """Read the head of an answer, final or interim.

    Raises:
        Denied: BAD_REQUEST, AMBIGUOUS_FRAMING, HEAD_TOO_LARGE; the caller knows that this was an answer.
    """
    _check_size(fields, max_bytes=limits.max_head_bytes, max_fields=limits.max_fields)
    pseudo, names, values = _split(fields, _OF_ANSWERS)
    status = pseudo.get(b":status", b"")
    if not _is_status(status) or status == b"101":  # section 8.6: HTTP/2 has no 101
        raise Denied(Reason.BAD_REQUEST, "the status is missing, malformed or 101")
    layout = answer_layouts[names]
    return Response(layout, values, int(status), _length(layout, values))


def trailers_of(fields: Sequence[Field], *, max_bytes: int, max_fields: int) -> list[Field]:
    """Return the fields behind a body.

    Raises:
        Denied: BAD_REQUEST, HEAD_TOO_LARGE.
    """
    _check_size(fields, max_bytes=max_bytes, max_fields=max_fields)
    _, names, values = _split(fields, NO_NAMES)
    return list(zip(names, values, strict=True))


def fields_of(lines: bytes) -> list[Field]:
    """Return the fields that ``h1_fields.edited`` and ``encode_fields`` write as lines."""
    return [(name, value) for name, _, value in [line.partition(b": ") for line in lines.split(b"\r\n")[:-1]]]


def size_of(fields: Iterable[Field]) -> int:
    """Return the size of a list of fields as HTTP/2 counts it (section 10.5.1)."""
    return sum([len(name) + len(value) + FIELD_BYTES for name, value in fields])


def _check_size(fields: Sequence[Field], *, max_bytes: int, max_fields: int) -> None:
    if len(fields) > max_fields + len(_OF_REQUESTS) or size_of(fields) > max_bytes:
        raise Denied(Reason.HEAD_TOO_LARGE, "the head has too many fields or bytes")


def _split(
    fields: Sequence[Field], known: frozenset[bytes]
) -> tuple[dict[bytes, bytes], tuple[bytes, ...], tuple[bytes, ...]]:
    """Return (pseudo-header fields, names of the others, their values)."""
    pseudo: dict[bytes, bytes] = {}
    names: list[bytes] = []
    values: list[bytes] = []
    for name, value in fields:
        if name.startswith(b":"):
            if names or name in pseudo or name not in known:
                raise Denied(Reason.BAD_REQUEST, "a pseudo-header field is unknown, repeated or behind another field")
            pseudo[name] = value
        else:
            _check_name(name, value)
            names.append(name)
            values.append(value)
    text = b"".join([*values, *pseudo.values()])
    if text.translate(CONTROLS_MARKED) != text:
        raise Denied(Reason.BAD_REQUEST, "a field holds a line break, NUL or another control byte")
    if any([value != value.strip(b" \t") for value in values]):  # noqa: C419 - a list is quicker
        raise Denied(Reason.BAD_REQUEST, "white space around the value of a field")
    return pseudo, tuple(names), tuple(values)


def _check_name(name: bytes, value: bytes) -> None:
    if _has_capital(name):
        raise Denied(Reason.BAD_REQUEST, "the name of a field has a capital letter")
    if not _is_name(name):
        raise Denied(Reason.BAD_REQUEST, "the name of a field is no token")
    if name in _OF_CONNECTIONS:
        if name == b"transfer-encoding":
            raise Denied(Reason.AMBIGUOUS_FRAMING, "a Transfer-Encoding in HTTP/2")
        raise Denied(Reason.BAD_REQUEST, "a field of HTTP/1.1's connections in HTTP/2")
    if name == b"te" and value.lower() != b"trailers":
        raise Denied(Reason.BAD_REQUEST, "a TE field of another value than trailers")


def _with_host(
    authority: bytes | None, names: tuple[bytes, ...], values: tuple[bytes, ...]
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return the fields with exactly one Host."""
    hosts = [values[at] for at, name in enumerate(names) if name == b"host"]
    if authority is None:
        if len(hosts) != 1:
            raise Denied(Reason.BAD_REQUEST, "there is no authority, and not exactly one Host")
        return names, values
    if not hosts:
        return (b"host", *names), (authority, *values)
    if len(hosts) > 1 or parse_authority(hosts[0]) != parse_authority(authority):
        raise Denied(Reason.BAD_REQUEST, "the authority and Host are not the same")
    return names, values


def _joined(names: tuple[bytes, ...], values: tuple[bytes, ...]) -> tuple[H1Layout, tuple[bytes, ...]]:
    """Return the layout and values, with Cookie fields joined."""
    if names.count(b"cookie") > 1:
        first = names.index(b"cookie")
        cookie = b"; ".join([value for name, value in zip(names, values, strict=True) if name == b"cookie" and value])
        kept = [at for at, name in enumerate(names) if name != b"cookie" or at == first]
        values = tuple([cookie if at == first else values[at] for at in kept])
        names = tuple([names[at] for at in kept])
    return request_layouts[names], values


def _length(layout: H1Layout, values: Sequence[bytes]) -> int | None:
    if layout.length is None:
        return None
    if len(layout.lengths) > 1:
        raise Denied(Reason.AMBIGUOUS_FRAMING, "the length of the body is stated twice")
    if not is_length(values[layout.length]):
        raise Denied(Reason.AMBIGUOUS_FRAMING, "the Content-Length is not a plain number")
    return int(values[layout.length])


def _expectation(layout: H1Layout, values: Sequence[bytes]) -> bytes | None:
    if not layout.expect:
        return None
    if len(layout.expect) > 1 or values[layout.expect[0]].lower() != b"100-continue":
        raise Denied(Reason.EXPECTATION_REFUSED, "another expectation than one 100-continue")
    return values[layout.expect[0]]
