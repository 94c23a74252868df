"""The warm path of HTTP/2 in memory: as ``warm.py``, with 25 requests at a time on the peer's one connection.

The peer compresses heads as nghttp2 and gRPC do: with the Huffman code, a table, and a token that never enters it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any, Final

from hpack import Decoder, Encoder, HeaderTuple, NeverIndexedHeaderTuple

from sidecar.features import Features
from sidecar.observe.access_log import AccessLog, FileSink
from sidecar.observe.metrics import Metrics
from sidecar.proxy.journeys.forward import Forwarder
from sidecar.proxy.journeys.handles import Handles
from sidecar.proxy.journeys.headers import FROM_AGENT
from sidecar.proxy.journeys.inbound import Inbound
from sidecar.proxy.journeys.journey import Tasks
from sidecar.proxy.journeys.watch import Watch
from sidecar.wire.connections import Connections
from sidecar.wire.dialer import Origin
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.h2_client import H2ClientConnection
from sidecar.wire.h2_frames import END_HEADERS, END_STREAM, PREFACE, Kind
from sidecar.wire.h2_server import H2ServerConnection
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.pool import UpstreamPool
from sidecar.wire.upstream import Upstream
from tests.core.world import NOW
from tests.fuzz.inbound_world import InboundWorld, _Snapshots, token
from tests.proxy.warm import ANSWER
from tests.wire.bench import RecordingTransport

AT_ONCE: Final = 25
_OPEN: Final = 2**31 - 1 - 2**16
_NEVER_INDEXED: Final = frozenset({b"authorization", b":path"})


def frame(kind: int, flags: int, stream_id: int, content: bytes) -> bytes:
    return len(content).to_bytes(3) + bytes([kind, flags]) + stream_id.to_bytes(4) + content


def block(encoder: Encoder, fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Compress a head."""
    kinds = MappingProxyType({True: NeverIndexedHeaderTuple, False: HeaderTuple})
    return encoder.encode([kinds[name in _NEVER_INDEXED](name, value) for name, value in fields])


class Agents(UpstreamPool):
    """A pool of connections to an agent that speaks HTTP/1.1."""

    def __init__(self) -> None:
        super().__init__(ClientLimits())
        self.asked: list[ClientConnection] = []
        self._idle = [self._connection() for _ in range(AT_ONCE)]

    def _connection(self) -> ClientConnection:
        agent = ClientConnection(
            ClientLimits(), self.connections, on_idle=self._keep, on_closed=lambda _: None, max_age_s=3600
        )
        agent.connection_made(RecordingTransport())
        return agent

    def _keep(self, agent: ClientConnection) -> None:
        self._idle.append(agent)

    def take(self, _origin: Origin) -> ClientConnection:
        self.asked.append(self._idle.pop(0))
        return self.asked[-1]

    def answer(self) -> None:
        """Answer all requests."""
        asked, self.asked = self.asked, []
        for agent in asked:
            agent.data_received(ANSWER)


class GrpcAgents(UpstreamPool):
    """A pool with one connection to an agent that speaks gRPC: it answers with a head, a message and trailers."""

    def __init__(self) -> None:
        super().__init__(ClientLimits())
        self.transport = RecordingTransport()
        self.asked = 0
        self._idle: list[Upstream] = []
        self._answered = -1
        self._encoder = Encoder()
        self._blocks: tuple[bytes, bytes] | None = None
        self.agent = H2ClientConnection(
            ClientLimits(), self.connections, on_idle=self._idle.append, on_closed=lambda _: None, max_age_s=3600
        )
        self.agent.connection_made(self.transport)
        self._idle.append(self.agent.spare())
        self.agent.data_received(frame(Kind.SETTINGS, 0, 0, b"") + frame(Kind.WINDOW_UPDATE, 0, 0, _OPEN.to_bytes(4)))

    def _compressed(self) -> tuple[bytes, bytes]:
        head = [(b":status", b"200"), (b"content-type", b"application/grpc")]
        trailers = [(b"grpc-status", b"0"), (b"grpc-message", b"")]
        return block(self._encoder, head), block(self._encoder, trailers)

    def take(self, _origin: Origin) -> Upstream:
        self.asked += 1
        return self._idle.pop()

    def answer(self) -> None:
        """Answer all requests, in one read."""
        frames = []
        for _ in range(self.asked):
            self._answered += 2
            head, trailers = self._blocks = self._blocks or self._compressed()
            frames += [
                frame(Kind.HEADERS, END_HEADERS, self._answered, head),
                frame(Kind.DATA, 0, self._answered, bytes(32)),
                frame(Kind.HEADERS, END_HEADERS | END_STREAM, self._answered, trailers),
            ]
            if self._answered == 1:
                self._blocks = None  # the fields are in the table from now on
        self.asked = 0
        self.agent.data_received(b"".join(frames))


