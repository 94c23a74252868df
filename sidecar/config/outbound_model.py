"""Schema of a sidecar's outbound side: one section for each kind of route, told apart by ``token``."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from sidecar.config.federate_model import AnyFederateSection
from sidecar.config.field_types import (
    AddressText,
    Day,
    DeadlineField,
    FileText,
    KeyField,
    KeyScheme,
    Line,
    MethodText,
    OriginText,
    PathText,
    PrefixText,
    Protocol,
    RequestField,
    Reserved,
    RouteName,
    ScopeText,
    SpiffeIdText,
    StreamField,
    TokenWay,
    TunnelText,
)
from sidecar.config.limits import ClientLimitsSection, DnsSection, ServerLimitsSection
from sidecar.config.operation_model import A2aSection, MessageBytes, OutboundOperations
from sidecar.config.sections import RECORDS_WHEN, CrossingSection, RecordsWhen, Section


class OutboundMatch(Section):
    """A target by its host (proxy form, or the Host header), or by a prefix of the path on our own listener."""

    host: Line | None = Field(default=None, description="the target's host, in proxy form or the Host header")
    prefix: PrefixText | None = Field(
        default=None, description="the start of the path, removed before the call is passed on"
    )


class OutboundRouteSection(Section):
    """One target that the agent may call, with the most scopes to ask for there."""

    name: RouteName = Field(description="name in records, metrics and `may_call`")
    match: OutboundMatch = Field(description="the requests that it applies to")
    upstream: OriginText = Field(description="address of the next hop")
    peer: SpiffeIdText | None = Field(default=None, description="SPIFFE ID of the workload that must answer there")
    audience: Line = Field(description="audience of the token")
    scopes: list[ScopeText] = Field(description="the most scopes to ask for")
    token: TokenWay = Field(
        default="exchange",
        description=(
            "`exchange`: for the request that the agent serves; `self`: for the agent itself, which shows the workload "
            "handle; `login`: for a user who agrees at the token service ([front apps](front-apps.md))"
        ),
    )
    first_token_life_s: int | None = Field(
        default=None,
        ge=1,
        le=86_400,
        description=(
            "at an entry: replaces `entry.first_token_life_s` for chains that start here, for agents that work longer; "
            "the same as the token service's `long_runs`"
        ),
    )
    exchange: Line | None = Field(
        default=None, description="issuer whose token service issues the token; needed if there are several"
    )
    crossings: list[CrossingSection] = Field(
        default=[], description="other issuers whose tokens may be exchanged for those of this route's"
    )
    txn_token: bool = Field(
        default=False,
        description=(
            "send the transaction token of the chain along, in `Txn-Token`; where the chain begins, ask for one. Needs "
            "`txn_tokens`"
        ),
    )
    protocol: Protocol = Field(
        default="http",
        description=(
            "protocol of the requests: with `mcp` and `a2a` the operation of each is read from its message, with "
            "`grpc` from its path"
        ),
    )
    operations: list[OutboundOperations] = Field(
        default=[], description="the operations of that protocol that the agent may ask for; if not set, all"
    )
    max_message_bytes: MessageBytes | None = Field(
        default=None, description="the longest message of that protocol; if not set, 1 MiB"
    )
    a2a: A2aSection | None = Field(
        default=None, description="with `protocol: a2a`: rules for agent cards and notifications"
    )
    http_version: Literal["same", "1.1", "2"] = Field(
        default="same",
        description=(
            "version of HTTP that is offered to the next hop: `same` is the agent's, `2` offers HTTP/2 for all calls; "
            "a next hop that does not speak it is called by HTTP/1.1"
        ),
    )
    stream: StreamField = False
    deadline_s: DeadlineField = None
    allow_self: bool = Field(
        default=False,
        description=(
            "with `mcp`: the workload handle opens the route too, to open, keep and end a session, and for lists that "
            "say so"
        ),
    )
    records: RecordsWhen = Field(default="after_answer", description=RECORDS_WHEN)
    observe_until: Day | None = Field(
        default=None,
        description=(
            "until 00:00 UTC of this day a call without a handle goes to the peer with the agent's own credential, "
            "recorded as `observed_deny`; at most 30 days from now"
        ),
    )


class OutsideSection(Section):
    """A host outside the mesh that the agent may call: these methods, these paths, and nobody else's certificate."""

    name: RouteName = Field(description="name in records, metrics and `may_call`")
    match: OutboundMatch = Field(description="the requests that it applies to")
    upstream: OriginText = Field(description="address of the host, https")
    ca: FileText | None = Field(
        default=None,
        description="PEM file of the authorities that certify the host; if not set, the system's public ones",
    )
    methods: list[MethodText] = Field(min_length=1, description="the methods, each by name")
    paths: list[PathText] = Field(default=[], description="whole paths at the host")
    path_prefixes: list[PrefixText] = Field(default=[], description="starts of paths, by whole segments")
    stream: StreamField = False
    deadline_s: DeadlineField = None
    records: RecordsWhen = Field(default="after_answer", description=RECORDS_WHEN)


