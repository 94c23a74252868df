"""Waits for whole bodies: only journeys that judge a message load this module."""

from __future__ import annotations

from delegation_core.errors import Denied, Reason, SidecarError
from sidecar.proxy.journeys.journey import Waiter
from sidecar.wire.stream import Stream


class BodyUpTo:
    """Wait for the whole body of a request; its result is the body, at most ``limit`` bytes.

    The stream keeps the same bytes for the next reader: the body that was judged is the body that is forwarded. Of a
    longer body, ``beginning`` has the first ``look_at`` bytes, for the answer.

    The wait raises:
        Denied: TOO_LARGE past the limit; TIMEOUT or BAD_REQUEST, the body is late or malformed.
    """

    __slots__ = ("_body", "_look_at", "_looks", "_stream", "_waiter", "limit")

    def __init__(self, stream: Stream, limit: int, *, look_at: int = 0) -> None:
        self._stream = stream
        self.limit = limit
        self._look_at = look_at
        self._looks = False
        self._body = bytearray()
        self._waiter: Waiter | None = None

    def begin(self, waiter: Waiter) -> None:
        """Take the content that has arrived, and wait for the rest.

        Raises:
            Denied: TOO_LARGE, by the request's Content-Length.
        """
        stream = self._stream
        if stream.head is not None and (stream.head.content_length or 0) > self.limit:
            if not self._look_at or stream.head.expect is not None:
                raise self._too_large()
            self._looks = True  # keep the first content that arrives
        self._waiter = waiter
        body = stream.take_whole_body()
        if body is None and not stream.body_complete:
            waiter.waited = True
            stream.read_body(self)
        elif self._looks:
            self.on_body(body or b"")
        else:
            self._body += body or b""
            self.on_body_end()

    def cancel(self) -> None:
        """Ignore further content. The journey's answer ends the body."""
        self._waiter = None

    def on_body(self, data: bytes) -> None:
        """Collect content, up to the limit."""
        if self._waiter is not None:
            self._body += data
            if self._looks or len(self._body) > self.limit:
                self._fail(self._too_large())

    @property
    def beginning(self) -> bytes:
        """The first ``look_at`` bytes of a body that is too long."""
        return bytes(self._body[: self._look_at])

    def on_body_end(self) -> None:
        """Resume the journey with the whole body."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            body = bytes(self._body)
            self._stream.hold_body(body)
            waiter.resume(body)

    def on_body_error(self, error: SidecarError) -> None:
        """Fail the wait: the body is malformed, too long or late."""
        self._fail(error)

    def on_body_flush(self) -> None:
        """Do nothing: the journey gets the body as a whole."""

    def _fail(self, error: SidecarError) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.fail(error)

    def _too_large(self) -> Denied:
        return Denied(Reason.TOO_LARGE, f"the body is longer than the {self.limit} bytes that can be judged")
