"""What both journeys do at their ends: start, refuse the request, close its record."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sidecar.errors import Reason, SidecarError, Unavailable
from sidecar.identity.tls import guard_of
from sidecar.observe.access_log import AccessLog, Entry
from sidecar.observe.record import Direction
from sidecar.observe.record_text import refused_path
from sidecar.proxy.journey import Drive, Journey
from sidecar.proxy.refusal import refusal
from sidecar.wire.exchange import ServerExchange
from sidecar.wire.message import Request


def serve(
    log: AccessLog,
    direction: Direction,
    exchange: ServerExchange,
    journey: Callable[[ServerExchange, Request, Entry], Journey[None]],
) -> None:
    """Reserve the record of a request, then start its journey; without room for a record nothing starts."""
    head = exchange.head
    assert head is not None  # noqa: S101 - for the type only: the wire gives no request without a head
    try:
        entry = log.reserve(direction)
    except Unavailable as error:
        exchange.answer(*refusal(error, ""))
        return
    entry.method = head.method
    drive = exchange.owner = Drive(journey(exchange, head, entry))
    drive.resume(None)


def refuse_unread(
    log: AccessLog, direction: Direction, exchange: ServerExchange, error: SidecarError, *, hang_up: bool = False
) -> None:
    """Refuse what is not to be judged (a bad head, a limit, a deadline, no room), and leave its record."""
    try:
        entry = log.reserve(direction)
    except Unavailable as unavailable:
        exchange.answer(*refusal(unavailable, ""), close=hang_up)
        return
    try:
        if direction == "inbound":
            entry.peer = guard_of(exchange.transport).peer.spiffe_id
        if exchange.head is not None:
            entry.method = exchange.head.method
        refuse(exchange, error, entry, hang_up=hang_up)
    finally:
        close(exchange, entry)


def refuse(
    exchange: ServerExchange,
    error: SidecarError,
    entry: Entry,
    *,
    scope: Iterable[str] = (),
    allow: Iterable[str] = (),
    hang_up: bool = False,
) -> None:
    """Tell the caller no. What has begun is cut, and what cannot be answered by HTTP ends the connection.

    ``hang_up`` ends it after the answer too, whatever the reason.
    """
    entry.refuse(error)
    if entry.path is None and exchange.head is not None:
        entry.path = refused_path(exchange.head.target)
    if exchange.status or error.answer.status == 0:
        exchange.abort()
        return
    status, fields, body = refusal(error, entry.request_id, scope=scope, allow=allow)
    exchange.answer(status, fields, body, close=hang_up or error.answer.close)


def close(exchange: ServerExchange, entry: Entry) -> None:
    """Leave the one closing record. A journey that ends without an answer has a bug, which the caller must not feel."""
    if not (exchange.ended or exchange.gone):
        refuse(exchange, Unavailable(Reason.INTERNAL, "the journey ended without an answer"), entry)
    entry.status = exchange.status or None
    entry.bytes_in = exchange.bytes_in
    entry.bytes_out = exchange.bytes_out
    entry.close()