class WarmHttp2:
    """A peer's connection of HTTP/2 to an agent of HTTP/1.1."""

    def __init__(self, records: Path) -> None:
        self.pool = self._new_pool()
        self.log = AccessLog(FileSink(records), run="run", metrics=Metrics(), wall=lambda: float(NOW))
        snapshots: Any = _Snapshots()
        source: Any = None
        world = InboundWorld(Random(1))
        self.watch = Watch(snapshots, source, wall=lambda: float(NOW), monotonic=world.clock)
        inbound = Inbound(
            snapshots=snapshots,
            log=self.log,
            handles=Handles(clock=lambda: float(NOW), monotonic=world.clock),
            forwarder=Forwarder(self.pool, FROM_AGENT, self.watch, ServerLimits()),
            tasks=Tasks(),
            clock=lambda: float(NOW),
            features=Features(session_key=bytes(32)),
        )
        connections: Connections[Any] = Connections(interval_s=3600)
        self.turns = connections.turns
        self.transport = world.transport
        self.connection = H2ServerConnection(inbound, ServerLimits(), connections)
        self.connection.connection_made(self.transport)
        self._encoder = Encoder()
        self._number = 0
        opens = frame(Kind.WINDOW_UPDATE, 0, 0, _OPEN.to_bytes(4))
        self.connection.data_received(PREFACE + frame(Kind.SETTINGS, 0, 0, b"") + opens)

    def _new_pool(self) -> Any:
        return Agents()

    def fields(self, call: bytes) -> list[tuple[bytes, bytes]]:
        """Return the head of a request. Values that differ between requests in a mesh differ here."""
        return [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", b"writer:7443"),
            (b":path", b"/search?q=%b" % call),
            (b"user-agent", b"agent/1"),
            (b"accept", b"*/*"),
            (b"authorization", b"Bearer " + token()),
            (b"traceparent", b"00-%b-%b-01" % (call, call[16:])),
        ]

    def frames(self, stream_id: int, head: bytes) -> bytes:
        return frame(Kind.HEADERS, END_HEADERS | END_STREAM, stream_id, head)

    def requests(self, count: int = AT_ONCE) -> bytes:
        """Return the frames of requests that arrive together."""
        frames = []
        for _ in range(count):
            self._number += 1
            head = block(self._encoder, self.fields(b"%032x" % self._number))
            frames.append(self.frames(2 * self._number - 1, head))
        return b"".join(frames)

    @property
    def answered(self) -> int:
        """Count the answers with status 200 that have ended."""
        decoder, data, at, ended = Decoder(), self.transport.written, 0, 0
        status: dict[int, bytes] = {}
        while at < len(data):
            size, kind, flags = int.from_bytes(data[at : at + 3]), data[at + 3], data[at + 4]
            stream_id, content = int.from_bytes(data[at + 5 : at + 9]), data[at + 9 : at + 9 + size]
            at += 9 + size
            if kind == Kind.HEADERS:
                status.setdefault(stream_id, bytes(next(iter(decoder.decode(content, raw=True)))[1]))
            if kind in (Kind.HEADERS, Kind.DATA) and flags & END_STREAM:
                ended += status[stream_id] == b"200"
        return ended

    async def serve(self, requests: bytes) -> None:
        """Serve them all."""
        self.connection.data_received(requests)
        await self._settle()
        self.pool.answer()
        await self._settle()

    async def _settle(self) -> None:
        await asyncio.sleep(0)
        while len(self.turns):  # noqa: ASYNC110 - the loop itself is what goes on
            await asyncio.sleep(0)
        await asyncio.sleep(0)


class WarmGrpc(WarmHttp2):
    """A peer's unary calls of gRPC, each with a short message."""

    def _new_pool(self) -> Any:
        return GrpcAgents()

    def fields(self, call: bytes) -> list[tuple[bytes, bytes]]:
        return [*super().fields(call), (b"content-type", b"application/grpc"), (b"te", b"trailers")]

    def frames(self, stream_id: int, head: bytes) -> bytes:
        return frame(Kind.HEADERS, END_HEADERS, stream_id, head) + frame(Kind.DATA, END_STREAM, stream_id, bytes(5))


class WarmAgain(WarmHttp2):
    """A peer that sends the same request each time."""

    def fields(self, call: bytes) -> list[tuple[bytes, bytes]]:
        return super().fields(b"%032x" % 1)


class WarmGrpcAgain(WarmGrpc):
    """A peer that makes the same call each time."""

    def fields(self, call: bytes) -> list[tuple[bytes, bytes]]:
        return super().fields(b"%032x" % 1)
