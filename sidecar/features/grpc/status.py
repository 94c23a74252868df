"""Refusals of calls of gRPC: a status and a message in place of HTTP's, where the libraries show them to their users.

The answer is HTTP status 200 with ``grpc-status`` and ``grpc-message``, in its head if nothing was answered yet, else
behind the content. Our reason and the request id come beside them, as in any refusal. A refused call of A2A gets the
error that A2A has for it, where its clients look for it: in ``grpc-status-details-bin``, or in 0.3 in the message.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Final
from urllib.parse import quote

from sidecar.delegation.protobuf import length_field, number_field
from sidecar.errors import DeadlinePassed, Reason, SidecarError
from sidecar.features.a2a.errors import DOMAIN, ERROR_INFO, A2aError, a2a_error
from sidecar.features.operations.operations import Asked
from sidecar.wire.grpc import is_grpc
from sidecar.wire.message import Field, Message
from sidecar.wire.stream import Stream
from sidecar.wire.upstream import UpstreamCancelled

# google.rpc.Code by HTTP status, as gRPC's own table has them, but where ours says more.
_CODES: Final = {
    400: 3,  # INVALID_ARGUMENT
    401: 16,  # UNAUTHENTICATED
    403: 7,  # PERMISSION_DENIED
    404: 12,  # UNIMPLEMENTED
    405: 12,
    408: 14,
    413: 8,  # RESOURCE_EXHAUSTED
    414: 3,
    417: 3,
    431: 8,
    502: 14,  # UNAVAILABLE
    503: 14,
    504: 14,  # a limit of ours is no deadline of the caller's
}
_is_plain: Final = re.compile(rb"application/grpc\+[a-z0-9]{1,32}").fullmatch
_UNKNOWN: Final = 2
_INTERNAL: Final = 13
_CANCELLED: Final = 1
_DEADLINE_EXCEEDED: Final = 4
# Of A2A, where SDKs know an error by its code and its ErrorInfo together, as that of Go does.
_OF_A2A: Final = {Reason.TASK_UNKNOWN: 5, Reason.CONTEXT_UNKNOWN: 3}  # NOT_FOUND, INVALID_ARGUMENT
_PLAIN: Final = "".join(chr(code) for code in range(0x20, 0x7F) if code != 0x25)


def refuses_by_grpc(stream: Stream) -> bool:
    """Tell if a call is refused as one of gRPC."""
    return stream.http2 and stream.head is not None and is_grpc(stream.head)


def grpc_refusal(error: SidecarError, request_id: str, head: Message | None, asked: Asked | None = None) -> list[Field]:
    """Return the fields of a refusal before anything was answered; ``asked`` is the message of A2A that is refused.

    Its type is that of the request, as some libraries read no other; one of unknown letters is not repeated.
    """
    types = () if head is None else head.all(b"content-type")
    kind = types[0] if len(types) == 1 and _is_plain(types[0]) else b"application/grpc"
    return [(b"content-type", kind), (b"cache-control", b"no-store"), *grpc_trailers(error, request_id, asked)]


def grpc_trailers(error: SidecarError, request_id: str, asked: Asked | None = None) -> list[Field]:
    """Return the fields that tell why a call has ended."""
    answer = error.answer
    code, text = _code_of(error), f"{answer.text} ({error.reason})"
    known = a2a_error(error) if asked is not None and asked.protocol == "a2a" else None
    details: list[Field] = []
    if known is not None and asked is not None:
        code = _OF_A2A.get(error.reason, code)
        if asked.first_version:
            text = f"{known.name}: {text}"
        # Of 0.3, Go's SDK reads PERMISSION_DENIED without an ErrorInfo as that, and with one as an internal error.
        if error.reason in _OF_A2A or not asked.first_version:
            details.append((b"grpc-status-details-bin", _details(code, text, known, error, request_id)))
    fields = [
        (b"grpc-status", b"%d" % code),
        (b"grpc-message", quote(text, safe=_PLAIN).encode("ascii")),
        *details,
        (b"delegation-reason", error.reason.encode()),
        (b"delegation-request-id", request_id.encode()),
    ]
    if answer.retry_after_s is not None:
        fields.append((b"grpc-retry-pushback-ms", b"%d" % (answer.retry_after_s * 1000)))
    return fields


def _details(code: int, text: str, known: A2aError, error: SidecarError, request_id: str) -> bytes:
    """Return a ``google.rpc.Status`` with a ``google.rpc.ErrorInfo`` (A2A 1.0 section 10.6)."""
    metadata = [
        length_field(3, length_field(1, name) + length_field(2, value))
        for name, value in (("reason", error.reason), ("request_id", request_id))
    ]
    info = length_field(1, known.reason) + length_field(2, DOMAIN) + b"".join(metadata)
    packed = length_field(1, ERROR_INFO) + length_field(2, info)
    return b64encode(number_field(1, code) + length_field(2, text) + length_field(3, packed)).rstrip(b"=")


def _code_of(error: SidecarError) -> int:
    if isinstance(error, DeadlinePassed):
        return _DEADLINE_EXCEEDED
    if error.reason is Reason.INTERNAL:
        return _INTERNAL
    if error.reason is Reason.PEER_GONE or isinstance(error, UpstreamCancelled):
        return _CANCELLED
    return _CODES.get(error.answer.status, _UNKNOWN if error.answer.status else 14)
