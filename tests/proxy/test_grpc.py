"""Refusals of gRPC: each reason has a status that libraries know."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest

from sidecar.errors import ANSWERS, Denied, Reason
from sidecar.proxy.grpc import grpc_refusal, grpc_trailers, refuses_by_grpc
from tests.wire.written import request_with

CODES = {
    Reason.NO_TOKEN: 16,
    Reason.TOKEN_EXPIRED: 16,
    Reason.POLICY_DENIED: 7,
    Reason.NO_ROUTE: 12,
    Reason.METHOD_REFUSED: 12,
    Reason.OVERLOADED: 14,
    Reason.UPSTREAM_TIMEOUT: 4,
    Reason.TIMEOUT: 4,
    Reason.TOO_LARGE: 8,
    Reason.HEADER_MALFORMED: 3,
    Reason.UPSTREAM_IDENTITY: 14,
    Reason.UPSTREAM_ABORTED: 14,
    Reason.PEER_GONE: 1,
    Reason.INTERNAL: 13,
}


@pytest.mark.parametrize(("reason", "code"), CODES.items())
def test_a_reason_has_the_code_that_fits_it(reason: Reason, code: int) -> None:
    assert dict(grpc_trailers(Denied(reason), "r"))[b"grpc-status"] == b"%d" % code


@pytest.mark.parametrize("reason", list(Reason))
def test_every_refusal_names_its_reason_and_none_is_a_success(reason: Reason) -> None:
    fields = dict(grpc_refusal(Denied(reason, "secret detail"), "id-1", None))
    assert fields[b"grpc-status"] != b"0"
    assert unquote(fields[b"grpc-message"].decode()) == f"{ANSWERS[reason].text} ({reason})"
    assert (fields[b"delegation-reason"], fields[b"delegation-request-id"]) == (reason.encode(), b"id-1")
    assert fields[b"content-type"] == b"application/grpc"
    assert not any(b"secret" in value for value in fields.values())


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (b"application/grpc+proto", b"application/grpc+proto"),
        (b"application/grpc", b"application/grpc"),
        (b"application/grpc+<b>", b"application/grpc"),
        (b"application/grpc;x=y", b"application/grpc"),
    ],
)
def test_a_refusal_has_the_type_of_its_request(asked: bytes, told: bytes) -> None:
    head = request_with([(b"content-type", asked)])
    assert dict(grpc_refusal(Denied(Reason.NO_TOKEN), "r", head))[b"content-type"] == told


def test_a_refusal_that_passes_by_says_when_to_come_back() -> None:
    assert dict(grpc_trailers(Denied(Reason.OVERLOADED), "r"))[b"grpc-retry-pushback-ms"] == b"1000"
    assert b"grpc-retry-pushback-ms" not in dict(grpc_trailers(Denied(Reason.POLICY_DENIED), "r"))


class Call:
    """A stream, as far as the choice needs it."""

    def __init__(self, *, http2: bool, content_type: bytes | None) -> None:
        self.http2 = http2
        self.head = None if content_type is None else request_with([(b"content-type", content_type)])


@pytest.mark.parametrize(
    ("http2", "content_type", "by_grpc"),
    [
        (True, b"application/grpc", True),
        (False, b"application/grpc", False),
        (True, b"application/json", False),
        (True, None, False),
    ],
)
def test_only_calls_of_grpc_by_http2_are_refused_by_its_status(
    http2: bool, content_type: bytes | None, by_grpc: bool
) -> None:
    call: Any = Call(http2=http2, content_type=content_type)
    assert refuses_by_grpc(call) is by_grpc
