"""The shape of a sidecar's settings file: sections and keys. What must agree with what is in ``sidecar_file``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from sidecar.config.sections import (
    AdminSection,
    IdentitySection,
    IssuerSection,
    ProbeSection,
    RecordsSection,
    Section,
    TlsSection,
    UserIssuerSection,
    limits_section,
)
from sidecar.config.words import (
    AddressText,
    Line,
    MethodText,
    OriginText,
    PathText,
    PrefixText,
    RouteName,
    ScopeText,
    Seconds,
    SpiffeIdText,
    UrlText,
)
from sidecar.proxy.admission import ConnectionLimits
from sidecar.proxy.memory import MemoryLimits
from sidecar.wire.h1_client import ClientLimits
from sidecar.wire.h1_server import ServerLimits
from sidecar.wire.resolver import ResolverSettings

if TYPE_CHECKING:
    ConnectionLimitsSection: TypeAlias = Section
    ServerLimitsSection: TypeAlias = Section
    ClientLimitsSection: TypeAlias = Section
    DnsSection: TypeAlias = Section
    MemorySection: TypeAlias = Section
else:  # made of the wire's own settings, so that a limit added there is a setting here
    ConnectionLimitsSection = limits_section("ConnectionLimitsSection", ConnectionLimits)
    ServerLimitsSection = limits_section("ServerLimitsSection", ServerLimits)
    ClientLimitsSection = limits_section("ClientLimitsSection", ClientLimits)
    DnsSection = limits_section("DnsSection", ResolverSettings)
    MemorySection = limits_section("MemorySection", MemoryLimits)


class InboundMatch(Section):
    """A path, exact, or the start of one by whole segments; methods are listed, HEAD too."""

    path: PathText | None = None
    path_prefix: PrefixText | None = None
    methods: list[MethodText] = Field(min_length=1)


class InboundRouteSection(Section):
    """One call that peers may make of the agent. Empty lists mean nobody and nothing."""

    name: RouteName
    match: InboundMatch
    scopes: list[ScopeText]
    peers: list[SpiffeIdText]
    issuers: list[Line] | None = None
    may_call: list[RouteName] = Field([])
    protocol: Literal["http"] = "http"
    allow_self: bool = False
    pass_token: bool = False
    forwarded: bool = False
    linger_s: float = Field(0.0, ge=0, le=86_400)
    max_calls: int = Field(64, ge=0, le=1_000_000)


class InboundSection(Section):
    """Towards the agent: mTLS from peers in, plain HTTP to the agent on loopback."""

    listen: AddressText = "0.0.0.0:7443"  # open to everybody, who then needs mTLS
    agent: OriginText
    audiences: list[Line] = Field([])
    routes: list[InboundRouteSection]
    network: Literal["auto", "pod", "host"] = "auto"
    other_listeners: list[Annotated[int, Field(ge=1, le=65535)]] = Field([])
    connections: ConnectionLimitsSection = ConnectionLimitsSection()
    limits: ServerLimitsSection = ServerLimitsSection()
    upstream_limits: ClientLimitsSection = ClientLimitsSection()


class OutboundMatch(Section):
    """A target by its host (proxy form, or the Host header), or by a prefix of the path on our own listener."""

    host: Line | None = None
    prefix: PrefixText | None = None


class OutboundRouteSection(Section):
    """One target that the agent may call. ``scopes`` is the most that may be asked for there."""

    name: RouteName
    match: OutboundMatch
    upstream: OriginText
    peer: SpiffeIdText | None = None
    audience: Line
    scopes: list[ScopeText]
    token: Literal["exchange"] = "exchange"  # noqa: S105 - a kind, no secret
    protocol: Literal["http"] = "http"


class OutboundConnectionsSection(Section):
    """How many connections of the agent at once; None: what the process's descriptors allow, 8192 at most."""

    max_connections: Annotated[int, Field(gt=0)] | None = None
    idle_s: Annotated[float, Field(gt=0)] = 1.0


class OutboundSection(Section):
    """From the agent: plain HTTP on loopback in, mTLS with a token for exactly that target out."""

    listen: AddressText = "127.0.0.1:7080"
    routes: list[OutboundRouteSection]
    connections: OutboundConnectionsSection = OutboundConnectionsSection()
    limits: ServerLimitsSection = ServerLimitsSection()
    upstream_limits: ClientLimitsSection = ClientLimitsSection()
    dns: DnsSection = DnsSection()


class ExchangeSection(Section):
    """The token service that is asked for outbound tokens. ``token_endpoint`` is ``{issuer}/token`` if not given."""

    issuer: Line
    token_endpoint: UrlText | None = None
    peer: SpiffeIdText | None = None
    tls: TlsSection | None = None
    adapter: Literal["rfc8693"] = "rfc8693"
    client_auth: Literal["x509-svid"] = "x509-svid"
    timeout_s: Seconds = 2.0
    max_response_bytes: int = Field(65536, ge=1024, le=1_048_576)
    retries: int = Field(1, ge=0, le=3)


class EntryIssuerSection(UserIssuerSection):
    """A user issuer, and the OAuth client this workload is registered as there."""

    client_id: Line


class EntrySection(Section):
    """Only for workloads where users log in: a chain starts here and nowhere else."""

    issuers: list[EntryIssuerSection] = Field(min_length=1)
    may_call: list[RouteName]
    delegation_life_s: int | None = Field(None, ge=1, le=86_400)


class SidecarProbeSection(ProbeSection):
    """The listener of ``/metrics``, ``/livez`` and ``/readyz``, and of probes that are passed on to the agent."""

    agent: list[PathText] = Field([], max_length=8)


class DenySection(Section):
    """One thing to refuse during an incident: exactly one of subject, actor, jti, txn."""

    subject: Line | None = None
    issuer: Line | None = None
    actor: SpiffeIdText | None = None
    jti: Line | None = None
    txn: Line | None = None
    note: Line | None = None


class SidecarFile(Section):
    """Settings of one sidecar."""

    version: Literal[1] = 1
    identity: IdentitySection = IdentitySection()
    issuers: list[IssuerSection] = Field([])
    inbound: InboundSection | None = None
    outbound: OutboundSection | None = None
    exchange: ExchangeSection | None = None
    entry: EntrySection | None = None
    records: RecordsSection = RecordsSection()
    deny: list[DenySection] = Field([])
    probe: SidecarProbeSection = SidecarProbeSection(listen="127.0.0.1:7090", agent=[])
    admin: AdminSection = AdminSection()
    drain_s: Seconds = 20.0
    memory: MemorySection = MemorySection()
    max_memory_mib: int | None = Field(None, ge=64, le=1_048_576)
