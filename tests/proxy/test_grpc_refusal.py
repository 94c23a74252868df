"""Refusals of gRPC: each reason has a status that libraries know."""

from __future__ import annotations

from base64 import b64decode
from typing import Any
from urllib.parse import unquote

import pytest

from delegation_core.errors import DeadlinePassed, Denied, Reason
from delegation_core.protobuf import Field, Kind, Schema
from sidecar.features.a2a.operation import A2aOperation
from sidecar.proxy.journeys.grpc_refusal import grpc_refusal, grpc_trailers
from sidecar.wire.stream import refuses_by_grpc
from tests.fakes.protobuf_schema import message_class
from tests.wire.written import request_with

CODES = {
    Reason.NO_TOKEN: 16,
    Reason.TOKEN_EXPIRED: 16,
    Reason.POLICY_DENIED: 7,
    Reason.NO_ROUTE: 12,
    Reason.METHOD_REFUSED: 12,
    Reason.OVERLOADED: 14,
    Reason.UPSTREAM_TIMEOUT: 14,
    Reason.STS_TIMEOUT: 14,
    Reason.TIMEOUT: 14,
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


def test_only_a_deadline_that_somebody_set_is_shown_as_one_and_named() -> None:
    fields = dict(grpc_trailers(DeadlinePassed("the grpc-timeout of the caller", begun=False), "r"))
    assert fields[b"grpc-status"] == b"4"
    assert fields[b"grpc-message"] == b"no answer within the grpc-timeout of the caller (upstream_timeout)"
    deadlines = [one for one in Reason if dict(grpc_trailers(Denied(one), "r"))[b"grpc-status"] == b"4"]
    assert deadlines == []


@pytest.mark.parametrize("reason", list(Reason))
def test_every_refusal_names_its_reason_and_none_is_a_success(reason: Reason) -> None:
    fields = dict(grpc_refusal(Denied(reason, "secret detail"), "id-1", None))
    assert fields[b"grpc-status"] != b"0"
    assert unquote(fields[b"grpc-message"].decode()) == f"{reason.answer.text} ({reason})"
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


STATUS: Schema = {
    1: Field(Kind.NUMBER, "code"),
    2: Field(Kind.TEXT, "message"),
    3: Field(
        Kind.MESSAGE,
        "details",
        schema={
            1: Field(Kind.TEXT, "type"),
            2: Field(
                Kind.MESSAGE,
                "info",
                schema={
                    1: Field(Kind.TEXT, "reason"),
                    2: Field(Kind.TEXT, "domain"),
                    3: Field(
                        Kind.MESSAGE, many=True, schema={1: Field(Kind.TEXT, "name"), 2: Field(Kind.TEXT, "value")}
                    ),
                },
            ),
        },
    ),
}


def call_of_a2a(*, first_version: bool = False) -> A2aOperation:
    asked = A2aOperation()
    asked.grpc, asked.first_version = True, first_version
    return asked


@pytest.mark.parametrize(
    ("reason", "code", "name", "old_name"),
    [
        (Reason.TASK_UNKNOWN, 5, "TASK_NOT_FOUND", "TaskNotFoundError"),
        (Reason.CONTEXT_UNKNOWN, 3, "INVALID_PARAMS", "InvalidParamsError"),
        (Reason.OPERATION_REFUSED, 7, "UNSUPPORTED_OPERATION", "UnsupportedOperationError"),
        (Reason.POLICY_DENIED, 7, "UNSUPPORTED_OPERATION", "UnsupportedOperationError"),
        (Reason.PROTOCOL_VERSION, 3, "VERSION_NOT_SUPPORTED", "VersionNotSupportedError"),
        (Reason.OPERATION_MALFORMED, 3, "INVALID_REQUEST", "InvalidRequestError"),
    ],
)
def test_a_refused_call_of_a2a_has_the_error_of_a2a(reason: Reason, code: int, name: str, old_name: str) -> None:
    error, text = Denied(reason, "secret detail"), f"{reason.answer.text} ({reason})"
    fields = dict(grpc_refusal(error, "id-1", None, call_of_a2a()))
    assert (fields[b"grpc-status"], unquote(fields[b"grpc-message"].decode())) == (b"%d" % code, text)
    packed = fields[b"grpc-status-details-bin"]
    status: Any = message_class(STATUS)()
    status.ParseFromString(b64decode(packed + b"=" * (-len(packed) % 4)))
    assert (status.f1, status.f2) == (code, text)  # as the fields, which the official client compares
    assert status.f3.f1 == "type.googleapis.com/google.rpc.ErrorInfo"
    assert (status.f3.f2.f1, status.f3.f2.f2) == (name, "a2a-protocol.org")
    assert {one.f1: one.f2 for one in status.f3.f2.f3} == {"reason": reason, "request_id": "id-1"}
    old = dict(grpc_refusal(error, "id-1", None, call_of_a2a(first_version=True)))
    assert unquote(old[b"grpc-message"].decode()) == f"{old_name}: {text}"
    assert (b"grpc-status-details-bin" in old) == (reason in {Reason.TASK_UNKNOWN, Reason.CONTEXT_UNKNOWN})


def test_a_call_of_a2a_that_was_not_understood_has_the_status_alone() -> None:
    for reason in (Reason.NO_TOKEN, Reason.OVERLOADED, Reason.UPSTREAM_TIMEOUT):
        assert grpc_refusal(Denied(reason), "r", None, call_of_a2a()) == grpc_refusal(Denied(reason), "r", None)


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
