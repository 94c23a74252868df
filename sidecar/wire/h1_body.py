"""Body of an HTTP/1.1 request: from the bytes of its connection to its sink."""

from __future__ import annotations

from typing import Protocol

from delegation_core.errors import Denied
from sidecar.wire.framing import Body, ChunkedBody
from sidecar.wire.stream import BodySink


class Receiver(Protocol):
    """The part of a stream that ``Intake`` needs."""

    bytes_in: int
    intake: Intake | None

    def fail_body(self, error: Denied) -> None:
        """End the stream: its body is malformed or too large."""


class Intake:
    """The unread rest of a request's body, and its ``sink``; without a sink nothing is consumed.

    A stream has an intake until its body is complete. ``invited``: the peer was sent 100 Continue.
    """

    __slots__ = ("_body", "invited", "paused", "sink")

    def __init__(self, body: Body) -> None:
        self._body = body
        self.sink: BodySink | None = None
        self.paused = False
        self.invited = False

    @property
    def wanted(self) -> bool:
        """True if a sink consumes the body now."""
        return self.sink is not None and not self.paused

    def unbind(self) -> None:
        """Lift the size limit of a body without a stated length."""
        if isinstance(self._body, ChunkedBody):
            self._body.max_bytes = None

    def take(self, stream: Receiver, data: bytes) -> bytes | None:
        """Feed received bytes to the sink and return the rest; None if all of them must wait.

        The rest follows the body, or is body beyond one iteration's share.
        """
        body, sink = self._body, self.sink
        if sink is None or self.paused:
            return None
        try:
            content, rest = body.feed(data)
        except Denied as error:
            stream.fail_body(error)
            return b""
        stream.bytes_in += len(data) - len(rest)
        if content:
            sink.on_body(content)
        if body.complete:
            stream.intake = None
            if self.sink is sink:  # else the sink was detached meanwhile
                self.sink = None
                sink.on_body_end()
                sink.on_body_flush()
        return rest

    def discard(self, stream: Receiver, data: bytes) -> bytes | None:
        """Discard the body: return what follows it if ``data`` holds all of it, else None."""
        body = self._body
        try:
            _, rest = body.feed(data)
        except Denied:
            return None
        stream.bytes_in += len(data) - len(rest)
        if not body.complete:
            return None
        stream.intake = None
        return rest
