"""Streams an authorised request to its upstream and the answer back. Takes a permit: no permit, no bytes upstream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sidecar.delegation.decide import IssuedPermit, Permit
from sidecar.errors import Denied, Reason, SidecarError
from sidecar.observe.access_log import Entry
from sidecar.proxy.journey import Journey, Waiter
from sidecar.wire.body import Pump
from sidecar.wire.exchange import ServerExchange
from sidecar.wire.head import Field, ResponseHead, end_to_end
from sidecar.wire.pool import Origin, UpstreamPool

AnswerFields = Callable[[Sequence[Field]], list[Field]]

_EVENT_STREAM: Final = b"text/event-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A request as it goes upstream: ``fields`` are complete but for those that state the body's length."""

    origin: Origin
    method: str
    target: bytes
    fields: Sequence[Field] = field(repr=False)


class Forwarder:
    """Sends requests to upstreams through one pool. ``answer_fields`` says which fields of an answer may pass."""

    def __init__(self, pool: UpstreamPool, answer_fields: AnswerFields) -> None:
        self._pool = pool
        self._answer_fields = answer_fields

    def send(
        self, permit: Permit | IssuedPermit, outgoing: Outgoing, exchange: ServerExchange, entry: Entry
    ) -> Journey[int]:
        """Forward one request; ends with the upstream's status once the whole answer has passed.

        Raises:
            SidecarError: UPSTREAM_*, TIMEOUT or TOO_LARGE (the body), PEER_GONE. If ``exchange.status`` is set by then,
                an answer had begun and was cut, else the caller must answer.
        """
        if not isinstance(permit, Permit | IssuedPermit):
            raise TypeError("nothing is forwarded without a permit")
        entry.forwarded()
        status: int = yield _Transfer(self._pool, self._answer_fields, outgoing, exchange, entry)
        return status


class _Transfer:
    """The wait for one whole answer."""

    __slots__ = ("_answer_fields", "_entry", "_exchange", "_outgoing", "_pool", "_pump", "_waiter")

    def __init__(
        self,
        pool: UpstreamPool,
        answer_fields: AnswerFields,
        outgoing: Outgoing,
        exchange: ServerExchange,
        entry: Entry,
    ) -> None:
        self._pool = pool
        self._answer_fields = answer_fields
        self._outgoing = outgoing
        self._exchange = exchange
        self._entry = entry
        self._waiter: Waiter | None = None
        self._pump: Pump | None = None

    def begin(self, waiter: Waiter) -> None:
        self._waiter = waiter
        outgoing = self._outgoing
        self._pump = Pump(
            self._exchange,
            self._pool,
            outgoing.origin,
            method=outgoing.method,
            target=outgoing.target,
            fields=outgoing.fields,
            rewrite=self._rewrite,
            unfinished=self._unfinished,
            done=self._done,
        )
        self._pump.start()

    def cancel(self) -> None:
        self._waiter = None
        if self._pump is not None:
            self._pump.cancel(Denied(Reason.PEER_GONE))

    def _rewrite(self, head: ResponseHead) -> Sequence[Field]:
        self._entry.responded(head.status)
        return self._answer_fields(end_to_end(head.fields))

    def _unfinished(self, head: ResponseHead) -> None:
        if _streams(head):
            self._entry.opened()

    def _done(self, error: SidecarError | None) -> None:
        # The pump knows this object by its callbacks: a circle would keep the request, its connection and the megabyte
        # of buffers that a TLS connection has until the garbage collector comes by.
        self._pump = None
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return
        if error is not None:
            waiter.fail(error)
        else:
            waiter.resume(self._exchange.status)


def _streams(head: ResponseHead) -> bool:
    """Whether nobody can tell when this answer will end."""
    if head.chunked or head.content_length is None:
        return True
    return any(name == b"content-type" and value.lower().startswith(_EVENT_STREAM) for name, value in head.fields)
