"""The inbound side of a sidecar in memory: the real connection, journey, pump and upstream connections, no sockets.

A peer's bytes go in at ``server``; behind it are agents that read with their own parser (h11) and answer by their
script. Policy, token and keys are those of ``tests/core/world.py``: ``$TOKEN`` in a stream stands for a token
that is valid for ``POST /search``, and for reading below ``/docs``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import lru_cache
from random import Random
from typing import Any, Final

from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.inbound_routes import InboundRoutes
from delegation_core.keyset import VerificationKey
from delegation_core.records.record import Record
from sidecar.exchange.exchanges import Exchanges
from sidecar.features import Features
from sidecar.identity.handshake import VerifyingSSLObject
from sidecar.identity.svid import VerifiedPeer
from sidecar.observe.entry import Entry, request_record
from sidecar.observe.metrics import Metrics
from sidecar.observe.tracing import new_id
from sidecar.proxy.journeys.forward import Forwarder
from sidecar.proxy.journeys.handles import Handles
from sidecar.proxy.journeys.headers import FROM_AGENT
from sidecar.proxy.journeys.inbound import Inbound
from sidecar.proxy.journeys.journey import Tasks
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.proxy.journeys.watch import Watch
from sidecar.wire.connections import Connections
from sidecar.wire.dialer import Origin
from sidecar.wire.h1_server import ServerConnection
from sidecar.wire.limits import ServerLimits
from sidecar.wire.stream import Stream
from tests.core import world
from tests.core.world import INBOUND_CLAIMS, NOW, PLANNER, SEARCH, signed, verification_key
from tests.fuzz.agent import Agents, Arrived
from tests.wire.bench import Clock, RecordingTransport

LIMITS: Final = ServerLimits(max_head_bytes=2400, max_fields=16, max_target_bytes=136, max_body_bytes=600)
AGENT: Final = Origin("127.0.0.1", 8080, "agent")
DOCS: Final = replace(SEARCH, name="docs", path="/docs", prefix=True, methods=frozenset({"GET", "HEAD", "PUT"}))
POLICY: Final = replace(world.POLICY, inbound=InboundRoutes([SEARCH, DOCS]))


@lru_cache(maxsize=1)
def token() -> bytes:
    return signed(INBOUND_CLAIMS).raw.encode()


class InlineLoop:
    """The part of an event loop that is used here: timers fire on demand, a task runs to its end at once."""

    def __init__(self) -> None:
        self._soon: list[Callable[[], None]] = []
        self.timers: list[tuple[asyncio.TimerHandle, Callable[[], None]]] = []

    def call_soon(self, callback: Callable[[], None]) -> Any:
        self._soon.append(callback)
        return asyncio.Handle(callback, (), self)  # type: ignore[arg-type]

    def go_on(self) -> bool:
        """Run the callbacks that are due. Returns False if there were none."""
        soon, self._soon = self._soon, []
        for callback in soon:
            callback()
        return bool(soon)

    def call_later(self, _delay: float, callback: Callable[[], None]) -> Any:
        handle = asyncio.TimerHandle(0, callback, (), self)  # type: ignore[arg-type]
        self.timers.append((handle, callback))
        return handle

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, _handle: object) -> None:
        pass

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> Any:
        try:
            coroutine.send(None)
        except StopIteration:
            return _Done()
        raise AssertionError("a wait that never ends")


class _Done:
    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        callback(self)

    def cancel(self) -> None:
        pass


class Records:
    """An access log that keeps its records, by request id and in order of arrival.

    They close in another order: the end of an answer admits the next request before its own journey continues.
    """

    def __init__(self) -> None:
        self.metrics = _metrics()
        self.made: list[Entry] = []
        self.closed: dict[str, dict[str, Any]] = {}

    def monotonic(self) -> float:
        return 0.0

    def reserve(self, direction: Any = "inbound", _unproven: None = None) -> Entry:
        record = request_record(direction, "run")
        record["request_id"] = new_id()
        self.made.append(Entry(self, record, 0.0))
        return self.made[-1]

    def finish(self, entry: Entry, record: Record) -> None:
        self.closed.setdefault(entry.request_id, dict(record))

    def leave_out(self, entry: Entry, record: Record) -> None:
        raise AssertionError("every caller here is proven")

    def opened(self, entry: Entry, _record: Record) -> None:
        assert entry.request_id not in self.closed

    def open_first(self, entry: Entry, record: Record, told: Any) -> None:
        raise AssertionError("no route here asks for it")


@lru_cache(maxsize=1)
def _metrics() -> Metrics:
    return Metrics()


class _Keys:
    generation = 1

    @property
    def by_issuer(self) -> list[_Keys]:
        return [self]

    def find(self, _issuer: str, kid: str | None) -> VerificationKey | None:
        return verification_key() if kid == "k1" else None

    async def wait_for_key(self, _issuer: str, _kid: str | None) -> VerificationKey:
        raise Denied(Reason.UNKNOWN_KEY)


class _Snapshots:
    def __init__(self) -> None:
        keys: Any = _Keys()
        self.current = Snapshot(policy=POLICY, keys=keys, exchanges=Exchanges(), agent=AGENT)

    def now(self) -> Snapshot:
        return self.current


class _Guard:
    peer = VerifiedPeer(PLANNER, NOW + 3600, "0" * 64)
    until = NOW + 3600
    chain = ()

    def check(self, _now: int) -> VerifiedPeer:
        return self.peer


@dataclass
class InboundWorld:
    """One peer's connection and everything behind it. ``served`` and ``refused``: the handler's requests."""

    random: Random
    arrived: list[Arrived] = field(default_factory=list)
    served: list[Stream] = field(default_factory=list)
    refused: list[tuple[Stream, SidecarError]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.records = Records()
        self.handles = Handles(clock=lambda: float(NOW), monotonic=self.clock)
        self.agents = Agents(self.random, self.arrived, self.clock)
        log: Any = self.records
        snapshots: Any = _Snapshots()
        source: Any = None
        self.watch = Watch(snapshots, source, wall=lambda: float(NOW), monotonic=self.clock)
        self._inbound = Inbound(
            snapshots=snapshots,
            log=log,
            handles=self.handles,
            forwarder=Forwarder(self.agents, FROM_AGENT, self.watch, LIMITS),
            tasks=Tasks(),
            clock=lambda: float(NOW),
            features=Features(session_key=bytes(32)),
        )
        self.connections: Connections[ServerConnection] = Connections(interval_s=3600, clock=self.clock)
        self.server = ServerConnection(self, LIMITS, self.connections)
        ssl_object = VerifyingSSLObject.__new__(VerifyingSSLObject)
        guard: Any = _Guard()
        ssl_object.guard = guard
        self.transport = RecordingTransport(ssl_object=ssl_object)
        self.transport.settle = self.connections.writes.write_all
        self.server.connection_made(self.transport)

    # --- the handler of the connection

    def on_request(self, exchange: Stream) -> None:
        self.served.append(exchange)
        self._inbound.on_request(exchange)

    def on_refused(self, exchange: Stream, error: SidecarError) -> None:
        self.refused.append((exchange, error))
        self._inbound.on_refused(exchange, error)

    # --- events

    def turn(self) -> bool:
        """Let every agent take its next step, and run the loop. Returns True if there was something to do."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, InlineLoop)
        went_on = loop.go_on()
        return self.agents.turn() or went_on

    def settle(self) -> None:
        """Run until there is nothing left to do."""
        while self.turn():
            pass

    def receive(self, data: bytes) -> bool:
        """Receive bytes of the peer.

        Returns False if they are not accepted: the connection closes, or waits for ever.
        """
        while not self.transport.reading and not self.transport.is_closing() and self.turn():
            pass
        taken = self.transport.reading and not self.transport.is_closing()
        if taken:
            self.server.data_received(data)
        if self.random.random() < 0.7:
            self.settle()
        return taken