class KeyedSection(OutsideSection):
    """A host outside the mesh that is called with the sidecar's key, and with listed request fields of the agent."""

    fields: list[RequestField] = Field(
        default=[],
        description=(
            "further request fields of the agent that are sent with the key, such as `anthropic-beta`; the agent then "
            "controls what they do, such as choosing who is billed"
        ),
    )


class InjectSection(Section):
    """A static key that the sidecar puts on calls; the agent never sees it."""

    file: FileText = Field(description="the file that holds the key alone; read again when it changes")
    preset: Literal["openai", "anthropic", "github"] | None = Field(
        default=None,
        description="the provider: sets `field` and `scheme`, and refuses its paths that give out credentials",
    )
    field: KeyField | None = Field(default=None, description="header field for the key; needed without a preset")
    scheme: KeyScheme | None = Field(default=None, description="the word before the key")
    owner: Line = Field(description="the person or team that answers for the key")
    until: Day = Field(description="the day on which the route closes, at 00:00 UTC")


class InjectRouteSection(KeyedSection):
    """A call with a static key of the sidecar. The platform file must list its host."""

    token: Literal["inject"] = Field(description="`inject`")
    inject: InjectSection = Field(description="the key")


class FederateRouteSection(KeyedSection):
    """A call with a provider's short-lived token, for which it took our identity. The platform file lists its host."""

    token: Literal["federate"] = Field(description="`federate`")
    federate: AnyFederateSection = Field(description="the provider, and what it needs to know of us")


class PassthroughRouteSection(OutsideSection):
    """A call with the agent's own credential, which is recorded as a static one by its kind and fingerprint."""

    token: Literal["passthrough"] = Field(description="`passthrough`")
    observe_until: Day | None = Field(
        default=None,
        description=(
            "until 00:00 UTC of this day a call without a handle passes too, recorded as `observed_deny`; at most 30 "
            "days from now"
        ),
    )


class ConnectMatch(Section):
    """The host and port of a CONNECT. No other host, port or spelling matches."""

    host: TunnelText = Field(description="host and port, as CONNECT names them")


class ConnectRouteSection(Section):
    """An opaque tunnel to one host and port, for agents that use the sidecar as `HTTPS_PROXY`."""

    name: RouteName = Field(description="name in records, metrics and `may_call`")
    match: ConnectMatch = Field(description="where the tunnel leads")
    token: Literal["connect"] = Field(description="`connect`")
    without_handle: bool = Field(
        default=False, description="also open tunnels that show no handle; their records name no user"
    )


def kind_of_route(value: object) -> str:
    """Tag of a route: by its ``token``; a word that is none of these is judged as that of an exchange route."""
    token = value.get("token") if isinstance(value, dict) else getattr(value, "token", None)
    kinds = {"inject": INJECT, "federate": FEDERATE, "passthrough": PASSTHROUGH, "connect": CONNECT}
    return kinds.get(str(token), EXCHANGE)


EXCHANGE: Final = "<exchange>"
INJECT: Final = "<inject>"
FEDERATE: Final = "<federate>"
PASSTHROUGH: Final = "<passthrough>"
CONNECT: Final = "<connect>"
AnyOutboundSection = Annotated[
    Annotated[OutboundRouteSection, Tag(EXCHANGE)]
    | Annotated[InjectRouteSection, Tag(INJECT)]
    | Annotated[FederateRouteSection, Tag(FEDERATE)]
    | Annotated[PassthroughRouteSection, Tag(PASSTHROUGH)]
    | Annotated[ConnectRouteSection, Tag(CONNECT)],
    Discriminator(kind_of_route),
]


class OutboundConnectionsSection(Section):
    """Limits on the number of the agent's connections."""

    max_connections: Annotated[int, Field(gt=0)] | None = Field(
        default=None,
        description="the most connections at once; if not set, as many as file descriptors allow, 8192 at most",
    )
    idle_s: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="idle time after which a connection can be evicted for another, at a limit"
    )


class OutboundSection(Section):
    """Calls of the agent: plain HTTP on loopback in, mTLS with a token for exactly that target out."""

    listen: AddressText = Field(default="127.0.0.1:7080", description="address where the agent connects, on loopback")
    routes: list[AnyOutboundSection] = Field(description="the targets the agent may call; all else is refused")
    connections: OutboundConnectionsSection = Field(
        default=OutboundConnectionsSection(), description="limits on the number of incoming connections"
    )
    limits: ServerLimitsSection = Field(default=ServerLimitsSection(), description="limits of incoming connections")
    upstream_limits: ClientLimitsSection = Field(
        default=ClientLimitsSection(), description="limits of connections to the next hop"
    )
    dns: DnsSection = Field(default=DnsSection(), description="name lookup of upstreams and of the token service")
    # not available yet
    capture: Reserved = None
    observe: Reserved = None


AnyOutsideSection: TypeAlias = InjectRouteSection | FederateRouteSection | PassthroughRouteSection
