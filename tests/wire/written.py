"""Heads of given fields, and the fields of written lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from delegation_core.errors import Denied, Reason
from sidecar.wire.h1_fields import H1Layout, connection_options
from sidecar.wire.h1_head import RequestGrammar, ResponseGrammar
from sidecar.wire.message import NOT_PASSED, Edits, Field, Request, Response


def request_with(fields: Iterable[Field]) -> Request:
    layout, values, listed = _parts(fields)
    return Request(layout, values, "GET", b"/", "h", listed=listed)


def answer_with(fields: Iterable[Field]) -> Response:
    layout, values, listed = _parts(fields)
    return Response(layout, values, 200, listed=listed)


def _parts(fields: Iterable[Field]) -> tuple[H1Layout, tuple[bytes, ...], frozenset[bytes]]:
    listed = tuple(fields)
    layout, values = H1Layout(name for name, _ in listed), tuple(value for _, value in listed)
    return layout, values, connection_options([values[at] for at in layout.connection]) - NOT_PASSED


def parse_request_head(head: bytes, *, max_target_bytes: int, max_fields: int, proxy_form: bool) -> Request:
    return RequestGrammar(max_target_bytes=max_target_bytes, max_fields=max_fields, proxy_form=proxy_form).read(head)


def parse_response_head(head: bytes, *, max_fields: int) -> Response:
    return ResponseGrammar(max_fields=max_fields).read(head)


def fields_in(lines: bytes) -> list[Field]:
    assert not lines or lines.endswith(b"\r\n")
    return [read_line(line) for line in lines.split(b"\r\n")[:-1]]


def read_line(line: bytes) -> Field:
    """One header field by a reading of its own, for comparison."""
    name, colon, value = line.partition(b":")
    token = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    if not colon or not name or name.strip(token) or any((byte < 32 and byte != 9) or byte == 127 for byte in value):
        raise Denied(Reason.BAD_REQUEST, "no header field")
    return name.lower(), value.strip(b" \t")


def end_to_end(name: bytes) -> bool:
    """Tell whether fields of a (lower-case) name may travel on at all: neither hop-by-hop nor framing, nor Expect."""
    return name not in NOT_PASSED


AS_THEY_ARE: Final = Edits(end_to_end)
"""All fields that may travel on, as they are."""


def passed(status: int, length: int | None, fields: Iterable[Field] = ()) -> tuple[Response, Edits]:
    """An answer to pass on as it is."""
    return replace(answer_with(fields), status=status, content_length=length), AS_THEY_ARE
