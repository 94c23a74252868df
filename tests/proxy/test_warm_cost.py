"""What a warm inbound request costs in interpreted code: bytecodes and calls, by room. The same on every machine.

``pytest -s tests/proxy/test_warm_cost.py`` prints the table. The limit is that of the version counted last, and a
little: who makes the warm path dearer has to say so here.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any, Final

import pytest

import sidecar
from sidecar.observe.access_log import AccessLog, FileSink
from sidecar.observe.metrics import Metrics
from sidecar.proxy.forward import Forwarder
from sidecar.proxy.handles import Handles
from sidecar.proxy.headers import from_agent
from sidecar.proxy.inbound import Inbound
from sidecar.proxy.journey import Tasks
from sidecar.proxy.streams import Streams
from sidecar.wire.connections import Connections
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.h1_server import ServerConnection
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.pool import Origin, UpstreamPool
from tests.delegation.world import NOW
from tests.fuzz.inbound_world import InboundWorld, _Snapshots, token
from tests.wire.bench import RecordingTransport

TIMES: Final = 50
MOST_BYTECODES: Final = 5_300
ROOT: Final = Path(sidecar.__file__).parent
ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nServer: agent\r\nDate: Thu, 26 Nov 2026 06:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1024\r\nConnection: keep-alive\r\n\r\n" + b"x" * 1024
)


class OneConnection(UpstreamPool):
    """A pool whose one connection to the agent is always free."""

    def __init__(self) -> None:
        super().__init__(ClientLimits())
        self.transport = RecordingTransport()
        self.agent = ClientConnection(
            ClientLimits(), self.connections, on_idle=lambda _: None, on_closed=lambda _: None, max_age_s=3600
        )
        self.agent.connection_made(self.transport)

    def take(self, _origin: Origin) -> ClientConnection:
        return self.agent


class Warm:
    """One peer's kept connection: the real connection, journey, pump and record; no sockets."""

    def __init__(self, records: Path) -> None:
        self.now = float(NOW)
        self.snapshots: Any = _Snapshots()
        snapshots: Any = self.snapshots
        world = InboundWorld(Random(1))
        self.pool = OneConnection()
        self.log = AccessLog(FileSink(records), run="run", metrics=Metrics(), wall=lambda: float(NOW))
        inbound = Inbound(
            snapshots=snapshots,
            log=self.log,
            handles=Handles(clock=lambda: float(NOW), monotonic=world.clock),
            forwarder=Forwarder(
                self.pool,
                from_agent,
                Streams(snapshots, wall=lambda: float(NOW), monotonic=world.clock),
                max_stream_s=900,
            ),
            tasks=Tasks(),
            clock=lambda: self.now,
        )
        connections: Connections[ServerConnection] = Connections(interval_s=3600)
        self.transport = world.transport
        self.connection = ServerConnection(inbound, ServerLimits(), connections)
        self.connection.connection_made(self.transport)
        self._number = 0

    def request(self) -> None:
        """One request and its answer."""
        self.send()
        self.pool.agent.data_received(ANSWER)

    def send(self) -> None:
        """One request. What differs from request to request in a mesh differs here."""
        self._number += 1
        call = b"%032x" % self._number
        self.connection.data_received(
            b"POST /search HTTP/1.1\r\nHost: writer:7443\r\nUser-Agent: agent/1\r\nAccept: */*\r\n"
            b"Authorization: Bearer %b\r\nDelegation-Call: %b\r\ntraceparent: 00-%b-%b-01\r\n\r\n"
            % (token(), call, call, call[16:])
        )


class Cost:
    """Counts what runs while it is in force."""

    def __init__(self) -> None:
        self.bytecodes: Counter[CodeType] = Counter()
        self.calls: Counter[CodeType] = Counter()

    def __call__(self, frame: FrameType, event: str, _argument: object) -> Cost:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self.bytecodes[frame.f_code] += 1
        elif event == "call":
            self.calls[frame.f_code] += 1
        return self

    def by_room(self) -> dict[str, tuple[float, float]]:
        """Room → (bytecodes, calls), per request. ``made`` is code that ``dataclass`` makes."""
        rooms: dict[str, tuple[float, float]] = {}
        for code, count in self.bytecodes.items():
            path = Path(code.co_filename)
            if path.is_relative_to(ROOT):
                room = path.relative_to(ROOT).parts[0]
            else:
                room = "made" if code.co_filename.startswith("<") else "elsewhere"
            bytecodes, calls = rooms.get(room, (0.0, 0.0))
            rooms[room] = bytecodes + count / TIMES, calls + self.calls[code] / TIMES
        return rooms


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="another Python has other bytecodes")
async def test_a_warm_request_runs_no_more_bytecodes_than_it_did(tmp_path: Path) -> None:
    warm = Warm(tmp_path / "records")
    for _ in range(TIMES):
        warm.request()
    assert len(warm.transport.writes) == len(warm.pool.transport.writes) == TIMES
    cost = Cost()
    sys.settrace(cost)
    try:
        for _ in range(TIMES):
            warm.request()
    finally:
        sys.settrace(None)
    rooms = cost.by_room()
    for room, (bytecodes, calls) in sorted(rooms.items(), key=lambda item: -item[1][0]):
        print(f"{room:12} {bytecodes:8.0f} bytecodes {calls:6.1f} calls")  # noqa: T201 - the table, with -s
    await warm.log.close()
    assert warm.transport.written.count(b"HTTP/1.1 200 OK") == 2 * TIMES
    own = sum(bytecodes for room, (bytecodes, _) in rooms.items() if room != "elsewhere")
    assert 1_000 < own <= MOST_BYTECODES
