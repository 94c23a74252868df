"""The body side of an exchange: from the bytes of a connection to the sink that wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import Denied
from sidecar.wire.framing import Body

if TYPE_CHECKING:
    from sidecar.wire.exchange import ServerExchange
    from sidecar.wire.sinks import BodySink


class Intake:
    """What is still to come of one request's body, and the ``sink`` that takes it; without one nothing is taken.

    An exchange has one as long as its body is not whole. ``invited``: the peer was told to go on if it waited for that.
    """

    __slots__ = ("_body", "invited", "paused", "sink")

    def __init__(self, body: Body) -> None:
        self._body = body
        self.sink: BodySink | None = None
        self.paused = False
        self.invited = False

    @property
    def wanted(self) -> bool:
        """Whether somebody takes it now."""
        return self.sink is not None and not self.paused

    def take(self, exchange: ServerExchange, data: bytes) -> bytes | None:
        """Feed received bytes to the sink and return what was not used; None while all of it must wait.

        That follows the body, or is more of it than is read at a time.
        """
        body, sink = self._body, self.sink
        if sink is None or self.paused:
            return None
        try:
            content, rest = body.feed(data)
        except Denied as error:
            exchange.fail_body(error)
            return b""
        exchange.bytes_in += len(data) - len(rest)
        if content:
            sink.on_body(content)
        if body.complete:
            exchange.intake = None
            if self.sink is sink:  # else it has had enough
                self.sink = None
                sink.on_body_end()
                sink.on_body_flush()
        return rest

    def discard(self, exchange: ServerExchange, data: bytes) -> bytes | None:
        """Nobody wants it: what follows the body if ``data`` holds all of it, else None."""
        body = self._body
        try:
            _, rest = body.feed(data)
        except Denied:
            return None
        exchange.bytes_in += len(data) - len(rest)
        if not body.complete:  # or more than is read at a time, which nobody waits for
            return None
        exchange.intake = None
        return rest
