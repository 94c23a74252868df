"""Schema of a sidecar's outbound side: one section for each kind of route, told apart by ``token``."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Discriminator, Field, Tag

from sidecar.config.field_types import (
    AddressText,
    Day,
    DeadlineField,
    Line,
    OriginText,
    Protocol,
    Reserved,
    RouteName,
    ScopeText,
    SpiffeIdText,
    StreamField,
    TokenWay,
)
from sidecar.config.limits import ClientLimitsSection, DnsSection, ServerLimitsSection
from sidecar.config.sections import RECORDS_WHEN, CrossingSection, OutboundMatch, RecordsWhen, Section
from sidecar.features.a2a.settings import A2aSection
from sidecar.features.operations.settings import MessageBytes, OutboundOperations
from sidecar.features.outside.settings import (
    ConnectRouteSection,
    FederateRouteSection,
    InjectRouteSection,
    PassthroughRouteSection,
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
