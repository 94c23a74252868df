"""Heads of given fields, and the fields of written lines."""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.wire.head import NOT_PASSED, Field, Fields, Head, RequestHead, ResponseHead
from sidecar.wire.lines import read_line


def request_with(fields: Iterable[Field]) -> RequestHead:
    return RequestHead(
        common=Fields(fields),
        fresh={},
        method="GET",
        target=b"/",
        authority="h",
        proxy_form=False,
        minor=1,
        content_length=None,
        chunked=False,
        keep_alive=True,
    )


def answer_with(fields: Iterable[Field]) -> ResponseHead:
    return ResponseHead(
        common=Fields(fields), fresh={}, status=200, minor=1, content_length=None, chunked=False, keep_alive=True
    )


def fields_in(lines: bytes) -> list[Field]:
    assert not lines or lines.endswith(b"\r\n")
    return [read_line(line) for line in lines.split(b"\r\n")[:-1]]


def end_to_end(name: bytes) -> bool:
    """Tell whether fields of a (lower-case) name may travel on at all: neither hop-by-hop nor framing, nor Expect."""
    return name not in NOT_PASSED


def pass_fields(head: Head) -> bytes:
    """The lines of all fields that may travel on, as they are."""
    return head.passing(end_to_end)
