"""Support for tests of connections: a recording transport, a clock set by hand, a handler."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Any

from delegation_core.errors import Reason, SidecarError
from sidecar.wire.connections import Connections
from sidecar.wire.h1_server import ServerConnection
from sidecar.wire.limits import ServerLimits
from sidecar.wire.stream import Stream


class Clock:
    """Monotonic seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class RecordingTransport(asyncio.Transport):
    """Keeps what is written, one entry per write; ``unsent`` stands for what the peer has not taken yet.

    ``settle`` is called before each check, like the end of an event-loop iteration: it runs deferred writes.
    """

    def __init__(self, **extra: Any) -> None:
        super().__init__(extra)
        self.settle: Callable[[], None] = lambda: None
        self._writes: list[bytes] = []
        self.unsent = 0
        self.told_limits: list[int | None] = []
        self.reading = True
        self.ended = False
        self.closed = False
        self.aborted = False
        self.reset_unseen = False  # by the peer, while nobody reads

    @property
    def writes(self) -> list[bytes]:
        self.settle()
        return self._writes

    @property
    def written(self) -> bytes:
        return b"".join(self.writes)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.ended:
            raise RuntimeError("Cannot call write() after write_eof()")  # as both event loops do
        if not (self.closed or self.aborted):
            self._writes.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert low is None
        self.told_limits.append(high)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self.reset_unseen:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")  # as asyncio does
        self.ended = True

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def close(self) -> None:
        assert not self.closed  # asyncio's TLS transport, closed twice, can no longer be aborted
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Body:
    """A body sink that keeps what it is given."""

    def __init__(self) -> None:
        self.data = b""
        self.events: list[str] = []
        self.reasons: list[Reason] = []

    def on_body(self, data: bytes) -> None:
        assert data
        self.data += data
        self.events.append("data")

    def on_body_end(self) -> None:
        self.events.append("end")

    def on_body_error(self, error: SidecarError) -> None:
        self.reasons.append(error.reason)
        self.events.append("error")

    def on_body_flush(self) -> None:
        self.events.append("flush")


class Handler:
    """Keeps every request; ``act`` says what to do with each, by default nothing yet. Refusals are answered."""

    def __init__(self, act: Callable[[Stream], None] | None = None) -> None:
        self.act = act
        self.requests: list[Stream] = []
        self.refused: list[tuple[Stream, SidecarError]] = []

    def on_request(self, exchange: Stream) -> None:
        self.requests.append(exchange)
        if self.act is not None:
            self.act(exchange)

    def on_refused(self, exchange: Stream, error: SidecarError) -> None:
        self.refused.append((exchange, error))
        exchange.answer(error.answer.status or 400, [], str(error.reason).encode())


def answer_ok(exchange: Stream) -> None:
    """The shortest whole answer."""
    exchange.answer(200, [], b"ok")


class Served:
    """One server connection on a recording transport."""

    def __init__(
        self,
        act: Callable[[Stream], None] | None = None,
        *,
        proxy_form: bool = False,
        extra: dict[str, Any] | None = None,
        **limits: Any,
    ) -> None:
        self.clock = Clock()
        self.connections: Connections[ServerConnection] = Connections(interval_s=3600, clock=self.clock)
        self.handler = Handler(act)
        self.transport = RecordingTransport(**(extra or {}))
        self.transport.settle = self.connections.writes.write_all
        self.connection = ServerConnection(
            self.handler, ServerLimits(**limits), self.connections, proxy_form=proxy_form
        )
        self.connection.connection_made(self.transport)

    def receive(self, data: bytes) -> None:
        self.connection.data_received(data)

    async def turns(self) -> None:
        """Let the loop go on until nobody waits behind another request."""
        while len(self.connections.turns):  # noqa: ASYNC110 - the loop itself is what goes on
            await asyncio.sleep(0)

    def after(self, seconds: float) -> None:
        self.clock.now += seconds
        self.connections.sweep()

    def lose(self) -> None:
        self.connection.connection_lost(None)
        assert len(self.connections) == 0

    @property
    def only(self) -> Stream:
        (exchange,) = self.handler.requests
        return exchange

    @property
    def refusal(self) -> SidecarError:
        ((_, error),) = self.handler.refused
        return error
