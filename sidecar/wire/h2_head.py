"""Heads of HTTP/2 as messages, and the reverse: strict and pure (RFC 9113 section 8).

A head arrives as a list of fields. What makes it malformed is refused with the reason that the same error has in
HTTP/1.1, and nothing is mended, except that split Cookie fields are joined (section 8.2.3). The ``:authority`` becomes
the Host of the message, so that policy reads one authority whatever the version; beside a Host it must be the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final, cast

from delegation_core.errors import Denied, Reason
from sidecar.wire.h1_fields import CONTROLS_MARKED, H1Layout, answer_layouts, is_length, request_layouts
from sidecar.wire.h1_head import parse_authority, plain_authority
from sidecar.wire.h2_names import FIELD_BYTES, Fields, HeadNames, KnownNames, of_answers, of_requests, of_trailers
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.message import NO_NAMES, Field, Request, Response

_is_method: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}").fullmatch
_is_path: Final = re.compile(rb"[!-~]++").fullmatch
_is_status: Final = re.compile(rb"[1-5][0-9][0-9]").fullmatch
_SCHEMES: Final = frozenset({b"http", b"https"})
_NEVER_SERVED: Final = frozenset({b"CONNECT", b"TRACE", b"TRACK"})
_strip: Final = bytes.strip
_PSEUDO: Final = 4  # pseudo-header fields of a request, not counted by limits
_NOTHING: Final[tuple[tuple[bytes, ...], tuple[bytes, ...]]] = ((), ())


def request_of(fields: Sequence[Field], limits: ServerLimits, *, ends: bool) -> Request:
    """Read the head of a request. ``ends``: nothing follows it.

    Raises:
        Denied: BAD_REQUEST, AMBIGUOUS_FRAMING, METHOD_REFUSED, PATH_REFUSED, URI_TOO_LONG, HEAD_TOO_LARGE,
            EXPECTATION_REFUSED, TOO_LARGE.
    """
    known, texts = _split(fields, of_requests, max_bytes=limits.max_head_bytes, max_fields=limits.max_fields)
    values = known.pick(texts)
    _check_values(values)
    texts += (b"",)  # the value of a pseudo-header field that is missing
    method = texts[known.method]
    if not _is_method(method):
        raise Denied(Reason.BAD_REQUEST, "the method is missing or no token")
    if method in _NEVER_SERVED:
        raise Denied(Reason.METHOD_REFUSED, "CONNECT and TRACE are never served in HTTP/2")
    if texts[known.scheme] not in _SCHEMES:
        raise Denied(Reason.BAD_REQUEST, "the scheme is neither http nor https")
    path = texts[known.path]
    if len(path) > limits.max_target_bytes:
        raise Denied(Reason.URI_TOO_LONG, "the request target is too long")
    if not _is_path(path):
        raise Denied(Reason.BAD_REQUEST, "the path is missing, empty or malformed")
    if not path.startswith(b"/"):
        raise Denied(Reason.PATH_REFUSED, "the request target is not in origin-form")
    if known.hosts:
        _check_host(known, texts)
    elif known.authority == len(fields):
        raise Denied(Reason.BAD_REQUEST, "there is no authority, and not exactly one Host")
    layout = known.layout
    if layout is None:
        layout, values = _joined(known.names, values)
    assert layout.host is not None  # noqa: S101 - for the type only
    host = values[layout.host]
    authority = host.decode() if plain_authority(host) else parse_authority(host)
    if layout.plain:
        return Request(layout, values, method.decode(), path, authority, None, not ends)
    expect = _expectation(layout, values)
    length = _length(layout, values)
    if length is not None and length > limits.max_body_bytes:
        raise Denied(Reason.TOO_LARGE, "the Content-Length is larger than allowed")
    if ends and length:
        raise Denied(Reason.AMBIGUOUS_FRAMING, "the request ends with its head, and states a length")
    return Request(layout, values, method.decode(), path, authority, length, not ends, NO_NAMES, True, 1, expect)  # noqa: FBT003


def request_again(fields: Sequence[Field], limits: ServerLimits, *, ends: bool) -> Request:
    """Parse the head of a request; cached for the same fields and limits.

    Raises:
        Denied: as ``request_of``.
    """
    if not isinstance(fields, Fields):
        return request_of(fields, limits, ends=ends)
    found = fields.message
    if isinstance(found, Request) and found.has_body is not ends:
        return found
    fields.message = found = request_of(fields, limits, ends=ends)
    return found


def response_again(fields: Sequence[Field], limits: ClientLimits) -> Response:
    """Parse the head of an answer; cached for the same fields and limits.

    Raises:
        Denied: as ``response_of``.
    """
    if not isinstance(fields, Fields):
        return response_of(fields, limits)
    found = fields.message
    if not isinstance(found, Response):
        fields.message = found = response_of(fields, limits)
    return found


def response_of(fields: Sequence[Field], limits: ClientLimits) -> Response:
    """Read the head of an answer, final or interim.

    Raises:
        Denied: BAD_REQUEST, AMBIGUOUS_FRAMING, HEAD_TOO_LARGE; the caller knows that this was an answer.
    """
    known, texts = _split(fields, of_answers, max_bytes=limits.max_head_bytes, max_fields=limits.max_fields)
    values = known.pick(texts)
    _check_values(values)
    status = texts[known.status] if known.status < len(texts) else b""
    if not _is_status(status) or status == b"101":  # section 8.6: HTTP/2 has no 101
        raise Denied(Reason.BAD_REQUEST, "the status is missing, malformed or 101")
    layout = known.layout or answer_layouts[known.names]
    return Response(layout, values, int(status), None if layout.plain else _length(layout, values))


def trailers_of(fields: Sequence[Field], *, max_bytes: int, max_fields: int) -> list[Field]:
    """Check and return the trailers of a body.

    Raises:
        Denied: BAD_REQUEST, HEAD_TOO_LARGE.
    """
    _, values = _split(fields, of_trailers, max_bytes=max_bytes, max_fields=max_fields)
    _check_values(values)
    return list(fields)


fields_of: Final = cast("Callable[[bytes], list[Field]]", re.compile(rb"([^:]++): ([^\r]*+)\r\n").findall)
"""Return the fields that ``h1_fields.edited`` and ``encode_fields`` write as lines."""


def size_of(fields: Sequence[Field]) -> int:
    """Return the size of a list of fields as HTTP/2 counts it (section 10.5.1)."""
    return sum(map(len, chain.from_iterable(fields))) + FIELD_BYTES * len(fields)


def _split(
    fields: Sequence[Field], kind: KnownNames, *, max_bytes: int, max_fields: int
) -> tuple[HeadNames, tuple[bytes, ...]]:
    """Return (the parsed names, the values). Refuses excess size, a TE other than trailers, and control bytes."""
    size = fields.size if isinstance(fields, Fields) else size_of(fields)
    if len(fields) > max_fields + _PSEUDO or size > max_bytes:
        raise Denied(Reason.HEAD_TOO_LARGE, "the head has too many fields or bytes")
    names, values = zip(*fields) if fields else _NOTHING  # noqa: B905 - there are only pairs
    known = kind[names]
    for at in known.te:
        if values[at].lower() != b"trailers":
            raise Denied(Reason.BAD_REQUEST, "a TE field of another value than trailers")
    text = b"".join(values)
    if text.translate(CONTROLS_MARKED) != text:
        raise Denied(Reason.BAD_REQUEST, "a field holds a line break, NUL or another control byte")
    return known, values


def _check_values(values: tuple[bytes, ...]) -> None:
    """Refuse white space around values already free of control bytes."""
    if tuple(map(_strip, values)) != values:
        raise Denied(Reason.BAD_REQUEST, "white space around the value of a field")


def _check_host(known: HeadNames, texts: tuple[bytes, ...]) -> None:
    """Refuse repeated Host fields, and a Host that differs from the authority. Call it only with a Host."""
    host = texts[known.hosts[0]]
    if known.authority == len(texts) - 1:  # it is missing
        if len(known.hosts) > 1:
            raise Denied(Reason.BAD_REQUEST, "there is no authority, and not exactly one Host")
    elif len(known.hosts) > 1 or parse_authority(host) != parse_authority(texts[known.authority]):
        raise Denied(Reason.BAD_REQUEST, "the authority and Host are not the same")


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
