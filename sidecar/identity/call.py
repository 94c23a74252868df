"""One request to an endpoint, with an optional body, and its answer, buffered whole within a size limit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from delegation_core.errors import Denied, Reason, SidecarError
from sidecar.identity.endpoint import EndpointAnswer, Trouble
from sidecar.wire.h1_fields import encode_fields
from sidecar.wire.message import Response
from sidecar.wire.pool import Cancellable

if TYPE_CHECKING:
    from sidecar.wire.upstream import Upstream


def fields_for(authority: bytes) -> bytes:
    """Return the encoded fields of a request for a JSON document at ``authority``."""
    return encode_fields(
        (
            (b"host", authority),
            (b"accept", b"application/json"),
            (b"accept-encoding", b"identity"),
            (b"user-agent", b"delegation-sidecar"),
        )
    )


class Call:
    """One call. ``begin`` starts it on a connection, ``fail`` ends it if there is none; ``answer`` is its future.

    ``answer`` fails with SidecarError: a reason of `wire`, STS_TOO_LARGE, or STS_BAD_RESPONSE for an encoded answer. A
    caller that stops waiting calls ``end``: the connection is then closed.
    """

    __slots__ = ("_body", "_connection", "_form", "_head", "_lines", "_max_bytes", "_target", "answer", "sent", "waits")

    def __init__(self, target: bytes, lines: bytes, form: bytes | None, *, max_bytes: int) -> None:
        self.answer: asyncio.Future[EndpointAnswer] = asyncio.get_running_loop().create_future()
        self.waits: Cancellable | None = None  # for a connection
        self.sent = False  # True as soon as a byte may have left
        self._target = target
        self._lines = lines
        self._form = form
        self._max_bytes = max_bytes
        self._connection: Upstream | None = None
        self._head: Response | None = None
        self._body = bytearray()

    @property
    def silent(self) -> bool:
        """True if the form was sent on a reused connection and no answer has begun."""
        return self._connection is not None and self._connection.kept and self._head is None

    def begin(self, connection: Upstream) -> None:
        """Send the request in one write."""
        self.waits = None
        self.sent = True
        self._connection = connection
        form = self._form
        if form is None:
            connection.ask("GET", self._target, self._lines, self)
            return
        connection.start("POST", self._target, self._lines, length=len(form), sink=self)
        connection.send_body(form)
        connection.end_body()
        connection.flush()

    def fail(self, error: SidecarError) -> None:
        """Fail the call: no connection can be opened."""
        self.waits = None
        self._end_with(error)

    def end(self) -> None:
        """Abandon the call: its caller has stopped waiting. Without effect after the answer."""
        waits, self.waits = self.waits, None
        if waits is not None:
            waits.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    def on_whole_response(self, head: Response, data: bytes) -> None:
        """Take a whole answer at once."""
        self.on_response(head, data)
        self.on_response_end()

    def on_response(self, head: Response, data: bytes) -> None:
        """Take the head and the first data. Only a content encoding is refused here."""
        self._head = head
        if head.all(b"content-encoding"):
            self.end()
            self._end_with(Denied(Reason.STS_BAD_RESPONSE, Trouble.ENCODED))
        else:
            self.on_response_data(data)

    def on_response_data(self, data: bytes) -> None:
        """Take more of the body, up to the limit."""
        self._body += data
        if len(self._body) > self._max_bytes:
            self.end()
            self._end_with(Denied(Reason.STS_TOO_LARGE, Trouble.TOO_LARGE))

    def on_response_end(self) -> None:
        """Complete the answer."""
        self._connection = None
        if self._head is not None and not self.answer.done():
            self.answer.set_result(
                EndpointAnswer(
                    self._head.status,
                    self._single(b"content-type"),
                    self._single(b"cache-control"),
                    bytes(self._body),
                    self._single(b"etag"),
                    self._single(b"revocations-unchanged"),
                )
            )

    def on_response_error(self, error: SidecarError) -> None:
        """Fail the call: the answer will not be complete."""
        self._connection = None
        self._end_with(error)

    def on_response_flush(self) -> None:
        """Do nothing: the answer is delivered whole."""

    def on_upstream_pause(self) -> None:
        """Do nothing: the whole form is in the write buffer already."""

    def on_upstream_resume(self) -> None:
        """Do nothing: the transport sends the rest by itself."""

    def _end_with(self, error: SidecarError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def _single(self, name: bytes) -> str | None:
        values = [] if self._head is None else self._head.all(name)
        return values[0].decode("latin-1") if len(values) == 1 else None
