"""An agent in memory: reads with its own parser, so that it cannot share the sidecar's misreadings; misbehaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

import h11

from delegation_core.errors import Reason, SidecarError, Unavailable
from sidecar.wire.dialer import Origin
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.limits import ClientLimits
from sidecar.wire.origin_pool import OnError, OnReady
from sidecar.wire.pool import Cancellable, UpstreamPool
from sidecar.wire.websocket import Handshake
from tests.wire.bench import Clock, RecordingTransport

# Possible answers to a request; after ``EOF`` the agent closes.
ANSWERS: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 20 + b"0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 20 + b"0\r\n\r\nEOF",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 20 + b"EOF",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\ncontent-length: 0\r\ndelegation-reason: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nokEOF",
    b"HTTP/1.0 200 OK\r\n\r\nuntil closeEOF",
    b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshortEOF",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhidden",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"no HTTP at all\r\n\r\n",
    b"EOF",
)


@dataclass
class Arrived:
    """One request as an agent's own parser reads it."""

    method: str
    target: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    complete: bool = False


class Agent(RecordingTransport):
    """The agent's end of one upstream connection: reads with h11, answers one of ``ANSWERS`` to each request."""

    def __init__(self, random: Random, arrived: list[Arrived]) -> None:
        super().__init__()
        self._random = random
        self._arrived = arrived
        self._parser = h11.Connection(h11.SERVER)
        self._request: Arrived | None = None
        self._to_say = b""
        self.switched = False
        self.connection: ClientConnection

    def write(self, data: bytes | bytearray | memoryview) -> None:
        super().write(data)
        if self.closed or self.aborted or self.switched:
            return
        self._parser.receive_data(bytes(data))
        while True:
            event = self._parser.next_event()  # invalid HTTP raises here: the sidecar must not have written it
            if isinstance(event, h11.Request):
                self._request = Arrived(event.method.decode(), event.target, list(event.headers))
                self._arrived.append(self._request)
                if self._random.random() < 0.1:  # an answer before the body
                    self._answer()
            elif isinstance(event, h11.Data):
                assert self._request is not None
                self._request.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert self._request is not None
                self._request.complete = True
                self._switch(self._request)
                self._answer()
                self._parser = h11.Connection(h11.SERVER)
                assert self._parser.trailing_data == (b"", False)
            else:
                return

    def _switch(self, request: Arrived) -> None:
        """Accept a WebSocket, most times; after that the bytes are raw."""
        fields = dict(request.fields)
        if b"upgrade" in fields and self._random.random() < 0.7:
            self.switched = self._random.random() < 0.9
            accept = Handshake(fields[b"sec-websocket-key"], frozenset()).accept if self.switched else b"wrong"
            granted = b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: " + accept
            self._to_say = b"HTTP/1.1 101 Switching Protocols\r\n" + granted + b"\r\n\r\n\x81\x02hi"
            if self._random.random() < 0.5:
                self._to_say += b"EOF"

    def _answer(self) -> None:
        if not self._to_say:
            self._to_say = self._random.choice(ANSWERS)

    def turn(self) -> bool:
        """Send something, if there is something to send and a reader. Returns True if it did."""
        if self.closed or self.aborted:
            return False
        random = self._random
        if self._to_say == b"EOF":
            self._to_say = b""
            self.connection.eof_received()
            if not self.is_closing():
                self.close()
            self.connection.connection_lost(None)
            return True
        if not self._to_say or not self.reading:
            return False
        cut = len(self._to_say) if random.random() < 0.6 else random.randint(1, len(self._to_say))
        if self._to_say.endswith(b"EOF") and cut > len(self._to_say) - 3:
            cut = len(self._to_say) - 3
        said, self._to_say = self._to_say[:cut], self._to_say[cut:]
        self.connection.data_received(said)
        return True


class _Attempt:
    """A connection that is being opened."""

    def __init__(self, on_ready: Callable[[ClientConnection], None], on_error: Callable[[SidecarError], None]) -> None:
        self.on_ready = on_ready
        self.on_error = on_error
        self.given_up = False

    def cancel(self) -> None:
        self.given_up = True


class Agents(UpstreamPool):
    """A pool whose connections lead to agents in memory. As in the real one, callbacks are never immediate."""

    def __init__(self, random: Random, arrived: list[Arrived], clock: Clock) -> None:
        super().__init__(ClientLimits(), clock=clock)
        self._random = random
        self._arrived = arrived
        self._free: list[ClientConnection] = []
        self._opening: list[_Attempt] = []
        self.all: list[Agent] = []

    def take(self, origin: Origin) -> ClientConnection | None:
        while self._free:
            connection = self._free.pop()
            if connection.usable:
                return connection
        return None

    def connect(self, origin: Origin, on_ready: OnReady, on_error: OnError, *, fresh: bool = False) -> Cancellable:
        self._opening.append(_Attempt(on_ready, on_error))
        return self._opening[-1]

    def turn(self) -> bool:
        """Let every agent take its next step. Returns True if any had one."""
        opening, self._opening = self._opening, []
        for attempt in opening:
            if not attempt.given_up:
                self._finish(attempt)
        return any(said for said in [agent.turn() for agent in self.all]) or bool(opening)

    def _finish(self, attempt: _Attempt) -> None:
        if self._random.random() < 0.05:
            attempt.on_error(Unavailable(Reason.UPSTREAM_UNREACHABLE, "refused"))
            return
        agent = Agent(self._random, self._arrived)
        agent.connection = ClientConnection(
            self._limits, self.connections, on_idle=self._free.append, on_closed=lambda _: None, max_age_s=3600
        )
        agent.connection.connection_made(agent)
        self.all.append(agent)
        attempt.on_ready(agent.connection)
