"""Refusals of gRPC calls: ``grpc-status`` and ``grpc-message``, which client libraries show to their users.

They come with HTTP status 200: in the head if the answer has not begun (*Trailers-Only*), else in the trailers. Our
reason and the request id come beside them, as in any refusal. A protocol with errors of its own adds details
(``Operation.grpc_status``). Imported only for HTTP/2.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from delegation_core.errors import DeadlinePassed, Reason, SidecarError
from sidecar.wire.message import Field, Message
from sidecar.wire.upstream_errors import UpstreamCancelled

if TYPE_CHECKING:
    from sidecar.proxy.journeys.operation import Operation

# google.rpc.Code by HTTP status: gRPC's own mapping, except where our status is more precise.
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
    504: 14,  # not DEADLINE_EXCEEDED: the limit is ours, not the caller's
}
_is_plain: Final = re.compile(rb"application/grpc\+[a-z0-9]{1,32}").fullmatch
_UNKNOWN: Final = 2
_INTERNAL: Final = 13
_CANCELLED: Final = 1
_DEADLINE_EXCEEDED: Final = 4
_PLAIN: Final = "".join(chr(code) for code in range(0x20, 0x7F) if code != 0x25)


def grpc_refusal(
    error: SidecarError, request_id: str, head: Message | None, asked: Operation | None = None
) -> list[Field]:
    """Return the fields of a refusal that is the whole answer. ``asked`` is the refused operation.

    The content type is the request's, because some libraries accept no other; unexpected characters are not reflected.
    """
    types = () if head is None else head.all(b"content-type")
    kind = types[0] if len(types) == 1 and _is_plain(types[0]) else b"application/grpc"
    return [(b"content-type", kind), (b"cache-control", b"no-store"), *grpc_trailers(error, request_id, asked)]


def grpc_trailers(error: SidecarError, request_id: str, asked: Operation | None = None) -> list[Field]:
    """Return the trailers of a refusal: status, message, reason code and request id."""
    answer, details = error.answer, list[Field]()
    code, text = _code_of(error), f"{answer.text} ({error.reason})"
    if asked is not None:
        code, text, details = asked.grpc_status(error, code, text, request_id)
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


def _code_of(error: SidecarError) -> int:
    if isinstance(error, DeadlinePassed):
        return _DEADLINE_EXCEEDED
    if error.reason is Reason.INTERNAL:
        return _INTERNAL
    if error.reason is Reason.PEER_GONE or isinstance(error, UpstreamCancelled):
        return _CANCELLED
    return _CODES.get(error.answer.status, _UNKNOWN if error.answer.status else 14)
