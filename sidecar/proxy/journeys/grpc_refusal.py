"""Refusals of calls of gRPC: a status and a message in place of HTTP's, where the libraries show them to their users.

The answer is HTTP status 200 with ``grpc-status`` and ``grpc-message``, in its head if nothing was answered yet, else
behind the content. Our reason and the request id come beside them, as in any refusal. A protocol with errors of its own
adds them (``Operation.grpc_status``). Imported where HTTP/2 is spoken.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from sidecar.errors import DeadlinePassed, Reason, SidecarError
from sidecar.wire.message import Field, Message
from sidecar.wire.upstream_errors import UpstreamCancelled

if TYPE_CHECKING:
    from sidecar.proxy.journeys.operation import Operation

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
_PLAIN: Final = "".join(chr(code) for code in range(0x20, 0x7F) if code != 0x25)


def grpc_refusal(
    error: SidecarError, request_id: str, head: Message | None, asked: Operation | None = None
) -> list[Field]:
    """Return the fields of a refusal before anything was answered; ``asked`` is the operation that is refused.

    Its type is that of the request, as some libraries read no other; one of unknown letters is not repeated.
    """
    types = () if head is None else head.all(b"content-type")
    kind = types[0] if len(types) == 1 and _is_plain(types[0]) else b"application/grpc"
    return [(b"content-type", kind), (b"cache-control", b"no-store"), *grpc_trailers(error, request_id, asked)]


def grpc_trailers(error: SidecarError, request_id: str, asked: Operation | None = None) -> list[Field]:
    """Return the fields that tell why a call has ended."""
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
