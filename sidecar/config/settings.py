"""Settings of a sidecar, validated and frozen: each part in the type of the room that uses it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from delegation_core.errors import Problem
from delegation_core.inbound_routes import InboundRoutes
from delegation_core.outbound_routes import CallRoute, OutboundRoutes
from delegation_core.policy import Deny, Entry, Policy
from delegation_core.profile import TrustedIssuer
from delegation_core.records.record import Direction
from delegation_core.route import Upstream
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.config.record_settings import RecordSettings
from sidecar.engine import EngineChoice
from sidecar.exchange.sts import ExchangeSettings
from sidecar.identity.endpoint import is_loopback
from sidecar.identity.issuer import JwksSettings
from sidecar.identity.source_factory import IdentitySettings
from sidecar.proxy.listening.connection_limits import ConnectionLimits
from sidecar.proxy.listening.memory_pressure import MemoryLimits
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.resolver import ResolverSettings

if TYPE_CHECKING:
    from sidecar.exchange.revocations import RevocationListSettings
    from sidecar.exchange.txn_service import TxnTokenSettings
    from sidecar.features.outside.agent_key import AgentKeySettings
    from sidecar.identity.public_tls import PublicTlsSettings
    from sidecar.observe.agent_probes import AgentProbes
    from sidecar.observe.telemetry.settings import TracingSettings
    from sidecar.proxy.journeys.bypass import ListenerRule
    from sidecar.proxy.journeys.handle_delivery import WorkloadHandleSettings

_ANY_AGENT: Final = Upstream(scheme="http", host="", port=0)


@dataclass(frozen=True, slots=True)
class Address:
    """Address to listen at: a host name or address (IPv6 without brackets), and a port, 0 for any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """True for an address that only this machine (this pod) can reach."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainSettings:
    """The listener for callers without a sidecar. It closes at ``until`` (seconds since the epoch)."""

    listen: Address
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundSettings:
    """The listener towards the mesh, and the agent behind it."""

    listen: Address
    agent: Upstream
    connections: ConnectionLimits
    limits: ServerLimits
    upstream_limits: ClientLimits
    one_subject: bool = False
    plain: PlainSettings | None = None
    agent_key: AgentKeySettings | None = None
    txn_token: bool = False
    agent_grpc: Upstream | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundSettings:
    """The listener towards the agent."""

    listen: Address
    connections: ConnectionLimits
    limits: ServerLimits
    upstream_limits: ClientLimits
    dns: ResolverSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorSettings:
    """Listener of a door. Its policy is ``Entry.door``."""

    listen: Address
    tls: PublicTlsSettings
    connections: ConnectionLimits
    limits: ServerLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolSettings:
    """Versions of HTTP. ``http2``: callers may choose HTTP/2. ``agent``: the version for calls to the agent."""

    http2: bool = False
    agent: Literal["http/1.1", "h2c"] = "http/1.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarSettings:
    """All settings of one sidecar. ``keys`` are the key sets of all issuers, user issuers included.

    ``exchanges`` are the token services, one of an issuer. ``needed_issuers`` are those that a route or a token service
    names; the sidecar is not ready without their keys. ``own_may_call`` are the routes that the workload handle opens.
    """

    identity: IdentitySettings
    keys: tuple[JwksSettings, ...]
    needed_issuers: frozenset[str]
    issuers: Mapping[str, TrustedIssuer]
    audiences: frozenset[str]
    inbound: InboundSettings | None
    outbound: OutboundSettings | None
    inbound_routes: InboundRoutes
    outbound_routes: OutboundRoutes
    exchanges: tuple[ExchangeSettings, ...]
    entry: Entry | None
    deny: Deny
    records: RecordSettings
    revocations: tuple[RevocationListSettings, ...]
    probe: Address
    agent_probes: tuple[str, ...]
    drain_s: float
    engine: EngineChoice = "auto"
    door: DoorSettings | None = None
    txn_tokens: TxnTokenSettings | None = None
    tracing: TracingSettings | None = None
    included: tuple[tuple[Path, Hashable], ...] = ()  # each path that is included, with its fingerprint
    used: Mapping[str, int] = field(default_factory=dict)  # counts by the name of their bound
    max_memory_mib: int | None = None
    memory: MemoryLimits = field(default_factory=MemoryLimits)
    admin_socket: Path | None = None
    deny_file: Path | None = None
    listener_rule: ListenerRule | None = None
    workload_handle: WorkloadHandleSettings | None = None
    own_may_call: frozenset[str] = frozenset()
    platform_issuers: frozenset[str] = frozenset()
    protocols: ProtocolSettings = field(default_factory=ProtocolSettings)

    @property
    def listens(self) -> tuple[Address, ...]:
        """Every address that this process listens on; port 0 lets the system choose."""
        sides = (self.inbound, self.outbound, None if self.inbound is None else self.inbound.plain, self.door)
        return (self.probe, *(side.listen for side in sides if side is not None))

    @property
    def peer_trust_domains(self) -> frozenset[TrustDomain]:
        """Trust domains of the workloads that may call or be called: their bundles are needed to verify them."""
        peers: set[SpiffeId | None] = set()
        peers.update(*(route.peers for route in self.inbound_routes.routes))
        peers.update(route.peer for route in self.outbound_routes.routes)
        peers.update(keys.peer for keys in self.keys)
        peers.update(exchange.peer for exchange in self.exchanges)
        peers.update(*((other.endpoint.peer for other in one.endpoints.values()) for one in self.exchanges))
        peers.update(one.endpoint.peer for one in self.revocations)
        peers.add(None if self.records.countersign is None else self.records.countersign.endpoint.peer)
        return frozenset(peer.trust_domain for peer in peers if peer is not None)

    @property
    def observe_until(self) -> dict[tuple[Direction, str], int]:
        """The end of each route that only observes, in seconds since the epoch."""
        outbound: tuple[CallRoute, ...] = (*self.outbound_routes.routes, *self.outbound_routes.outside)
        ends: dict[tuple[Direction, str], int] = {
            **{("inbound", route.name): route.observe_until for route in self.inbound_routes.routes},
            **{("outbound", route.name): route.observe_until for route in outbound},
        }
        return {route: end for route, end in ends.items() if end}

    def needs_restart(self, fresh: SidecarSettings) -> list[Problem]:
        """Return a problem for each change in ``fresh`` that needs a restart.

        Policy, issuers, exchange, entry, the agent's address and removing ``plain`` take effect without one.
        """
        here, there = _listening(self.inbound), _listening(fresh.inbound)
        if here is not None and there is not None and there.plain is None:
            here = replace(here, plain=None)
        kept = {
            "identity": (self.identity, fresh.identity),
            "inbound": (here, there),
            "outbound": (self.outbound, fresh.outbound),
            "entry.door": (self.door, fresh.door),
            "records": (self.records, fresh.records),
            "issuers.revocations": (self.revocations, fresh.revocations),
            "txn_tokens": (self.txn_tokens, fresh.txn_tokens),
            "tracing": (self.tracing, fresh.tracing),
            "probe": ((self.probe, self._probed), (fresh.probe, fresh._probed)),
            "admin": (self.admin_socket, fresh.admin_socket),
            "workload_handle": (self.workload_handle, fresh.workload_handle),
            "drain_s": (self.drain_s, fresh.drain_s),
            "protocols": (self.protocols, fresh.protocols),
            "engine": (self.engine, fresh.engine),
            "inbound.routes.a2a.tasks": (self._strict_tasks or not fresh._strict_tasks, True),
            "memory": (self.memory, fresh.memory),
            "max_memory_mib": (self.max_memory_mib, fresh.max_memory_mib),
        }
        fields = [field for field, (old, new) in kept.items() if old != new]
        return [Problem(field, "cannot change while the sidecar runs", "restart it") for field in fields]

    @property
    def _strict_tasks(self) -> bool:
        """True if a route refuses unknown tasks. Only the start checks it against the number of processes."""
        return any(route.a2a.strict_tasks for route in self.inbound_routes.routes)

    @property
    def _probed(self) -> tuple[object, ...]:
        """Address and paths of the agent's probes, which need a restart: the probe listener keeps the old ones."""
        return () if self.inbound is None or not self.agent_probes else (self.inbound.agent, *self.agent_probes)

    def agent_probe(self) -> AgentProbes | None:
        """Make the prober of the agent; None without an agent or probes."""
        if self.inbound is None or not self.agent_probes:
            return None
        from sidecar.observe.agent_probes import AgentProbes

        return AgentProbes(self.inbound.agent.host, self.inbound.agent.port, self.agent_probes)

    def policy(self, workload: SpiffeId, number: int) -> Policy:
        """Make the policy for decisions of ``workload``; ``number`` identifies this version of it."""
        return Policy(
            workload=workload,
            audiences=self.audiences | {str(workload)},
            issuers=self.issuers,
            token_services=frozenset(exchange.issuer for exchange in self.exchanges),
            inbound=self.inbound_routes,
            outbound=self.outbound_routes,
            entry=self.entry,
            deny=self.deny,
            number=number,
            own_may_call=self.own_may_call,
            platform_issuers=self.platform_issuers,
        )


def _listening(inbound: InboundSettings | None) -> InboundSettings | None:
    """Return the inbound side with the agent's addresses blanked, for comparison."""
    return None if inbound is None else replace(inbound, agent=_ANY_AGENT, agent_grpc=None)
