"""The warm path in memory: the real connections, journeys and records of one sidecar, and no sockets."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, Final

from delegation_core.decide import accept_issued
from delegation_core.permit import IssuedPermit
from sidecar.exchange.cache import Issued
from sidecar.exchange.client import TokenExchange, key_of
from sidecar.exchange.exchanges import Exchanges
from sidecar.exchange.federation.tokens import FederatedTokens
from sidecar.exchange.sts import ExchangeSettings
from sidecar.features import Features
from sidecar.observe.access_log import AccessLog, FileSink
from sidecar.observe.metrics import Metrics
from sidecar.proxy.journeys.forward import Forwarder
from sidecar.proxy.journeys.handles import Handles, ServedRequest
from sidecar.proxy.journeys.headers import FROM_AGENT, FROM_NEXT_HOP
from sidecar.proxy.journeys.inbound import Inbound
from sidecar.proxy.journeys.journey import Tasks
from sidecar.proxy.journeys.outbound import Outbound
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.proxy.journeys.watch import Watch
from sidecar.wire.connections import Connections
from sidecar.wire.dialer import Origin
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.h1_server import ServerConnection
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.pool import UpstreamPool
from tests.core.world import ISSUED_CLAIMS, NOW, POLICY, STS, WRITER, delegation, plan, signed, verification_key
from tests.fuzz.inbound_world import InboundWorld, _Snapshots, token
from tests.wire.bench import RecordingTransport

ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nServer: agent\r\nDate: Thu, 26 Nov 2026 06:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1024\r\nConnection: keep-alive\r\n\r\n" + b"x" * 1024
)


class OneConnection(UpstreamPool):
    """A pool whose one connection to the agent is always free."""

    def __init__(self) -> None:
        super().__init__(ClientLimits())
        self.open_again()

    def open_again(self) -> None:
        """Open a connection, in place of an earlier one."""
        self.transport = RecordingTransport()
        self.agent = ClientConnection(
            ClientLimits(), self.connections, on_idle=lambda _: None, on_closed=lambda _: None, max_age_s=3600
        )
        self.agent.connection_made(self.transport)

    def take(self, _origin: Origin) -> ClientConnection:
        return self.agent


class Warm:
    """A peer's connection: the real connection, journey, pump and record; no sockets."""

    def __init__(self, records: Path, **options: Any) -> None:
        self.now = float(NOW)
        self.snapshots: Any = _Snapshots()
        snapshots: Any = self.snapshots
        source: Any = None
        world = InboundWorld(Random(1))
        self.pool = OneConnection()
        self.log = AccessLog(FileSink(records), run="run", metrics=Metrics(), wall=lambda: float(NOW))
        self.watch = Watch(snapshots, source, wall=lambda: float(NOW), monotonic=world.clock)
        self.handles = Handles(clock=lambda: float(NOW), monotonic=world.clock)
        inbound = Inbound(
            snapshots=snapshots,
            log=self.log,
            handles=self.handles,
            forwarder=Forwarder(self.pool, FROM_AGENT, self.watch, ServerLimits()),
            tasks=Tasks(),
            clock=lambda: self.now,
            features=Features(session_key=bytes(32)),
            **options,
        )
        connections: Connections[ServerConnection] = Connections(interval_s=3600)
        self.transport = world.transport
        self.connection = ServerConnection(inbound, ServerLimits(), connections)
        self.connection.connection_made(self.transport)
        self.writes = connections.writes
        self.transport.settle = self.writes.write_all
        self._number = 0

    def request(self) -> None:
        """Send one request and read its answer, each in its own event-loop iteration."""
        self.send()
        self.pool.connections.writes.write_all()
        self.pool.agent.data_received(ANSWER)
        self.writes.write_all()

    def send(self) -> None:
        """Send one request. Values that differ between requests in a mesh differ here."""
        self._number += 1
        call = b"%032x" % self._number
        self.connection.data_received(
            b"POST /search HTTP/1.1\r\nHost: writer:7443\r\nUser-Agent: agent/1\r\nAccept: */*\r\n"
            b"Authorization: Bearer %b\r\nDelegation-Call: %b\r\ntraceparent: 00-%b-%b-01\r\n\r\n"
            % (token(), call, call, call[16:])
        )


