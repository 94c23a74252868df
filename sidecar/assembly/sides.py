"""Makes the sides of a sidecar. A side has a listener for callers, journeys, and a pool of upstream connections."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from delegation_core.bounded import EMPTY, Bounded
from delegation_core.records.record import Direction
from sidecar.config.settings import Address, InboundSettings, OutboundSettings
from sidecar.engine import Engine, native_writes
from sidecar.features import Features
from sidecar.identity.generation import ALPN, ALPN_WITH_HTTP2
from sidecar.identity.source import IdentitySource
from sidecar.identity.tls import server_context
from sidecar.observe.access_log import AccessLog
from sidecar.observe.record_rate import RecordRate, UnprovenRecords
from sidecar.observe.refused_connections import RefusedConnections
from sidecar.proxy.journeys.forward import Forwarder
from sidecar.proxy.journeys.handles import Handles
from sidecar.proxy.journeys.headers import FROM_AGENT, FROM_NEXT_HOP, to_agent, to_next_hop
from sidecar.proxy.journeys.inbound import Inbound
from sidecar.proxy.journeys.journey import Tasks
from sidecar.proxy.journeys.origins import Origins
from sidecar.proxy.journeys.outbound import Outbound
from sidecar.proxy.journeys.snapshot import Snapshots
from sidecar.proxy.journeys.watch import Watch
from sidecar.proxy.listening.listener import Listener, ListenerSettings, ShedHandler
from sidecar.proxy.listening.memory_pressure import MemoryLimits
from sidecar.wire.h1_server import ServerConnection, Warm
from sidecar.wire.message import Edits
from sidecar.wire.pool import UpstreamPool
from sidecar.wire.resolver import Resolver
from sidecar.wire.scheduling import MOST_TOGETHER
from sidecar.wire.stream import RequestHandler

if TYPE_CHECKING:
    from delegation_core.txn_token import TxnSource
    from sidecar.exchange.federation.tokens import FederatedTokens
    from sidecar.proxy.journeys.remote_handles import RemoteHandles

_UNREAD_OF_AGENT: Final = 64 * 1024  # the agent is on the same machine, where a larger window gains nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Parts that the sides of one sidecar share."""

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
    features: Features
    http2: bool
    engine: Engine


class Side(NamedTuple):
    """One side: the listener for callers, and the pool of upstream connections."""

    pool: UpstreamPool
    listener: Listener


def inbound_side(settings: InboundSettings, shared: Shared) -> Side:
    """Make the side that serves peers and calls the agent."""
    pool = pool_of("inbound", settings, shared)
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
        features=shared.features,
    )
    refused_connections = RefusedConnections(shared.log, "inbound", UnprovenRecords(shared.log, shared.record_rate))
    shared.caches["verdicts"] = lambda: journeys.verdicts
    shared.caches["permits"] = lambda: journeys.permits
    for name in ("tasks", "contexts"):
        shared.caches[name] = partial(_bindings, shared.features, name)
    tls = server_context(shared.source, on_refused=refused_connections, alpn=ALPN_WITH_HTTP2 if shared.http2 else ALPN)
    native = shared.engine == "native" and edits is to_agent and type(shared.handles) is Handles
    warm: Warm | None = None
    if native:
        from sidecar.proxy.native.warm_inbound import WarmInbound  # here: costs memory

        warm = WarmInbound(journeys, limits=settings.limits, upstream_limits=settings.upstream_limits).begin
    listener = listener_of(
        "inbound", settings, shared, refused_connections, handler=journeys, context=tls, http2=shared.http2, warm=warm
    )
    return Side(pool, listener)


def _bindings(features: Features, name: str) -> Bounded:
    """Return A2A's bindings of ``tasks`` or ``contexts``; an empty cache if A2A is not in use."""
    a2a = features.used("a2a")
    found: Bounded = EMPTY if a2a is None else getattr(a2a.bindings, name)
    return found


