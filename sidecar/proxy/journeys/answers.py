"""Start and end of every journey: reserves its record, starts it, refuses its request, closes its record."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

from delegation_core.errors import OF_HANDSHAKES, Reason, SidecarError, TrustEnded, Unavailable
from delegation_core.records.record import Direction, RecordFields
from delegation_core.records.record_text import refused_path
from sidecar.identity.tls import guard_of
from sidecar.observe.access_log import AccessLog, Entry
from sidecar.observe.record_rate import UnprovenRecords
from sidecar.proxy.journeys.headers import source_of
from sidecar.proxy.journeys.journey import Drive, Journey
from sidecar.proxy.journeys.refusal import refusal
from sidecar.wire.message import Field, Request
from sidecar.wire.stream import Stream, refuses_by_grpc

if TYPE_CHECKING:
    from delegation_core.human import Human
    from delegation_core.resource_metadata import ProtectedResource
    from sidecar.proxy.journeys.operation import Operation

_log: Final = logging.getLogger(__name__)


def serve(
    log: AccessLog,
    direction: Direction,
    stream: Stream,
    journey: Callable[[Stream, Request, Entry], Journey[None]],
    unproven: UnprovenRecords | None = None,
) -> None:
    """Reserve the record of a request, then start its journey. Without space for a record, refuse the request.

    ``unproven`` limits the rate of records of callers without a proven identity; None: callers prove theirs.
    """
    head = stream.head
    assert head is not None  # noqa: S101 - for the type only: ``on_request`` comes after the head
    try:
        entry = log.reserve(direction, unproven)
    except Unavailable as error:
        stream.answer(*refusal(error, _record_refusal(log, direction, stream, error, unproven)))
        return
    entry.method = head.method
    drive = stream.owner = Drive(journey(stream, head, entry))
    drive.resume(None)


def refuse_unread(
    log: AccessLog,
    direction: Direction,
    stream: Stream,
    error: SidecarError,
    *,
    hang_up: bool = False,
    unproven: UnprovenRecords | None = None,
) -> None:
    """Refuse a request before its journey (a malformed head, a limit, a deadline, no space), and write its record.

    ``hang_up`` closes the connection after the answer. ``unproven`` as in ``serve``.
    """
    if error.reason is Reason.HTTP_VERSION:
        _warn_of_http2(direction)
    try:
        entry = log.reserve(direction, unproven)
    except Unavailable as unavailable:
        told = _record_refusal(log, direction, stream, unavailable, unproven)
        stream.answer(*refusal(unavailable, told), close=hang_up)
        return
    try:
        if (direction == "inbound" and stream.transport.get_extra_info("ssl_object") is None) or unproven is not None:
            entry.source = source_of(stream.remote_address)
        elif direction == "inbound":
            entry.peer = guard_of(stream.transport).peer.spiffe_id
        if stream.head is not None:
            entry.method = stream.head.method
        refuse(stream, error, entry, hang_up=hang_up)
    finally:
        close(stream, entry)


def _record_refusal(
    log: AccessLog, direction: Direction, stream: Stream, error: Unavailable, unproven: UnprovenRecords | None
) -> str:
    """Record a request that is refused because the log has no space. Return its request id; empty if over the rate."""
    if unproven is not None and not unproven.take():
        return ""
    fields: RecordFields = {"status": error.answer.status, "detail": error.detail}
    if stream.head is not None:
        fields["method"], fields["path"] = stream.head.method, refused_path(stream.head.target)
    if direction == "inbound" and unproven is None and stream.transport.get_extra_info("ssl_object") is not None:
        fields["peer"] = guard_of(stream.transport).peer.spiffe_id
    return log.refused(direction, fields)


@cache  # warn once per direction: a gRPC client retries forever
def _warn_of_http2(direction: Direction) -> None:
    _log.warning(
        "a client speaks HTTP/2, which is disabled: set protocols.http2, or configure the client for HTTP/1.1",
        extra={"direction": direction},
    )


def refuse(
    stream: Stream,
    error: SidecarError,
    entry: Entry,
    *,
    scope: Iterable[str] = (),
    allow: Iterable[str] = (),
    human: Human | None = None,
    resource: ProtectedResource | None = None,
    asked: Operation | None = None,
    also: Sequence[Field] = (),
    hang_up: bool = False,
) -> None:
    """Note ``error`` in the record and answer with it; abort if an answer has begun, or the reason has no HTTP status.

    ``asked`` is the refused operation: its protocol decides the form of the answer. ``also`` are additional fields of
    the answer. ``hang_up`` closes the connection after the answer. Other arguments as for ``refusal``.
    """
    if entry.direction == "outbound" and error.reason in OF_HANDSHAKES:
        ended = TrustEnded(error.reason, error.detail)
        ended.__cause__ = error  # ``Entry.refuse`` compares it with the error that withdrew the permit
        error = ended
    entry.refuse(error)
    if entry.path is None and stream.head is not None:
        entry.path = refused_path(stream.head.target)
    if stream.status or error.answer.status == 0:
        stream.abort()
        return
    if refuses_by_grpc(stream):
        from sidecar.proxy.journeys.grpc_refusal import grpc_refusal  # only HTTP/2 needs it

        fields = grpc_refusal(error, entry.request_id, stream.head, asked)
        stream.answer(200, [*fields, *also], b"", close=hang_up)
        return
    if asked is not None and asked.allow is not None:
        allow = asked.allow
    status, fields, body = refusal(
        error, entry.request_id, scope=scope, allow=allow, human=human, resource=resource, asked=asked
    )
    stream.answer(status, [*fields, *also], body, close=hang_up or error.answer.close)


def close(stream: Stream, entry: Entry) -> None:
    """Write the closing record. A journey that ended without an answer has a bug: answer with INTERNAL."""
    if not (stream.ended or stream.gone):
        refuse(stream, Unavailable(Reason.INTERNAL, "the journey ended without an answer"), entry)
    entry.status = stream.status or None
    entry.bytes_in = stream.bytes_in
    entry.bytes_out = stream.bytes_out
    entry.close(stream.head)
