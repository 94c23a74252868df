"""One inbound side in memory, on either engine: a peer's connection, one free connection to the agent, records.

Clocks stand still. ``Outcome`` is what everybody outside sees, with its random parts masked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

from delegation_core.a2a_rules import A2aRules
from delegation_core.decide import accept_issued
from delegation_core.inbound_routes import InboundRoutes
from delegation_core.operation import Operations
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.permit import IssuedPermit
from delegation_core.plan import Delegation, plan_outbound
from delegation_core.route import OutboundRoute
from sidecar.engine import Engine, native_writes, require_native
from sidecar.exchange.cache import Issued
from sidecar.exchange.client import TokenExchange, key_of
from sidecar.exchange.exchanges import Exchanges
from sidecar.exchange.federation.tokens import FederatedTokens
from sidecar.exchange.sts import ExchangeSettings
from sidecar.features import Features
from sidecar.features.a2a.task_bindings import TaskBindings
from sidecar.identity.handshake import VerifyingSSLObject
from sidecar.identity.source import State as IdentityState
from sidecar.identity.svid import VerifiedPeer
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
from sidecar.proxy.native.warm_inbound import WarmInbound
from sidecar.proxy.native.warm_operations import HandedOver
from sidecar.proxy.native.warm_outbound import WarmOutbound
from sidecar.wire.connections import Connections
from sidecar.wire.dialer import Origin
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.h1_server import ServerConnection, Warm
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.origin_pool import OriginPool
from sidecar.wire.pool import UpstreamPool
from sidecar.wire.stream import RequestHandler
from sidecar.wire.teardown import Phase
from tests.core.world import (
    ENTRY_CLAIMS,
    ISSUED_CLAIMS,
    NOW,
    PLANNER,
    SEARCH,
    STS,
    TO_CRM,
    WRITER,
    Claims,
    delegation,
    login,
    signed,
    verification_key,
)
from tests.core.world import POLICY as WORLD_POLICY
from tests.fuzz.inbound_world import DOCS, _Keys, token
from tests.proxy.warm import ANSWER, _Nobody
from tests.wire.bench import Clock, RecordingTransport

AGENT: Final = Origin("127.0.0.1", 8080, ("127.0.0.1", 8080))
_TOOLS: Final = replace(SEARCH, name="tools", path="/mcp", methods=frozenset({"POST", "GET", "DELETE"}))
_AGENT: Final = replace(SEARCH, name="agent", path="/a2a", prefix=True, methods=frozenset({"POST", "GET"}))
_TO_TOOLS: Final = replace(TO_CRM, name="tools", host="tools.mesh")
_TO_AGENT: Final = replace(TO_CRM, name="agent", host="agent.mesh")
_BELOW: Final = replace(TO_CRM, name="below", host=None, prefix="/below/it")
_DEEPER: Final = replace(TO_CRM, name="deeper", host=None, prefix="/below/it/agent")
OF_MCP: Final = ("initialize", "ping", "tools/list", "tools/call:search", "tools/call:*")
OF_A2A: Final = ("SendMessage", "GetTask", "ListTasks", "CancelTask", "GetExtendedAgentCard")


def _of_protocol(route: Any, protocol: str, keys: Sequence[str], **more: Any) -> Any:
    """Return a route of a protocol that allows these operations."""
    made = {key: replace(route, protocol=protocol, operation=key, **more) for key in keys}
    return replace(route, protocol=protocol, operations=Operations(made, named={"tools/call:named"}), **more)


POLICY: Final = replace(
    WORLD_POLICY,
    inbound=InboundRoutes(
        [
            SEARCH,
            DOCS,
            _of_protocol(_TOOLS, "mcp", OF_MCP),
            _of_protocol(replace(_TOOLS, name="cut", path="/cut"), "mcp", OF_MCP, filter_lists=True),
            _of_protocol(_AGENT, "a2a", OF_A2A),
            _of_protocol(replace(_TOOLS, name="told", path="/told"), "mcp", OF_MCP, pass_token=True, forwarded=True),
            _of_protocol(
                replace(_AGENT, name="strict", path="/strict"), "a2a", OF_A2A, a2a=A2aRules(strict_tasks=True)
            ),
        ]
    ),
)
OUTBOUND_POLICY: Final = replace(
    WORLD_POLICY,
    outbound=OutboundRoutes(
        [
            TO_CRM,
            _BELOW,
            _of_protocol(_TO_TOOLS, "mcp", OF_MCP),
            _of_protocol(_TO_AGENT, "a2a", OF_A2A),
            _of_protocol(_DEEPER, "a2a", OF_A2A),
        ]
    ),
)
HANDLE: Final = "h" * 43  # of the request that the agent serves, in both worlds
_RANDOM: Final = (
    (re.compile(rb"(?<=[Bb]earer )[A-Za-z0-9_-]{43}(?=\r)"), b"HANDLE"),
    (re.compile(rb"(?<=delegation-handle: )[A-Za-z0-9_-]{43}(?=\r)"), b"HANDLE"),
    (re.compile(rb"(?<=delegation-call: )[0-9a-f]{32}(?=\r)"), b"CALL"),
    (re.compile(rb"(?<=delegation-request-id: )[0-9a-f]{32}(?=\r)"), b"ID"),
    (re.compile(rb'(?<="request_id":")[0-9a-f]{32}(?=")'), b"ID"),
    (re.compile(rb"traceparent: 00-([0-9a-f]{32})-[0-9a-f]{16}"), b"traceparent: SPAN"),
)
_RANDOM_KEYS: Final = frozenset({"request_id", "span_id", "trace_id", "prev", "run", "call_out"})


class Outcome(NamedTuple):
    """Bytes that reached the agent, bytes that reached the peer, and if its connection goes on."""

    sent: bytes
    answered: bytes
    open: bool


class _Source:
    current: Any = object()
    state = IdentityState.READY


class _Guard:
    """The proof of a peer that is trusted until ``error`` is set."""

    until = NOW + 3600
    chain = ()

    def __init__(self, source: _Source) -> None:
        self.source = source
        self.peer = VerifiedPeer(PLANNER, NOW + 3600, "0" * 64)
        self.error: Exception | None = None

    def check(self, _now: int) -> VerifiedPeer:
        if self.error is not None:
            raise self.error
        return self.peer


class EngineWorld:
    """The inbound side. ``taken`` counts the requests that the native engine began.

    ``pythons``: how many messages of a route Python begins once an answer was handed over. ``of_log``: options of the
    record stream.
    """

    proxy_form = False
    pythons = 0

    def __init__(self, engine: Engine, folder: Path, **of_log: Any) -> None:
        self.engine = engine
        self.now = float(NOW)
        self.taken = 0
        self.source = _Source()
        snapshots: Any = SimpleNamespace(closed=None, setup=SimpleNamespace(plain_until=0))
        self.snapshots = snapshots
        self.snapshots.now = self.snapshots.in_force = lambda: self.snapshots.current
        self.clock = Clock()
        self._records = folder / f"records-{engine}"
        self.log = AccessLog(
            FileSink(self._records),
            run="run",
            metrics=Metrics(),
            max_records=10**9,
            max_bytes=10**9,
            wall=lambda: self.now,
            monotonic=self.clock,
            link=require_native().link if engine == "native" else None,
            **of_log,
        )
        # Its thread measures by the machine's clock, which may be behind ours: a machine that has just started.
        self.log.writer._stall_s = self.log.writer.reliable_until = inf
        self.went_on: list[bytes] = []  # the traceparent of each message that was sent
        source: Any = self.source
        self.watch = Watch(self.snapshots, source, wall=lambda: self.now, monotonic=self.clock)
        self.handles = Handles(clock=lambda: self.now, monotonic=self.clock)
        self.pool = UpstreamPool(ClientLimits(), clock=self.clock)
        if engine == "native":
            self.pool.connections.write_by(native_writes(32))
        self._warm: Warm | None = None
        self.features = Features(clock=lambda: self.now, session_key=bytes(32))
        self.bindings: TaskBindings = self.features.of("a2a").bindings
        self.handler = self._make_side()
        self.guard = _Guard(self.source)
        self.connections: Connections[ServerConnection] = Connections(interval_s=3600, clock=self.clock)
        if engine == "native":
            self.connections.write_by(native_writes(32))
        self.origin_pool = OriginPool(
            AGENT, ClientLimits(), self.pool.counts, self.clock, opened=_never, on_empty=lambda _: None
        )
        self.pool.pools[AGENT.key] = self.origin_pool
        self.connect()
        self.agent_connects()
        list(self.watch.steps(0))  # the first tick judges everything

    def _make_side(self) -> RequestHandler:
        """Make the side, and its gate."""
        keys: Any = _Keys()
        self.snapshots.current = Snapshot(policy=POLICY, keys=keys, exchanges=Exchanges(), agent=AGENT)
        forwarder = Forwarder(self.pool, FROM_AGENT, self.watch, ServerLimits())
        inbound = Inbound(
            snapshots=self.snapshots,
            log=self.log,
            handles=self.handles,
            forwarder=forwarder,
            tasks=Tasks(),
            clock=lambda: self.now,
            features=self.features,
        )
        self.verdicts = inbound.verdicts
        if self.engine == "native":
            warm = WarmInbound(inbound, limits=ServerLimits(), upstream_limits=ClientLimits())
            warm._handed_over = HandedOver(self.pythons)
            self._warm = warm.begin
        return inbound

    def _begin(self, connection: ServerConnection, data: bytes) -> bool | None:
        assert self._warm is not None
        taken = self._warm(connection, data)
        self.taken += bool(taken)
        return taken

    def connect(self) -> None:
        """Let the peer have a new connection."""
        ssl_object = VerifyingSSLObject.__new__(VerifyingSSLObject)
        guard: Any = self.guard
        ssl_object.guard = guard
        self.transport = RecordingTransport(ssl_object=ssl_object)
        self.transport.settle = self.connections.writes.write_all
        self.server = ServerConnection(
            self.handler,
            ServerLimits(),
            self.connections,
            proxy_form=self.proxy_form,
            warm=None if self._warm is None else self._begin,
        )
        self.server.connection_made(self.transport)

    def agent_connects(self) -> None:
        """Let there be a new free connection to the agent, and no other one."""
        self.agent = ClientConnection(
            ClientLimits(),
            self.pool.connections,
            on_idle=self.origin_pool.keep,
            on_closed=self.origin_pool.forget,
            max_age_s=3600,
        )
        self.agent_transport = RecordingTransport()
        self.agent_transport.settle = self.pool.connections.writes.write_all
        self.agent.connection_made(self.agent_transport)
        self.agent.kept = True
        self.origin_pool.idle[:] = [self.agent]
        self.origin_pool.alive = {self.agent}

    def exchange(
        self,
        data: bytes | tuple[bytes, ...],
        answer: bytes = ANSWER,
        between: Callable[[EngineWorld], None] = lambda _: None,
    ) -> Outcome:
        """Receive bytes of the peer, or pieces; do something; let the agent answer, if it was sent something."""
        if self.transport.is_closing():
            self.connect()
        if not self.agent.usable:
            self.agent_connects()
        heard, told = len(self.agent_transport.writes), len(self.transport.writes)
        for piece in (data,) if isinstance(data, bytes) else data:
            if not self.transport.is_closing():
                self.server.data_received(piece)
        self.server._read_early()  # nobody waits longer for the rest of a request
        sent = b"".join(self.agent_transport.writes[heard:])
        self.went_on += re.findall(rb"(?<=\r\ntraceparent: )[^\r]*", sent)
        between(self)
        if sent and answer and not self.agent_transport.is_closing():
            self.agent.data_received(answer)
        self.agent._leave_early()  # nobody waits longer for the rest of an answer
        answered = b"".join(self.transport.writes[told:])
        ended = self.transport.is_closing() or self.server.teardown.phase is not Phase.OPEN
        if ended or self.server.stream is not None or self.server.receiving or self.server.has_rest:
            self.server.connection_lost(None)  # nothing of one exchange is left for the next
            self.transport.aborted = True
        return Outcome(_masked(sent), _masked(answered), not ended)

    async def records(self) -> list[dict[str, Any]]:
        """Return every record, without what is random; closes the log."""
        await self.log.close()
        lines = self._records.read_bytes().splitlines()
        return [{key: value for key, value in json.loads(line).items() if key not in _RANDOM_KEYS} for line in lines]

    @property
    def counted(self) -> tuple[object, ...]:
        """The requests that metrics have counted: by outcome, by operation, by depth and duration; and look-ups."""
        metrics = self.log.metrics
        tally = metrics.finished.counted()
        durations = [one.up_to for one in (*tally.request_seconds.values(), *tally.decision_seconds.values())]
        return (
            dict(tally.requests),
            dict(tally.operations),
            tally.chain_depth.up_to,
            durations,
            dict(metrics.verdict_cache()),
            dict(metrics.token_cache),
        )

    @property
    def bound(self) -> list[tuple[object, ...]]:
        """The tasks and contexts of A2A that are bound, in the order of their last use."""
        tables = self.bindings.tasks, self.bindings.contexts
        return [(key, *one) for table in tables for key, one in table._bound.items()]

    @property
    def lines(self) -> Path:
        """The file of the records."""
        return self._records


def _masked(data: bytes) -> bytes:
    for pattern, instead in _RANDOM:
        data = pattern.sub(instead, data)
    return data


@cache
def _authority() -> tuple[Delegation, list[IssuedPermit]]:
    """Return one delegation, and tokens issued for it: the same for both engines."""
    given = delegation(may_call=frozenset({"crm", "below", "tools", "agent", "deeper"}))
    routes = [TO_CRM, _BELOW]
    for route in OUTBOUND_POLICY.outbound.routes:
        routes += [route.operations.find(key) for key in route.operations.keys] if route.operations else []
    return given, [_issued(given, route) for route in routes]


@cache
def _authority_of_login() -> tuple[Delegation, list[IssuedPermit]]:
    """Return the same of a login at an entry."""
    given = login()
    return given, [_issued(given, TO_CRM, ENTRY_CLAIMS)]


def _issued(given: Delegation, route: OutboundRoute, claims: Claims = ISSUED_CLAIMS) -> IssuedPermit:
    planned = plan_outbound(given, route, policy=OUTBOUND_POLICY, now=NOW)
    return accept_issued(signed(claims), plan=planned, key=verification_key(), policy=OUTBOUND_POLICY, now=NOW)


class _KeysOfOne(_Keys):
    """The keys of one issuer, which is its own key set."""

    def of_issuer(self, _issuer: str) -> _KeysOfOne:
        return self

    def generation_of(self, _issuer: str) -> int:
        return self.generation


class _CountedLookUps(WarmOutbound):
    """Counts the calls for which the native engine has the engine in Python look up."""

    looked = 0

    def look_up(self, *args: Any) -> Any:
        self.looked += 1
        return super().look_up(*args)


class OutboundWorld(EngineWorld):
    """The outbound side: the agent's connection, one free connection to the next hop, and a token for it at hand.

    ``served`` is the request that the agent serves, with ``handle``.
    """

    proxy_form = True
    authority = staticmethod(_authority)

    def _make_side(self) -> RequestHandler:
        self.keys = _KeysOfOne()
        keys: Any = self.keys
        own: Any = SimpleNamespace(spiffe_id=WRITER, svid=SimpleNamespace(spiffe_id=WRITER, leaf_sha256="0" * 64))
        self.own_source: Any = SimpleNamespace(current=own, subscribe=lambda _: None)
        source = self.own_source
        settings = ExchangeSettings(issuer=STS, token_endpoint="https://sts.example/token", ca_file="ca.pem")
        self.tokens = TokenExchange(
            settings, source, keys, self.log, self.log.metrics, lambda: self.now, caller=_Nobody()
        )
        authority, permits = self.authority()
        self.served = ServedRequest(authority, max_calls=None, linger_s=0.0, call_in="c" * 32)
        self.handle = HANDLE
        self.handles.alive[HANDLE] = self.handles.alive.pop(self.handles.open(self.served))
        epoch = self.tokens._epoch(OUTBOUND_POLICY)
        assert epoch is not None
        for permit in permits:
            issued = Issued(permit, usable_until=NOW + 200, refresh_at=NOW + 100)
            assert self.tokens.tokens.keep(key_of(permit.plan), issued, epoch=epoch)
        exchanges = Exchanges({STS: self.tokens})
        self.snapshots.current = Snapshot(policy=OUTBOUND_POLICY, keys=keys, exchanges=exchanges, agent=None)
        forwarder = Forwarder(self.pool, FROM_NEXT_HOP, self.watch, ServerLimits())
        origins: Any = SimpleNamespace(of=lambda _route, _workload, _bound_to, _call=None: AGENT)
        own_authorities = frozenset({"127.0.0.1:7080"})
        outbound = Outbound(
            snapshots=self.snapshots,
            log=self.log,
            handles=self.handles,
            forwarder=forwarder,
            tasks=Tasks(),
            origins=origins,
            federated=lambda: FederatedTokens(source),
            features=Features(session_key=bytes(32)),
            own_authorities=own_authorities,
            clock=lambda: self.now,
        )
        if self.engine == "native":
            self.gate = warm = _CountedLookUps(outbound, limits=ServerLimits(), upstream_limits=ClientLimits())
            warm._handed_over = HandedOver(self.pythons)
            self._warm = warm.begin
        self.plans, self.judged = outbound.plans, outbound.features["logins"].judged
        return outbound

    @property
    def counted(self) -> tuple[object, ...]:
        """The same, and the look-ups of each cache, whose entries are in the order in which they would be evicted."""
        caches = self.plans, self.tokens.tokens.kept, self.judged
        return *super().counted, [(one.hits, one.misses, list(one.entries)) for one in caches]


class LoginWorld(OutboundWorld):
    """The same at an entry: the handle stands for a user's login, which was verified."""

    authority = staticmethod(_authority_of_login)

    def __init__(self, engine: Engine, folder: Path, **options: Any) -> None:
        super().__init__(engine, folder, **options)
        self.keep_login()

    def keep_login(self) -> None:
        """Let the login behind the handle be one that was verified."""
        self.judged.turn_to((self.keys.generation, OUTBOUND_POLICY.number))
        kept = self.served.delegation
        self.judged.keep(kept.token.raw, kept, cost=1, expires_at=NOW + 3600, epoch=self.judged.epoch)


async def _never(_pool: OriginPool) -> ClientConnection:
    raise AssertionError("no connection is opened here")


def warm_call(world: EngineWorld, target: str = "http://crm.mesh/tool", fields: str = "", body: bytes = b"") -> bytes:
    """Return a call that the policy permits, with the handle of the request that the agent serves."""
    assert isinstance(world, OutboundWorld)
    head = f"POST {target} HTTP/1.1\r\nHost: crm.mesh\r\nUser-Agent: agent/1\r\nAccept: */*\r\n{fields}"
    return head.encode("latin-1") + b"Authorization: Bearer %b\r\n\r\n" % world.handle.encode() + body


def warm_request(
    method: str = "POST", target: str = "/search", fields: str = "", body: bytes = b"", shown: bytes | None = None
) -> bytes:
    """Return a request that the policy permits."""
    head = f"{method} {target} HTTP/1.1\r\nHost: writer:7443\r\nUser-Agent: agent/1\r\nAccept: */*\r\n{fields}"
    return head.encode("latin-1") + b"Authorization: Bearer %b\r\n\r\n" % (shown or token()) + body