def _edits_to_agent(settings: InboundSettings, shared: Shared) -> Callable[..., Edits]:
    edits: Callable[..., Edits] = to_agent
    if settings.agent_key is not None:
        from sidecar.features.outside.agent_key import AgentKey

        edits = AgentKey(settings.agent_key).edits
    if shared.txn_source is None or not settings.txn_token:
        return edits
    from sidecar.features.transaction_tokens.txn_tokens import InboundTxnTokens

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


def outbound_side(settings: OutboundSettings, shared: Shared) -> tuple[Outbound, Side]:
    """Make the side that serves the agent and calls next hops. Returns its journeys too, which the door shares."""
    pool = pool_of("outbound", settings, shared)
    forwarder = Forwarder(pool, FROM_NEXT_HOP, shared.watch, settings.limits)
    parts = outbound_parts(settings, forwarder, shared)
    journeys = Outbound(**parts)
    refused_connections = RefusedConnections(shared.log, "outbound", UnprovenRecords(shared.log, shared.record_rate))
    shared.caches["logins"] = lambda: journeys.features["logins"].judged if "logins" in journeys.features else EMPTY
    shared.caches["plans"] = lambda: journeys.plans
    native = shared.engine == "native" and parts["edits"] is to_next_hop
    warm: Warm | None = None
    if native:
        from sidecar.proxy.native.warm_outbound import WarmOutbound

        warm = WarmOutbound(journeys, limits=settings.limits, upstream_limits=settings.upstream_limits).begin
    listener = listener_of(
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
    return journeys, Side(pool, listener)


def outbound_parts(settings: OutboundSettings, forwarder: Forwarder, shared: Shared) -> dict[str, Any]:
    """Return the arguments of ``Outbound``, for a side that calls next hops."""
    return {
        "origins": Origins(shared.source, time.time, forwarder.pool.retire, http2=shared.http2),
        "federated": partial(_make_federated, shared.source),
        "own_authorities": _own_authorities(settings.listen),
        "remote_handles": shared.remote_handles,
        "snapshots": shared.snapshots,
        "log": shared.log,
        "handles": shared.handles,
        "forwarder": forwarder,
        "tasks": shared.tasks,
        "clock": time.time,
        "memory": shared.memory,
        "edits": to_next_hop if shared.txn_source is None else _edits_with_txn_tokens(),
        "features": shared.features,
    }


def _edits_with_txn_tokens() -> Callable[..., Edits]:
    from sidecar.features.transaction_tokens.txn_tokens import OutboundTxnTokens

    return OutboundTxnTokens(time.time).edits


def _make_federated(source: IdentitySource) -> FederatedTokens:
    from sidecar.exchange.federation.tokens import FederatedTokens

    return FederatedTokens(source)


def _own_authorities(address: Address) -> frozenset[str]:
    """Return the Host values of the outbound listener, with which the agent selects a target by its path prefix."""
    hosts = {str(address).rpartition(":")[0], "127.0.0.1", "localhost", "[::1]"}
    return frozenset(f"{host}:{address.port}" for host in hosts)


def pool_of(direction: Direction, settings: InboundSettings | OutboundSettings, shared: Shared) -> UpstreamPool:
    """Return the pool of a side's upstream connections."""
    pool = UpstreamPool(
        settings.upstream_limits,
        resolver=shared.resolver,
        counts=shared.log.metrics.upstream[direction],
        unread=_UNREAD_OF_AGENT if direction == "inbound" else None,
    )
    if shared.engine == "native":
        pool.connections.write_by(native_writes(MOST_TOGETHER))
    return pool


def listener_of(
    direction: Direction,
    settings: InboundSettings | OutboundSettings,
    shared: Shared,
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
    """Return the listener of a side. Arguments as for ``Listener``; ``unproven`` as for ``ShedHandler``."""
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
    """Return the class of connections that negotiate HTTP/1.1 or HTTP/2. The library for HTTP/2 is loaded only here."""
    from sidecar.wire.h2_negotiation import VersionChoice

    return VersionChoice
