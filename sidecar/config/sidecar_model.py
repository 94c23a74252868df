"""Schema of a sidecar's settings file: sections, keys and meanings. ``sidecar_checks`` has the cross-section checks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from delegation_core.errors import Problem
from sidecar.config.exchange_model import ExchangeSection
from sidecar.config.field_types import FileText, Line, PathText, Reserved, RouteName, Seconds, SpiffeIdText
from sidecar.config.inbound_model import InboundRouteSection, InboundSection
from sidecar.config.limits import MemorySection
from sidecar.config.outbound_model import (
    AnyOutboundSection,
    OutboundRouteSection,
    OutboundSection,
)
from sidecar.config.sections import (
    ONE,
    SEVERAL,
    AdminSection,
    IdentitySection,
    IssuerSection,
    ProbeSection,
    RecordsSection,
    Section,
    one_or_several,
)
from sidecar.config.tracing_model import TracingSection
from sidecar.engine import EngineChoice
from sidecar.features.logins.settings import EntrySection
from sidecar.features.outside.settings import (
    AnyOutsideSection,
    ConnectRouteSection,
    FederateRouteSection,
    OutsideSection,
)
from sidecar.features.transaction_tokens.settings import TxnTokensSection


class WorkloadHandleSection(Section):
    """The handle by which the agent acts for itself, outside of any request. It opens only what is listed."""

    may_call: list[RouteName] = Field(description="the outbound routes that it opens; none of kind `exchange`")
    socket: FileText | None = Field(
        default=None,
        description="Unix socket that answers `agent_uids` with one JSON line, `handle` and `expires_in`",
    )
    agent_uids: list[Annotated[int, Field(ge=0, le=4_294_967_294)]] = Field(
        default=[], description="the agent's user ids; the kernel tells which user connects to the socket"
    )
    file: FileText | None = Field(
        default=None,
        description="file that holds the handle, mode 0640, in a directory that only this agent can read too",
    )
    rotate_s: Annotated[int, Field(ge=10, le=300)] = Field(
        default=300, description="time until the next handle; the one before is valid for 30 s more"
    )


class SidecarProbeSection(ProbeSection):
    """The listener of ``/metrics``, ``/livez`` and ``/readyz``, and of probes that are forwarded to the agent."""

    agent: list[PathText] = Field(
        default=[],
        max_length=8,
        description="paths of the agent that a kubelet may probe: GET, no query; only the status is returned",
    )


class DenySection(Section):
    """One thing to refuse during an incident: exactly one of subject, actor, jti, txn."""

    subject: Line | None = Field(default=None, description="calls for this subject")
    issuer: Line | None = Field(default=None, description="only that issuer's subject; if not set, any issuer's")
    actor: SpiffeIdText | None = Field(default=None, description="calls of this workload")
    jti: Line | None = Field(default=None, description="one token, by its ID")
    txn: Line | None = Field(default=None, description="one chain, by its transaction ID")
    note: Line | None = Field(default=None, description="the reason, for people")


class ProtocolsSection(Section):
    """Versions of HTTP besides HTTP/1.1 ([page](http2.md))."""

    http2: bool = Field(
        default=False,
        description="let callers speak HTTP/2: peers by ALPN, the agent by prior knowledge (h2c)",
    )
    agent: Literal["http/1.1", "h2c"] = Field(
        default="http/1.1",
        description=(
            "the version by which the agent is called; `h2c` for an agent that serves HTTP/2 only, as gRPC servers do"
        ),
    )


class SidecarFile(Section):
    """Settings of one sidecar."""

    includable: ClassVar[frozenset[str]] = frozenset({"deny"})

    version: Literal[1] = Field(default=1, description="version of the file format; an unknown number is refused")
    identity: IdentitySection = Field(
        default=IdentitySection(), description="source of our own SVID and of the trust bundles"
    )
    issuers: list[IssuerSection] = Field(default=[], description="issuers whose delegated tokens are accepted")
    inbound: InboundSection | None = Field(
        default=None, description="calls that peers may make; without it no peer is served"
    )
    outbound: OutboundSection | None = Field(
        default=None, description="calls that the agent may make; without it the agent can call nothing"
    )
    exchange: (
        Annotated[
            Annotated[ExchangeSection, Tag(ONE)] | Annotated[list[ExchangeSection], Tag(SEVERAL)],
            Discriminator(one_or_several),
        ]
        | None
    ) = Field(default=None, description="the token service that issues tokens for outbound calls; several in a list")
    entry: EntrySection | None = Field(
        default=None, description="only for a workload where users log in: it may start a delegation chain"
    )
    txn_tokens: TxnTokensSection | None = Field(
        default=None,
        description="the service of transaction tokens, which travel beside access tokens and decide nothing",
    )
    workload_handle: WorkloadHandleSection | None = Field(
        default=None, description="only for an agent that acts for itself too: at its start, on a schedule"
    )
    records: RecordsSection = Field(default=RecordsSection(), description="destination of the records")
    tracing: TracingSection | None = Field(
        default=None, description="the OpenTelemetry collector that gets spans; without it there are none"
    )
    deny: list[DenySection] = Field(
        default=[],
        description="subjects, workloads and tokens to refuse during an incident; takes effect at the reload",
    )
    include: list[Line] = Field(
        default=[],
        description=(
            "files, or folders of `*.yaml` files, below the folder of this file, with more of `deny` "
            "([page](sts.md#many-agents))"
        ),
    )
    deny_file: FileText | None = Field(
        default=None,
        description=(
            'more rows of `deny`, in a JSON file `{"deny": [rows]}`: the running process reads it itself, within two '
            "seconds of a change and without a reload; at most 10,000 rows and 4 MiB. A file that cannot be used "
            "changes nothing; before the first usable file no call is served ([page](runbook.md#the-deny-file))"
        ),
    )
    probe: SidecarProbeSection = Field(
        default=SidecarProbeSection(listen="127.0.0.1:7090", agent=[]),
        description="the listener of metrics and health checks",
    )
    admin: AdminSection = Field(default=AdminSection(), description="the socket of `sidecar status`")
    protocols: ProtocolsSection = Field(
        default=ProtocolsSection(), description="versions of HTTP besides HTTP/1.1; none unless set"
    )
    drain_s: Seconds = Field(default=20.0, description="time for requests to finish after SIGTERM")
    engine: EngineChoice = Field(
        default="auto",
        description=(
            "the engine of warm requests, whose token was verified before: `native` needs the wheel "
            "`delegation-sidecar-native`, which serves most of them for about half the CPU and decides nothing; `auto` "
            "is `native` if that wheel is installed, else `python`"
        ),
    )
    memory: MemorySection = Field(default=MemorySection(), description="limits of the caches of each process")
    max_memory_mib: int | None = Field(
        default=None,
        ge=64,
        le=1_048_576,
        description=(
            "memory limit of all its processes together; if not set, the limit of their cgroup (the "
            "container's). Above 80 % of it no new connection is accepted, until use is below 70 %"
        ),
    )
    # not available yet
    platform: Reserved = None
    workers: Reserved = None

    def exchange_sections(self) -> list[tuple[str, ExchangeSection]]:
        """Return the sections of token services, each with its field."""
        if isinstance(self.exchange, list):
            return [(f"exchange[{number}]", one) for number, one in enumerate(self.exchange)]
        return [] if self.exchange is None else [("exchange", self.exchange)]

    def inbound_routes(self) -> list[tuple[str, InboundRouteSection]]:
        """Return the inbound routes, each with its field."""
        routes = self.inbound.routes if self.inbound is not None else []
        return [(f"inbound.routes[{number}]", route) for number, route in enumerate(routes)]

    def outbound_routes(self) -> list[tuple[str, AnyOutboundSection]]:
        """Return the outbound routes of every kind, each with its field."""
        routes = self.outbound.routes if self.outbound is not None else []
        return [(f"outbound.routes[{number}]", route) for number, route in enumerate(routes)]

    def mesh_routes(self) -> list[tuple[str, OutboundRouteSection]]:
        """Return the routes into the mesh, each with its field."""
        return [(field, route) for field, route in self.outbound_routes() if isinstance(route, OutboundRouteSection)]

    def outside_routes(self) -> list[tuple[str, AnyOutsideSection]]:
        """Return the routes to hosts outside the mesh, each with its field."""
        return [(field, route) for field, route in self.outbound_routes() if isinstance(route, OutsideSection)]

    def federate_routes(self) -> list[tuple[str, FederateRouteSection]]:
        """Return the routes outside whose key a provider issues, each with its field."""
        return [(field, route) for field, route in self.outbound_routes() if isinstance(route, FederateRouteSection)]

    def tunnel_routes(self) -> list[tuple[str, ConnectRouteSection]]:
        """Return the routes of tunnels, each with its field."""
        return [(field, route) for field, route in self.outbound_routes() if isinstance(route, ConnectRouteSection)]

    def unknown_routes(self, names: Iterable[str], where: str) -> Iterator[Problem]:
        """Report the names in a ``may_call`` that no outbound route has."""
        known = {route.name for _, route in self.outbound_routes()}
        for name in names:
            if name not in known:
                yield Problem(where, f"{name} is not an outbound route", "add the route, or remove the name")

    def issuer_of(self, route: OutboundRouteSection) -> str | None:
        """Return the issuer whose token service a route uses: the one that it names, else the only one, else None."""
        issuers = {section.issuer for _, section in self.exchange_sections()}
        if route.exchange is not None:
            return route.exchange if route.exchange in issuers else None
        return next(iter(issuers)) if len(issuers) == 1 else None
