"""Support for tests of HTTP/2: a server connection on a recording transport, and a client of the library."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from delegation_core.errors import SidecarError
from sidecar.wire.connections import Connections
from sidecar.wire.h2_frames import FrameReader, Kind
from sidecar.wire.h2_server import H2ServerConnection
from sidecar.wire.h2_session import Session
from sidecar.wire.limits import ServerLimits
from sidecar.wire.stream import Stream
from tests.wire.bench import Clock, Handler, RecordingTransport

Fields = list[tuple[bytes, bytes]]
ASKS: Fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/a"), (b":authority", b"agent")]
POSTS: Fields = [(b":method", b"POST"), *ASKS[1:]]


def frame(kind: int, flags: int, stream_id: int, content: bytes) -> bytes:
    """Return a frame, whatever it means."""
    return len(content).to_bytes(3) + bytes([kind, flags]) + stream_id.to_bytes(4) + content


def looks_at_windows(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the stream of each window that a connection looks at from now on."""
    looked_at: list[int] = []
    look = session.window_of

    def noted(stream_id: int) -> int:
        looked_at.append(stream_id)
        return look(stream_id)

    monkeypatch.setattr(session, "window_of", noted)
    return looked_at


class Answer:
    """One answer, as far as it has come."""

    def __init__(self) -> None:
        self.fields: dict[bytes, bytes] = {}
        self.interim: list[bytes] = []
        self.content = b""
        self.trailers: dict[bytes, bytes] = {}
        self.ended = False
        self.reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.fields.get(b":status", b"0"))


class Goaway(NamedTuple):
    """The end of a connection, as its other end told it."""

    last_stream_id: int
    error_code: int
    additional_data: bytes


class Peer:
    """A client of the library, without its checks of what it sends. ``opens``: windows open as content comes."""

    def __init__(self, *, opens: bool = True) -> None:
        config = H2Configuration(
            client_side=True, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = H2Connection(config)
        self.h2.initiate_connection()
        self.opens = opens
        self.answers: dict[int, Answer] = {}
        self.goaways: list[Goaway] = []
        self._reader = FrameReader(preface=b"", max_block=2**20)
        self._times = itertools.count(0.0, 100.0)  # nothing is too much for it

    def answer(self, stream_id: int) -> Answer:
        return self.answers.setdefault(stream_id, Answer())

    def take(self, data: bytes) -> None:
        """Read frames. A GOAWAY is kept from the library, which would end every stream by it."""
        self._reader.feed(data)
        while (one := self._reader.next(next(self._times))) is not None:
            if one.kind == Kind.GOAWAY:
                last, code, more = one.content[:4], one.content[4:8], one.content[8:]
                self.goaways.append(Goaway(int.from_bytes(last), int.from_bytes(code), more))
                continue
            for event in self.h2.receive_data(one.data):
                self._on(event)

    def _on(self, event: Event) -> None:
        if isinstance(event, InformationalResponseReceived):
            self.answer(event.stream_id).interim.append(dict(event.headers)[b":status"])
        elif isinstance(event, ResponseReceived):
            self.answer(event.stream_id).fields = dict(event.headers)
        elif isinstance(event, TrailersReceived):
            self.answer(event.stream_id).trailers = dict(event.headers)
        elif isinstance(event, DataReceived):
            self.answer(event.stream_id).content += event.data
            if self.opens:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self.answer(event.stream_id).ended = True
        elif isinstance(event, StreamReset):
            self.answer(event.stream_id).reset = int(event.error_code)


class H2Served:
    """One server connection of HTTP/2 on a recording transport, and the client at its other end."""

    def __init__(
        self,
        act: Callable[[Stream], None] | None = None,
        *,
        opens: bool = True,
        extra: dict[str, Any] | None = None,
        connections: Connections[Any] | None = None,
        **limits: Any,
    ) -> None:
        self.clock = Clock()
        self.connections = Connections(interval_s=3600, clock=self.clock) if connections is None else connections
        self.handler = Handler(act)
        self.transport = RecordingTransport(**(extra or {}))
        self.connection = H2ServerConnection(self.handler, ServerLimits(**limits), self.connections)
        self.connection.connection_made(self.transport)
        self.peer = Peer(opens=opens)
        self._taken = 0
        self.goaway_bytes = b""

    async def exchange(self) -> None:
        """Let both ends read what the other has written, until both are silent."""
        for _ in range(1000):
            sent = self.peer.h2.data_to_send()
            if sent:
                self.connection.data_received(sent)
            await self.settle()
            written = self.transport.written[self._taken :]
            self._taken += len(written)
            if written:
                self.peer.take(written)
            if not (sent or written):
                return
        raise AssertionError("they never stop")

    async def settle(self) -> None:
        """Let the loop go on until nobody waits for a turn, and all is written."""
        for _ in range(3):
            await asyncio.sleep(0)
        while len(self.connections.turns):  # noqa: ASYNC110 - the loop itself is what goes on
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def ask(self, fields: Iterable[tuple[bytes, bytes]] = ASKS, body: bytes | None = None) -> Answer:
        """Send a request, and return what came of it by the time at which both ends are silent."""
        stream_id = self.begin(fields, ends=body is None)
        if body is not None:
            self.peer.h2.send_data(stream_id, body, end_stream=True)
        await self.exchange()
        return self.peer.answer(stream_id)

    def begin(self, fields: Iterable[tuple[bytes, bytes]] = POSTS, *, ends: bool = False) -> int:
        """Send the head of a request."""
        stream_id = self.peer.h2.get_next_available_stream_id()
        self.peer.h2.send_headers(stream_id, list(fields), end_stream=ends)
        return stream_id

    async def raw(self, data: bytes) -> None:
        """Send bytes that the library would not."""
        await self.exchange()
        self.connection.data_received(data)
        await self.exchange()

    def after(self, seconds: float) -> None:
        self.clock.now += seconds
        self.connections.sweep()

    @property
    def refusals(self) -> list[SidecarError]:
        return [error for _, error in self.handler.refused]
