"""A call that lasts, in memory and by a clock set by hand: real connections, journeys and watch of either port.

The caller is a peer (``inbound``) or the agent (``outbound``), and speaks HTTP/1.1 or HTTP/2; the upstream likewise.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Literal, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived

from delegation_core.connect import ConnectRoute
from delegation_core.decide import accept_issued
from delegation_core.inbound_routes import InboundRoutes
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.plan import Plan
from delegation_core.policy import Deny, Policy
from delegation_core.revocation import InForce, Kind
from delegation_core.revocations_kept import Revocation, Revocations
from sidecar.exchange.cache import Issued
from sidecar.exchange.exchanges import Exchanges
from sidecar.exchange.federation.tokens import FederatedTokens
from sidecar.features import Features
from sidecar.identity.handshake import VerifyingSSLObject
from sidecar.observe.access_log import AccessLog, FileSink
from sidecar.observe.metrics import Metrics
from sidecar.proxy.journeys.forward import Forwarder
from sidecar.proxy.journeys.handles import Handles, ServedRequest
from sidecar.proxy.journeys.headers import FROM_AGENT, FROM_NEXT_HOP
from sidecar.proxy.journeys.inbound import Inbound
from sidecar.proxy.journeys.outbound import Outbound
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.proxy.journeys.watch import Watch
from sidecar.wire.connections import Connections
from sidecar.wire.dialer import Origin
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.h1_server import ServerConnection
from sidecar.wire.h2_client import H2ClientConnection
from sidecar.wire.h2_frames import Code
from sidecar.wire.h2_server import H2ServerConnection
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.pool import UpstreamPool
from sidecar.wire.raw_tunnel import RawEnd
from tests.core.world import (
    IDP,
    INBOUND_CLAIMS,
    ISSUED_CLAIMS,
    NOW,
    POLICY,
    SEARCH,
    STS,
    TO_CRM,
    delegation,
    signed,
    verification_key,
)
from tests.fuzz.inbound_world import _Guard, _Keys
from tests.proxy.agent_calls import Awaited, Keys, Tokens
from tests.wire.bench import Clock, RecordingTransport
from tests.wire.h2_bench import Peer
from tests.wire.test_websocket import GRANTS

Port = Literal["inbound", "outbound"]
HOUR: Final = 3600
_QUIET: Final = 6  # iterations of the loop without a write: more than any call here waits between two
_WEBSOCKET: Final = (
    "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "sec-websocket-version: 13\r\n"
)
_METHODS: Final = frozenset({"GET", "POST"})


class Upstreams(UpstreamPool):
    """Opens a connection for each call, by the version of its origin."""

    def __init__(self, clock: Clock, limits: ClientLimits) -> None:
        super().__init__(limits, clock=clock)
        self.transport = RecordingTransport()
        self.end: Any = None

    def take(self, origin: Origin) -> Any:
        kind: Any = H2ClientConnection if origin.http2 else ClientConnection
        connections: Any = self.connections
        self.end = kind(
            self._limits, connections, on_idle=lambda _: None, on_closed=lambda _: None, max_age_s=HOUR * 24
        )
        self.end.connection_made(self.transport)
        connections.add(self.end)
        return self.end.spare() if origin.http2 else self.end

    async def dial_raw(self, _origin: Origin) -> RawEnd:
        self.end = RawEnd(self._limits, self.raw)
        self.end.connection_made(self.transport)
        return cast("RawEnd", self.end)


class H2Agent:
    """The other end of an upstream connection of HTTP/2."""

    def __init__(self) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.h2.initiate_connection()
        self.stream_id = 0
        self.fields: dict[bytes, bytes] = {}
        self._taken = 0

    def exchange(self, end: Any, transport: RecordingTransport) -> None:
        """Read what was written, and answer what must be."""
        written = transport.written[self._taken :]
        self._taken += len(written)
        for event in self.h2.receive_data(written) if written else ():
            if isinstance(event, RequestReceived):
                self.stream_id = event.stream_id or 0
                self.fields = dict(cast("Any", event.headers))
            elif isinstance(event, DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        data = self.h2.data_to_send()
        if data:
            end.data_received(data)


class Lasting:
    """One call.

    ``kind`` is how it looks: message, events, grpc, declared, declared events, posted events, websocket, tunnel.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        port: Port,
        version: str,
        *,
        life_s: int = HOUR,
        deadline_s: float | None = None,
        grpc_timeout: str | None = None,
        upstream_http2: bool | None = None,
        **limits: Any,
    ) -> None:
        self.kind, self.port, self.http2 = kind, port, version == "2"
        self.clock = Clock()
        asyncio.get_running_loop().time = self.clock  # type: ignore[method-assign]
        self.grpc_timeout = grpc_timeout
        by_http2 = self.http2 if upstream_http2 is None else upstream_http2
        self.agent = H2Agent() if by_http2 else None
        self._folder = folder
        self._path = "/demo.Echo/Talk" if kind == "grpc" else "/live"
        self.pool = Upstreams(self.clock, ClientLimits())
        self.deny = Deny()
        self._tasks = Awaited()
        self.log = AccessLog(
            FileSink(folder / "records"), run="run", metrics=Metrics(), wall=self.wall, monotonic=self.clock
        )
        origin = Origin("127.0.0.1", 8080, ("agent", by_http2), http2="prior" if by_http2 else "")
        route: dict[str, Any] = {"stream": kind.startswith("declared"), "deadline_s": deadline_s}
        inbound = replace(SEARCH, name="live", path="/", prefix=True, methods=_METHODS, **route)
        policy = replace(
            POLICY,
            inbound=InboundRoutes([inbound]),
            outbound=OutboundRoutes([replace(TO_CRM, **route), ConnectRoute(name="api", host="api.example:443")]),
        )
        keys: Any = _Keys() if port == "inbound" else Keys()
        tokens = _Tokens(life_s)
        exchanges = Exchanges({STS: cast("Any", tokens)})

        def snapshot() -> Snapshot:
            judged = replace(policy, deny=self.deny, number=1 if self.deny == Deny() else 2)
            return Snapshot(policy=judged, keys=keys, exchanges=exchanges, agent=origin)

        self._current = snapshot()
        self._snapshot = snapshot
        snapshots: Any = SimpleNamespace(
            now=lambda: self._current, in_force=lambda: self._current, setup=SimpleNamespace(plain_until=0)
        )
        self._snapshots = snapshots
        snapshots.current = self._current
        source: Any = SimpleNamespace(current=None, subscribe=lambda _: None, state=None)
        self.watch = Watch(snapshots, source, wall=self.wall, monotonic=self.clock)
        handles = Handles(clock=self.wall, monotonic=self.clock)
        server_limits = ServerLimits(**limits)
        edits = FROM_AGENT if port == "inbound" else FROM_NEXT_HOP
        common: dict[str, Any] = {
            "snapshots": snapshots,
            "log": self.log,
            "handles": handles,
            "forwarder": Forwarder(self.pool, edits, self.watch, server_limits),
            "tasks": self._tasks,
            "clock": self.wall,
        }
        self.transport = RecordingTransport()
        handler: Any
        if port == "inbound":
            ssl_object = VerifyingSSLObject.__new__(VerifyingSSLObject)
            ssl_object.guard = cast("Any", _LongGuard())
            self.transport = RecordingTransport(ssl_object=ssl_object)
            handler = Inbound(features=Features(session_key=bytes(32)), **common)
            self._bearer = signed(INBOUND_CLAIMS | {"exp": NOW + life_s}).raw
        else:
            origins: Any = SimpleNamespace(
                of=lambda *_: origin, tunnel=lambda route: Origin(route.address[0], route.address[1], route.name)
            )
            handler = Outbound(
                origins=origins,
                federated=lambda: FederatedTokens(source, self.wall),
                features=Features(clock=self.wall, monotonic=self.clock, session_key=bytes(32)),
                own_authorities=frozenset({"127.0.0.1:7080"}),
                **common,
            )
            shown = delegation(INBOUND_CLAIMS | {"exp": NOW + life_s}, may_call=frozenset({"crm", "api"}))
            self._bearer = handles.open(ServedRequest(shown, max_calls=None, linger_s=HOUR, call_in="c1"))
        self.connections: Connections[Any] = Connections(interval_s=3600, clock=self.clock)
        self.transport.settle = self.connections.writes.write_all
        if self.http2:
            self.connection: Any = H2ServerConnection(handler, server_limits, self.connections)
        else:
            self.connection = ServerConnection(handler, server_limits, self.connections, proxy_form=port == "outbound")
        self.connection.connection_made(self.transport)
        self.peer = Peer()
        self.stream_id = 0
        self._taken = 0

    def wall(self) -> float:
        return NOW + self.clock.now - 1000.0

    # --- the caller

    async def begin(self, *, ends: bool = False) -> None:
        """Send the head of the request; ``ends``: and no body."""
        method = "GET" if self.kind in ("websocket", "events", "declared events") else "POST"
        host = "crm.mesh" if self.port == "outbound" else "writer"
        fields = [("authorization", f"Bearer {self._bearer}")]
        if self.kind == "grpc":
            fields += [("content-type", "application/grpc"), ("te", "trailers")]
        if self.grpc_timeout is not None:
            fields.append(("grpc-timeout", self.grpc_timeout))
        if self.http2:
            self.stream_id = self.peer.h2.get_next_available_stream_id()
            head = [(":method", method), (":scheme", "https"), (":path", self._path), (":authority", host), *fields]
            self.peer.h2.send_headers(
                self.stream_id, [(n.encode(), v.encode()) for n, v in head], end_stream=ends or method == "GET"
            )
        else:
            self.connection.data_received(self._head_of_http1(method, host, fields, ends=ends))
        await self.settle()

    def _head_of_http1(self, method: str, host: str, fields: list[tuple[str, str]], *, ends: bool) -> bytes:
        if self.kind == "tunnel":
            shown = f"Proxy-Authorization: Bearer {self._bearer}"
            return f"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n{shown}\r\n\r\n".encode()
        more = "" if method == "GET" else "content-length: 0\r\n" if ends else "transfer-encoding: chunked\r\n"
        if self.kind == "websocket":
            more = _WEBSOCKET
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        return f"{method} {self._path} HTTP/1.1\r\nhost: {host}\r\n{more}{lines}\r\n".encode()

    async def say(self, data: bytes = b".") -> None:
        """Let the caller send content."""
        if self.http2:
            self.peer.h2.send_data(self.stream_id, data)
        elif self.kind in ("websocket", "tunnel"):
            self.connection.data_received(data)
        else:
            self.connection.data_received(b"%x\r\n%b\r\n" % (len(data), data))
        await self.settle()

    # --- the upstream

    async def answer(self) -> None:
        """Let the upstream begin its answer, which goes on."""
        kinds = {"events": b"text/event-stream", "grpc": b"application/grpc"}
        kind = kinds.get(self.kind.removeprefix("declared ").removeprefix("posted "), b"text/plain")
        if self.kind == "tunnel":
            return
        if self.agent is not None:
            self.agent.h2.send_headers(self.agent.stream_id, [(b":status", b"200"), (b"content-type", kind)])
        elif self.kind == "websocket":
            self.pool.end.data_received(GRANTS)
        else:
            head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % kind
            self.pool.end.data_received(head)
        await self.settle()

    async def tell(self, data: bytes = b".") -> None:
        """Let the upstream send content."""
        if self.agent is not None:
            self.agent.h2.send_data(self.agent.stream_id, data)
        elif self.kind in ("websocket", "tunnel"):
            self.pool.end.data_received(data)
        else:
            self.pool.end.data_received(b"%x\r\n%b\r\n" % (len(data), data))
        await self.settle()

    async def finish(self) -> None:
        """Let the upstream end its answer."""
        if self.agent is not None:
            self.agent.h2.end_stream(self.agent.stream_id)
        else:
            self.pool.end.data_received(b"0\r\n\r\n")
        await self.settle()

    async def break_off(self) -> None:
        """Let the upstream cut its answer, as a sidecar does."""
        if self.agent is not None:
            self.agent.h2.reset_stream(self.agent.stream_id, Code.INTERNAL_ERROR)
        else:
            self.pool.end.connection_lost(None)
        await self.settle()

    # --- time, and what ends a call

    async def after(self, seconds: float, *, step_s: float = 1.0) -> None:
        """Let time pass, and everything that looks at it."""
        ends_at = self.clock.now + seconds
        while self.clock.now < ends_at:
            self.clock.now = min(ends_at, self.clock.now + step_s)
            self.connections.sweep()
            self.pool.connections.sweep()
            self.pool.raw.sweep()
            for _ in self.watch.steps(1):
                pass
            await self.settle()

    async def refuse_subject(self) -> None:
        """Put the call's user on the deny list."""
        self.deny = Deny(subjects=frozenset({(None, "alice")}))
        self._current = self._snapshots.current = self._snapshot()
        await self.after(1)

    async def revoke_subject(self) -> None:
        """Revoke the tokens of the call's user by an order."""
        order = Revocation(id="r1", kind=Kind.SUBJECT, value="alice", issuer=IDP, expires_at=NOW + 24 * HOUR)
        revoked = InForce(lists={STS: Revocations(in_force={"r1": order})}, own=frozenset({STS}))
        self.deny = Deny(revoked=revoked)
        self._current = self._snapshots.current = self._snapshot()
        await self.after(1)

    async def settle(self) -> None:
        """Let everybody read what was written, until all are silent."""
        quiet = 0
        while quiet < _QUIET:
            await asyncio.sleep(0)
            before = self._heard()
            await self._tasks.done()
            self.connections.writes.write_all()
            self.pool.connections.writes.write_all()
            self.pool.raw.writes.write_all()
            if self.agent is not None and self.pool.end is not None:
                self.agent.exchange(self.pool.end, self.pool.transport)
            if self.http2:
                sent = self.peer.h2.data_to_send()
                if sent:
                    self.connection.data_received(sent)
                written = self.transport.written[self._taken :]
                self._taken += len(written)
                if written:
                    self.peer.take(written)
            quiet = quiet + 1 if self._heard() == before else 0

    def _heard(self) -> tuple[int, int]:
        """Count the writes to the caller and to the upstream."""
        return len(self.transport.writes), len(self.pool.transport.writes)

    def lives(self) -> bool:
        """Tell if the call is still in progress."""
        return len(self.watch) > 0

    def ending(self) -> str:
        """Return how the caller sees the end of its answer: whole, cut, or open."""
        if self.http2:
            answer = self.peer.answer(self.stream_id)
            return "cut" if answer.reset == Code.INTERNAL_ERROR else "whole" if answer.ended else "open"
        if self.transport.written.endswith(b"\r\n0\r\n\r\n"):
            return "whole"
        return "cut" if self.transport.ended or self.transport.is_closing() else "open"

    @property
    def trailers(self) -> dict[bytes, bytes]:
        """The fields that told the caller of HTTP/2 how its call ended."""
        answer = self.peer.answer(self.stream_id)
        return answer.trailers or answer.fields

    async def record(self) -> tuple[str, str]:
        """Return reason and detail of the one closing record."""
        await self.log.close()
        lines = [json.loads(line) for line in (self._folder / "records").read_text().splitlines()]
        (found,) = [line for line in lines if line["event"] == "request"]
        return found["reason"], found.get("detail") or ""


class _LongGuard(_Guard):
    until = NOW + 24 * HOUR


class _Tokens(Tokens):
    """A token service whose tokens live as long as the test wants."""

    def __init__(self, life_s: int) -> None:
        super().__init__()
        self._life_s = life_s

    async def exchange(self, plan: Plan, policy: Policy) -> Issued:
        assert plan.delegation is not None
        scope = " ".join(sorted(plan.scope))
        shown = ISSUED_CLAIMS | {"exp": NOW + self._life_s, "parent_jti": plan.delegation.token.jti, "scope": scope}
        permit = accept_issued(signed(shown), plan=plan, key=verification_key(), policy=policy, now=NOW)
        return Issued(permit, usable_until=NOW + self._life_s, refresh_at=NOW + self._life_s)
