"""Assembly of one sidecar: makes its parts and listeners from the settings. No logic."""

from __future__ import annotations

import secrets
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import inf
from typing import Any, Final

from sidecar.bounded import Bounded
from sidecar.config import InboundSettings, OutboundSettings, PlainSettings, SidecarSettings
from sidecar.config.addresses import Address
from sidecar.config.settings import DoorSettings, ProtocolSettings
from sidecar.delegation.mcp_session import KEY_BYTES, SessionIds
from sidecar.delegation.revocation import NOTHING
from sidecar.delegation.revocation_list import MAX_LIST_BYTES
from sidecar.delegation.route import Upstream
from sidecar.delegation.txn_token import TxnSource
from sidecar.engine import PREPARED_CALL_BYTES, Engine, engine_of, native_writes, require_native
from sidecar.exchange.channel import StsChannel
from sidecar.exchange.client import Exchanges, TokenExchange
from sidecar.exchange.countersigner import MAX_ANSWER_BYTES, Countersigner
from sidecar.exchange.federation.tokens import FederatedTokens
from sidecar.exchange.revocations import POLL_TIMEOUT_S, RevocationList, RevocationLists, RevocationListSettings
from sidecar.exchange.sts import ExchangeSettings
from sidecar.exchange.txn_service import TxnTokenService
from sidecar.identity.generation import ALPN, ALPN_WITH_HTTP2
from sidecar.identity.handshake import PeerGuard
from sidecar.identity.jwks import IssuerKeys
from sidecar.identity.proofs import Proofs
from sidecar.identity.public_tls import PublicCertificate
from sidecar.identity.source import IdentitySource
from sidecar.identity.source_factory import source_of
from sidecar.identity.tls import server_context
from sidecar.observe.access_log import AccessLog
from sidecar.observe.countersigning import TIMEOUT_S, Countersigning
from sidecar.observe.metrics import Metrics
from sidecar.observe.record import Direction
from sidecar.observe.record_rate import RecordRate, UnprovenRecords
from sidecar.observe.refused_connections import RefusedConnections
from sidecar.observe.shared_sink import SharedSink
from sidecar.observe.telemetry.settings import TracingSettings
from sidecar.proxy.agent_key import AgentKey
from sidecar.proxy.agent_watch import AgentWatch
from sidecar.proxy.caches import HANDLES, Caches
from sidecar.proxy.door import DoorCalls
from sidecar.proxy.door_forwarding import passes_from_door
from sidecar.proxy.forward import Forwarder
from sidecar.proxy.handle_delivery import HandleDelivery
from sidecar.proxy.handles import MARKS, Handles
from sidecar.proxy.headers import FROM_AGENT, FROM_NEXT_HOP, to_agent, to_next_hop
from sidecar.proxy.inbound import Inbound
from sidecar.proxy.journey import Tasks
from sidecar.proxy.listener import Listener, ListenerSettings, ShedHandler
from sidecar.proxy.memory_pressure import MIB, MemoryLimits
from sidecar.proxy.observing import Observing
from sidecar.proxy.one_subject import OneSubject
from sidecar.proxy.origins import Origins
from sidecar.proxy.outbound import Outbound
from sidecar.proxy.pending_logins import PendingLogins
from sidecar.proxy.plain import PlainInbound
from sidecar.proxy.remote_handles import Inbox, RemoteHandles
from sidecar.proxy.revalidation import judge_served
from sidecar.proxy.server import Parts, Server
from sidecar.proxy.snapshot import Setup, Snapshots
from sidecar.proxy.system_memory import memory_of
from sidecar.proxy.task_bindings import TaskBindings
from sidecar.proxy.trim import Trim
from sidecar.proxy.txn_tokens import InboundTxnTokens, OutboundTxnTokens
from sidecar.proxy.watch import Watch
from sidecar.proxy.workload_handle import SECRET_BYTES, WorkloadHandle
from sidecar.wire.dialer import Origin
from sidecar.wire.h1_server import ServerConnection, Warm
from sidecar.wire.message import Edits
from sidecar.wire.pool import UpstreamPool
from sidecar.wire.resolver import Resolver
from sidecar.wire.scheduling import MOST_TOGETHER
from sidecar.wire.stream import RequestHandler