class WarmOutbound:
    """An agent's connection, with a cached token for the call that it repeats."""

    def __init__(self, records: Path) -> None:
        self.pool = OneConnection()
        self.log = AccessLog(FileSink(records), run="run", metrics=Metrics(), wall=lambda: float(NOW))
        keys: Any = SimpleNamespace(generation_of=lambda _issuer: 1, generation=1)
        source: Any = SimpleNamespace(current=_Own(), subscribe=lambda _: None)
        settings = ExchangeSettings(issuer=STS, token_endpoint="https://sts.example/token", ca_file="ca.pem")
        tokens = TokenExchange(settings, source, keys, self.log, self.log.metrics, lambda: float(NOW), caller=_Nobody())
        handles = Handles(clock=lambda: float(NOW), monotonic=lambda: 0.0)
        served = ServedRequest(delegation(), max_calls=None, linger_s=0.0, call_in=None)
        self.handle = handles.open(served)
        epoch = tokens._epoch(POLICY)
        assert epoch is not None
        issued = Issued(_issued(served), usable_until=NOW + 200, refresh_at=NOW + 100)
        assert tokens.tokens.keep(key_of(plan(served.delegation)), issued, epoch=epoch)
        exchanges = Exchanges({STS: tokens})
        snapshot = Snapshot(policy=POLICY, keys=keys, exchanges=exchanges, agent=None)
        snapshots: Any = SimpleNamespace(now=lambda: snapshot)
        watch = Watch(snapshots, source, wall=lambda: float(NOW), monotonic=lambda: 0.0)
        origin = Origin("crm.internal", 7443, "crm")
        origins: Any = SimpleNamespace(of=lambda _route, _workload, _bound_to, _call: origin)
        outbound = Outbound(
            snapshots=snapshots,
            log=self.log,
            handles=handles,
            forwarder=Forwarder(self.pool, FROM_NEXT_HOP, watch, ServerLimits()),
            tasks=Tasks(),
            origins=origins,
            federated=lambda: FederatedTokens(source),
            features=Features(session_key=bytes(32)),
            own_authorities=frozenset({"127.0.0.1:7080"}),
            clock=lambda: float(NOW),
        )
        connections: Connections[ServerConnection] = Connections(interval_s=3600)
        self.transport = RecordingTransport()
        self.connection = ServerConnection(outbound, ServerLimits(), connections, proxy_form=True)
        self.connection.connection_made(self.transport)
        self.writes = connections.writes
        self.transport.settle = self.writes.write_all
        self._number = 0

    def request(self) -> None:
        """Make one call and read its answer, each in its own event-loop iteration."""
        self._number += 1
        trace = b"%032x" % self._number
        self.connection.data_received(
            b"POST http://crm.mesh/tool HTTP/1.1\r\nHost: crm.mesh\r\nUser-Agent: agent/1\r\nAccept: */*\r\n"
            b"Authorization: Bearer %b\r\ntraceparent: 00-%b-%b-01\r\n\r\n" % (self.handle.encode(), trace, trace[16:])
        )
        self.pool.connections.writes.write_all()
        self.pool.agent.data_received(ANSWER)
        self.writes.write_all()


def _issued(served: ServedRequest) -> IssuedPermit:
    planned = plan(served.delegation)
    return accept_issued(signed(ISSUED_CLAIMS), plan=planned, key=verification_key(), policy=POLICY, now=NOW)


class _Own:
    """The sidecar's own identity."""

    spiffe_id = WRITER

    @property
    def svid(self) -> _Own:
        return self


class _Nobody:
    """No token service: every token is cached."""

    async def post_form(
        self, form: bytes, authorization: str | None = None, *, once: bool = False, subject: Hashable = None
    ) -> Any:
        raise AssertionError

    async def close(self) -> None:
        pass
