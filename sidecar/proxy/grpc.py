"""Refusals of calls of gRPC: a status and a message in place of HTTP's, where the libraries show them to their users.

The answer is HTTP status 200 with ``grpc-status`` and ``grpc-message``, in its head if nothing was answered yet, else
behind the content. Our reason and the request id come beside them, as in any refusal.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from sidecar.errors import Reason, SidecarError
from sidecar.wire.grpc import is_grpc
from sidecar.wire.message import Field, Message
from sidecar.wire.stream import Stream

# google.rpc.Code by HTTP status, as gRPC's own table has them, but where ours says more.
_CODES: Final = {
    400: 3,  # INVALID_ARGUMENT
    401: 16,  # UNAUTHENTICATED
    403: 7,  # PERMISSION_DENIED
    404: 12,  # UNIMPLEMENTED
    405: 12,
    408: 4,  # DEADLINE_EXCEEDED
    413: 8,  # RESOURCE_EXHAUSTED
    414: 3,
    417: 3,
    431: 8,
    502: 14,  # UNAVAILABLE
    503: 14,
    504: 4,
}
_is_plain: Final = re.compile(rb"application/grpc\+[a-z0-9]{1,32}").fullmatch
_UNKNOWN: Final = 2
_INTERNAL: Final = 13
_CANCELLED: Final = 1
_PLAIN: Final = "".join(chr(code) for code in range(0x20, 0x7F) if code != 0x25)


def refuses_by_grpc(stream: Stream) -> bool:
    """Tell if a call is refused as one of gRPC."""
    return stream.http2 and stream.head is not None and is_grpc(stream.head)


def grpc_refusal(error: SidecarError, request_id: str, head: Message | None) -> list[Field]:
    """Return the fields of a refusal before anything was answered.

    Its type is that of the request, as some libraries read no other; one of unknown letters is not repeated.
    """
    asked = () if head is None else head.all(b"content-type")
    kind = asked[0] if len(asked) == 1 and _is_plain(asked[0]) else b"application/grpc"
    return [(b"content-type", kind), (b"cache-control", b"no-store"), *grpc_trailers(error, request_id)]


def grpc_trailers(error: SidecarError, request_id: str) -> list[Field]:
    """Return the fields that tell why a call has ended."""
    answer = error.answer
    fields = [
        (b"grpc-status", b"%d" % _code_of(error)),
        (b"grpc-message", quote(f"{answer.text} ({error.reason})", safe=_PLAIN).encode("ascii")),
        (b"delegation-reason", error.reason.encode()),
        (b"delegation-request-id", request_id.encode()),
    ]
    if answer.retry_after_s is not None:
        fields.append((b"grpc-retry-pushback-ms", b"%d" % (answer.retry_after_s * 1000)))
    return fields


def _code_of(error: SidecarError) -> int:
    if error.reason is Reason.INTERNAL:
        return _INTERNAL
    if error.reason is Reason.PEER_GONE:
        return _CANCELLED
    return _CODES.get(error.answer.status, _UNKNOWN if error.answer.status else 14)