_PART_OF_STRANGERS: Final = 8  # of the connections of peers: callers without a sidecar take no more from them
_UNREAD_OF_AGENT: Final = 64 * 1024  # on the same machine, where a large window gains nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Place of one worker among several: its ``number``, all inboxes, and the lock of their common sink.

    All make the workload handle of one ``own_secret``, and ids of sessions by one ``session_key``.
    """

    number: int
    inboxes: Sequence[Inbox]
    sink_lock: int
    own_secret: bytes = field(repr=False)
    session_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """Parts that both sides of one sidecar share."""

    source: IdentitySource
    snapshots: Snapshots
    log: AccessLog
    handles: Handles
    memory: MemoryLimits
    caches: dict[str, Callable[[], Bounded | None]]  # filled by the sides
    tasks: Tasks
    watch: Watch
    resolver: Resolver
    remote_handles: RemoteHandles | None  # None: no other worker listens at our addresses
    record_rate: RecordRate
    txn_source: TxnSource | None  # None: no transaction tokens
    pending_logins: PendingLogins
    session_ids: SessionIds
    task_bindings: TaskBindings
    http2: bool
    engine: Engine


def assemble(settings: SidecarSettings, *, place: Place | None = None) -> Server:
    """Make one sidecar, not yet running. Needs a running event loop."""
    sink = settings.records.open_sink()
    run, metrics = secrets.token_hex(8), Metrics()
    engine = metrics.engine = _engine(settings)
    log = AccessLog(
        sink if place is None else SharedSink(sink, place.sink_lock),
        run=run,
        metrics=metrics,
        spill_folder=settings.records.spill,
        link=None if engine == "python" else require_native().link,
        **(
            {}
            if settings.tracing is None
            else _traced(settings.tracing, run, metrics, lambda route: _server_of(snapshots, route))
        ),
    )
    source = source_of(settings.identity)
    keys = make_keys(settings, source, log)
    revocations = RevocationLists(
        [
            RevocationList(one, _list_channel(one, source, settings, log), lambda: snapshots.setup.keys)
            for one in settings.revocations
        ]
    )
    setup = make_setup(settings, keys, make_exchanges(settings, source, keys, log), log.metrics)
    snapshots = Snapshots(setup, revocations.in_force if settings.revocations else lambda _own: NOTHING)
    handles = _handles(settings, place, snapshots)
    shared = _Shared(
        source=source,
        snapshots=snapshots,
        log=log,
        handles=handles,
        memory=settings.memory,
        caches={HANDLES: lambda: handles, "issued": lambda: snapshots.setup.exchanges},
        tasks=Tasks(),
        watch=Watch(snapshots, source, wall=time.time, monotonic=time.monotonic, on_change=handles.suspect),
        resolver=_resolver(settings, log),
        remote_handles=None if place is None else _remote_handles(place, handles, source),
        record_rate=settings.records.unproven.share(1 if place is None else len(place.inboxes)),
        txn_source=None if settings.txn_tokens is None else settings.txn_tokens.source,
        pending_logins=PendingLogins(monotonic=time.monotonic),
        session_ids=SessionIds(secrets.token_bytes(KEY_BYTES) if place is None else place.session_key),
        task_bindings=TaskBindings(time.time),
        http2=settings.protocols.http2,
        engine=engine,
    )
    sides = []
    if settings.inbound is not None:
        sides.append(_inbound_side(settings.inbound, shared))
        if settings.inbound.plain is not None:
            sides.append(_plain_side(settings.inbound, settings.inbound.plain, shared))
    door = None
    if settings.outbound is not None:
        journeys, side = _outbound_side(settings.outbound, shared)
        if settings.door is not None:
            door, door_side = _door_side(settings.outbound, settings.door, journeys, shared)
            sides.append(door_side)
        sides.append(side)
    return Server(
        Parts(
            source=source,
            snapshots=snapshots,
            log=log,
            handles=handles,
            tasks=shared.tasks,
            watch=shared.watch,
            pools=tuple(pool for pool, _ in sides),
            listeners=tuple(listener for _, listener in sides),
            drain_s=settings.drain_s,
            engine=engine,
            memory=memory_of(settings.max_memory_mib, processes=1 if place is None else len(place.inboxes)),
            remote_handles=shared.remote_handles,
            addresses=tuple((listen.host, listen.port) for listen in settings.listens),
            agent=None if settings.inbound is None else AgentWatch(sides[0][0], lambda: snapshots.setup.agent),
            revocations=revocations,
            caches=Caches(shared.caches, clock=time.time, trim=Trim(requests=lambda: log.last_seq)),
            pending_logins=shared.pending_logins,
            countersigning=_countersigning(settings, source, snapshots, log),
            handle_delivery=_handle_delivery(settings, place, shared),
            door=door,
        )
    )


def _inbound_side(settings: InboundSettings, shared: _Shared) -> tuple[UpstreamPool, Listener]:
    """Make the side with peers in front and the agent behind."""
    pool = _pool("inbound", settings, shared)
    forwarder, edits = Forwarder(pool, FROM_AGENT, shared.watch, settings.limits), _edits_to_agent(settings, shared)
    journeys = Inbound(
        snapshots=shared.snapshots,
        log=shared.log,
        handles=shared.handles,
        forwarder=forwarder,
        tasks=shared.tasks,
        clock=time.time,
        memory=shared.memory,
        remote_handles=shared.remote_handles,
        edits=edits,
        session_ids=shared.session_ids,
        bindings=shared.task_bindings,
    )
    refused_connections = RefusedConnections(shared.log, "inbound", UnprovenRecords(shared.log, shared.record_rate))
    shared.caches["verdicts"] = lambda: journeys.verdicts
    shared.caches["permits"] = lambda: journeys.permits
    shared.caches["tasks"] = lambda: shared.task_bindings.tasks
    shared.caches["contexts"] = lambda: shared.task_bindings.contexts
    tls = server_context(shared.source, on_refused=refused_connections, alpn=ALPN_WITH_HTTP2 if shared.http2 else ALPN)
    warm = None
    if shared.engine == "native" and edits is to_agent and type(shared.handles) is Handles:
        from sidecar.proxy.warm_inbound import WarmInbound  # needs no memory where it is not used

        warm = WarmInbound(
            journeys.permits,
            snapshots=shared.snapshots,
            log=shared.log,
            handles=shared.handles,
            forwarder=forwarder,
            wall=time.time,
            limits=settings.limits,
            upstream_limits=settings.upstream_limits,
        ).begin
    listener = _listener(
        "inbound", settings, shared, refused_connections, handler=journeys, context=tls, http2=shared.http2, warm=warm
    )
    return pool, listener


def _engine(settings: SidecarSettings) -> Engine:
    """Return the engine of warm requests. Spans are made of whole records, which the native one does not make."""
    return "python" if settings.tracing is not None else engine_of(settings.engine)


def _edits_to_agent(settings: InboundSettings, shared: _Shared) -> Callable[..., Edits]:
    edits: Callable[..., Edits] = to_agent if settings.agent_key is None else AgentKey(settings.agent_key).edits
    if shared.txn_source is None or not settings.txn_token:
        return edits
    txn_tokens = InboundTxnTokens(
        shared.txn_source,
        snapshots=shared.snapshots,
        handles=shared.handles,
        tasks=shared.tasks,
        clock=time.time,
        edits=edits,
    )
    shared.caches["txn_tokens"] = lambda: txn_tokens.verified
    return txn_tokens.edits


def _plain_side(settings: InboundSettings, plain: PlainSettings, shared: _Shared) -> tuple[UpstreamPool, Listener]:
    """Make the side with callers without a sidecar in front and the agent behind. It has few connections."""
    pool = _pool("inbound", settings, shared)
    unproven = UnprovenRecords(shared.log, shared.record_rate)
    journeys = PlainInbound(
        snapshots=shared.snapshots,
        log=shared.log,
        forwarder=Forwarder(pool, FROM_AGENT, shared.watch, settings.limits),
        observing=Observing(
            handles=shared.handles, remote_handles=shared.remote_handles, tasks=shared.tasks, clock=time.time
        ),
        unproven=unproven,
        session_ids=shared.session_ids,
        bindings=shared.task_bindings,
        clock=time.time,
    )
    refused_connections = RefusedConnections(shared.log, "inbound", unproven)
    few = replace(settings.connections, max_connections=max(1, settings.connections.total // _PART_OF_STRANGERS))
    here = replace(settings, listen=plain.listen, connections=few)
    listener = _listener(
        "inbound",
        here,
        shared,
        refused_connections,
        handler=journeys,
        context=None,
        closes_at=float(plain.until),
        unproven=unproven,
    )
    return pool, listener


def _outbound_side(settings: OutboundSettings, shared: _Shared) -> tuple[Outbound, tuple[UpstreamPool, Listener]]:
    """Make the side with the agent in front and the next hops behind."""
    pool = _pool("outbound", settings, shared)
    forwarder = Forwarder(pool, FROM_NEXT_HOP, shared.watch, settings.limits)
    parts = _outbound_parts(settings, forwarder, shared)
    journeys = Outbound(**parts)
    refused_connections = RefusedConnections(shared.log, "outbound", UnprovenRecords(shared.log, shared.record_rate))
    shared.caches["logins"] = lambda: journeys.logins.judged
    shared.caches["plans"] = lambda: journeys.plans
    warm = None
    if shared.engine == "native" and parts["edits"] is to_next_hop:
        from sidecar.proxy.warm_outbound import WarmOutbound  # as above

        warm = WarmOutbound(
            journeys.plans,
            journeys.logins,
            snapshots=shared.snapshots,
            log=shared.log,
            handles=shared.handles,
            forwarder=forwarder,
            origins=parts["origins"],
            own_authorities=parts["own_authorities"],
            wall=time.time,
            limits=settings.limits,
            upstream_limits=settings.upstream_limits,
        ).begin
    listener = _listener(
        "outbound",
        settings,
        shared,
        refused_connections,
        handler=journeys,
        context=None,
        proxy_form=True,
        http2=shared.http2,
        warm=warm,
    )
    return journeys, (pool, listener)


def _outbound_parts(settings: OutboundSettings, forwarder: Forwarder, shared: _Shared) -> dict[str, Any]:
    return {
        "origins": Origins(shared.source, time.time, forwarder.pool.retire, http2=shared.http2),
        "federated": FederatedTokens(shared.source),
        "own_authorities": _own_authorities(settings.listen),
        "remote_handles": shared.remote_handles,
        "snapshots": shared.snapshots,
        "log": shared.log,
        "handles": shared.handles,
        "forwarder": forwarder,
        "tasks": shared.tasks,
        "clock": time.time,
        "memory": shared.memory,
        "edits": to_next_hop if shared.txn_source is None else OutboundTxnTokens(time.time).edits,
        "pending_logins": shared.pending_logins,
    }


def _door_side(
    outbound: OutboundSettings, settings: DoorSettings, journeys: Outbound, shared: _Shared
) -> tuple[PublicCertificate, tuple[UpstreamPool, Listener]]:
    """Make the side with people's own clients in front and tool servers of the mesh behind."""
    pool = _pool("outbound", outbound, shared)
    forwarder = Forwarder(pool, Edits(passes_from_door), shared.watch, settings.limits)
    unproven = UnprovenRecords(shared.log, shared.record_rate)
    refused_connections = RefusedConnections(shared.log, "outbound", unproven)
    certificate = PublicCertificate(settings.tls, on_refused=refused_connections)
    certificate.try_to_load()
    limits = settings.connections
    most = limits.max_connections or max(1, limits.total // _PART_OF_STRANGERS)
    listener = _listener(
        "outbound",
        replace(
            outbound,
            listen=settings.listen,
            connections=replace(limits, max_connections=most),
            limits=settings.limits,
        ),
        shared,
        refused_connections,
        handler=DoorCalls(
            journeys,
            unproven=unproven,
            session_ids=shared.session_ids,
            **_outbound_parts(outbound, forwarder, shared),
        ),
        context=certificate.context,
        unproven=unproven,
        door=True,
    )
    return certificate, (pool, listener)


def _pool(direction: Direction, settings: InboundSettings | OutboundSettings, shared: _Shared) -> UpstreamPool:
    pool = UpstreamPool(
        settings.upstream_limits,
        resolver=shared.resolver,
        counts=shared.log.metrics.upstream[direction],
        unread=_UNREAD_OF_AGENT if direction == "inbound" else None,
    )
    if shared.engine == "native":
        pool.connections.write_by(native_writes(MOST_TOGETHER))
    return pool


def _listener(
    direction: Direction,
    settings: InboundSettings | OutboundSettings,
    shared: _Shared,
    refused_connections: RefusedConnections,
    *,
    handler: RequestHandler,
    context: ssl.SSLContext | None,
    proxy_form: bool = False,
    closes_at: float = inf,
    unproven: UnprovenRecords | None = None,
    door: bool = False,
    http2: bool = False,
    warm: Warm | None = None,
) -> Listener:
    place = ListenerSettings(
        host=settings.listen.host,
        port=settings.listen.port,
        shared=shared.remote_handles is not None,
        **asdict(settings.connections),
    )
    listener = Listener(
        place,
        settings.limits,
        handler=handler,
        shed=ShedHandler(shared.log, direction, unproven),
        refused_connections=refused_connections,
        context=context,
        direction=direction,
        proxy_form=proxy_form,
        closes_at=closes_at,
        door=door,
        connection=_connections_of_both_versions() if http2 else ServerConnection,
        warm=warm,
    )
    if shared.engine == "native":
        listener.connections.write_by(native_writes(MOST_TOGETHER))
    return listener


def _connections_of_both_versions() -> type[ServerConnection]:
    """Only here is the library for HTTP/2 loaded for callers."""
    from sidecar.wire.h2_negotiation import VersionChoice

    return VersionChoice


def make_setup(settings: SidecarSettings, keys: IssuerKeys, exchanges: Exchanges, metrics: Metrics) -> Setup:
    """Make the part of a sidecar that a reload replaces."""
    metrics.declare_issuers(one.issuer for one in settings.keys)
    metrics.declare_routes("inbound", (route.name for route in settings.inbound_routes.routes))
    metrics.declare_routes("outbound", settings.outbound_routes.names)
    agent = None if settings.inbound is None else settings.inbound.agent
    by_grpc = None if settings.inbound is None else settings.inbound.agent_grpc
    plain = None if settings.inbound is None else settings.inbound.plain
    return Setup(
        make_policy=settings.policy,
        keys=keys,
        exchanges=exchanges,
        agent=None if agent is None else _agent(agent, settings.protocols),
        agent_grpc=None if by_grpc is None else _agent(by_grpc, ProtocolSettings(http2=True, agent="h2c")),
        needed_issuers=settings.needed_issuers,
        peer_trust_domains=settings.peer_trust_domains,
        listener_rule=settings.listener_rule,
        observe_until=settings.observe_until,
        plain_until=0 if plain is None else plain.until,
    )


def _agent(agent: Upstream, protocols: ProtocolSettings) -> Origin:
    if protocols.agent == "h2c":
        return Origin(agent.host, agent.port, key=(agent.host, agent.port, "h2c"), http2="prior")
    return Origin(agent.host, agent.port, key=(agent.host, agent.port))


def _server_of(snapshots: Snapshots, route: str) -> tuple[str, int] | None:
    current = snapshots.current
    return None if current is None else current.policy.outbound.server_of(route)


def _traced(
    settings: TracingSettings, run: str, metrics: Metrics, servers: Callable[[str], tuple[str, int] | None]
) -> dict[str, Any]:
    """Make what the record stream needs to export traces. Only here is OpenTelemetry imported."""
    from sidecar.observe.telemetry.entries import TracedEntry, TracedUnprovenEntry, Traces
    from sidecar.observe.telemetry.otlp import TelemetryExport

    traces, export = Traces(settings.ratio), TelemetryExport(settings, run, servers)
    metrics.telemetry = export.counts
    return {
        "entry": partial(TracedEntry, traces),
        "unproven_entry": partial(TracedUnprovenEntry, traces),
        "export": export,
    }


def make_keys(settings: SidecarSettings, source: IdentitySource, log: AccessLog) -> IssuerKeys:
    """Make the key sets of all issuers; nothing is fetched yet."""
    return IssuerKeys(settings.keys, source, on_fetched=log.metrics.jwks_updated)


def make_exchanges(settings: SidecarSettings, source: IdentitySource, keys: IssuerKeys, log: AccessLog) -> Exchanges:
    """Make the clients of all token services. Each caches its equal part of what may be cached."""
    resolver = _resolver(settings, log)
    max_bytes = settings.memory.max_issued_mib * MIB // max(1, len(settings.exchanges))
    warm_bytes = PREPARED_CALL_BYTES if _engine(settings) == "native" else 0
    txn = settings.txn_tokens

    def exchange(one: ExchangeSettings) -> TokenExchange:
        service = None
        if txn is not None and txn.endpoint is not None:
            service = TxnTokenService(txn, source, keys, time.time, resolver=resolver)
        return TokenExchange(
            one,
            source,
            keys,
            log,
            log.metrics,
            resolver=resolver,
            max_bytes=max_bytes,
            warm_bytes=warm_bytes,
            txn_service=service,
        )

    return Exchanges({one.issuer: exchange(one) for one in settings.exchanges})


def _list_channel(
    one: RevocationListSettings, source: IdentitySource, settings: SidecarSettings, log: AccessLog
) -> StsChannel:
    return StsChannel(
        one.endpoint, source, timeout_s=POLL_TIMEOUT_S, max_bytes=MAX_LIST_BYTES, resolver=_resolver(settings, log)
    )


def _countersigning(
    settings: SidecarSettings, source: IdentitySource, snapshots: Snapshots, log: AccessLog
) -> Countersigning | None:
    countersign = settings.records.countersign
    if countersign is None:
        return None
    channel = StsChannel(
        countersign.endpoint,
        source,
        timeout_s=TIMEOUT_S,
        max_bytes=MAX_ANSWER_BYTES,
        resolver=_resolver(settings, log),
    )
    countersigner = Countersigner(countersign.issuer, source, lambda: snapshots.setup.keys, channel)
    return Countersigning(log, countersigner.countersign, every_s=countersign.every_s, close=channel.close)


def _resolver(settings: SidecarSettings, log: AccessLog) -> Resolver:
    dns = None if settings.outbound is None else settings.outbound.dns
    return Resolver(dns, counts=log.metrics.name_lookups)


def _handles(settings: SidecarSettings, place: Place | None, snapshots: Snapshots) -> Handles:
    memory = settings.memory
    kind = OneSubject if settings.inbound is not None and settings.inbound.one_subject else Handles
    return kind(
        clock=time.time,
        monotonic=time.monotonic,
        max_bytes=memory.max_handles_mib * MIB,
        max_per_subject=memory.max_handles_per_subject,
        mark="" if place is None else MARKS[place.number],
        own=_workload_handle(settings, place),
        judge=lambda served: judge_served(served, snapshots.now(), int(time.time())),
    )


def _workload_handle(settings: SidecarSettings, place: Place | None) -> WorkloadHandle | None:
    own = settings.workload_handle
    if own is None:
        return None
    return WorkloadHandle(secrets.token_bytes(SECRET_BYTES) if place is None else place.own_secret, own.rotate_s)


def _handle_delivery(settings: SidecarSettings, place: Place | None, shared: _Shared) -> HandleDelivery | None:
    """Make the delivery of the workload handle. Of several workers the first delivers it: it is the same of all."""
    own, handle = settings.workload_handle, shared.handles.own
    if own is None or handle is None or (place is not None and place.number > 0):
        return None
    return HandleDelivery(handle, own, shared.log, shared.record_rate)


def _remote_handles(place: Place, handles: Handles, source: IdentitySource) -> RemoteHandles:
    proofs = Proofs()

    def prove(chain: tuple[bytes, ...], now: int) -> PeerGuard:
        return PeerGuard(source, chain, proofs, now=now)

    return RemoteHandles(handles, place.inboxes, place.number, prove=prove)


def _own_authorities(address: Address) -> frozenset[str]:
    """Return the names of our outbound listener itself, under which the agent chooses a target by prefix."""
    hosts = {str(address).rpartition(":")[0], "127.0.0.1", "localhost", "[::1]"}
    return frozenset(f"{host}:{address.port}" for host in hosts)
