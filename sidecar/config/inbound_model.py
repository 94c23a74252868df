"""Schema of a sidecar's inbound side: the calls of peers, and of callers without a sidecar."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from delegation_core.operation import SessionsOf
from sidecar.config.field_types import (
    AddressText,
    Day,
    DeadlineField,
    Line,
    MethodText,
    OriginText,
    PathText,
    PrefixText,
    Protocol,
    Reserved,
    RouteName,
    ScopeText,
    SpiffeIdText,
    StreamField,
    UrlText,
)
from sidecar.config.limits import ClientLimitsSection, ConnectionLimitsSection, ServerLimitsSection
from sidecar.config.sections import RECORDS_WHEN, RecordsWhen, Section
from sidecar.features.a2a.settings import InboundA2aSection
from sidecar.features.observing.settings import PlainSection
from sidecar.features.operations.settings import HumanSection, InboundOperations, MessageBytes
from sidecar.features.outside.settings import AgentKeySection


class InboundMatch(Section):
    """An exact path, or the start of one by whole segments. Routes of HTTP list methods, HEAD too."""

    path: PathText | None = Field(default=None, description="the whole path")
    path_prefix: PrefixText | None = Field(default=None, description="the start of the path, by whole segments")
    methods: list[MethodText] | None = Field(
        default=None, min_length=1, description="the methods, each by name; needed with `protocol: http`"
    )


class InboundRouteSection(Section):
    """One call that peers may make to the agent. An empty list permits nobody and nothing."""

    name: RouteName = Field(description="name in records, metrics and `may_call`")
    match: InboundMatch = Field(description="the requests that it applies to")
    scopes: list[ScopeText] = Field(description="scopes that a token must have, all of them")
    peers: list[SpiffeIdText] = Field(description="the workloads that may call")
    issuers: list[Line] | None = Field(
        default=None, description="issuers whose tokens are accepted here; needed if there are several"
    )
    may_call: list[RouteName] = Field(default=[], description="the outbound routes that such a request may use")
    protocol: Protocol = Field(
        default="http",
        description=(
            "protocol of the requests: with `mcp` and `a2a` the operation of each is read from its message, with "
            "`grpc` from its path"
        ),
    )
    operations: list[InboundOperations] = Field(
        default=[], description="the operations of that protocol that peers may ask for; all else is refused"
    )
    max_message_bytes: MessageBytes | None = Field(
        default=None, description="the longest message of that protocol; if not set, 1 MiB"
    )
    sessions: SessionsOf | None = Field(
        default=None,
        description=(
            "whose a session of MCP is: `per_subject`, that of the user for whom the peer opened it, the default; "
            "`per_actor`, the peer's, whose users then share it"
        ),
    )
    filter_lists: bool = Field(
        default=False,
        description=(
            "of a route of MCP: lists of tools, prompts and resources hold only what their reader may call; of an "
            "answer `max_message_bytes` are held for it"
        ),
    )
    resource: UrlText | None = Field(
        default=None,
        description=(
            "of a route of MCP: its URL as clients know it. The sidecar then serves its metadata (RFC 9728), and "
            "challenges name it"
        ),
    )
    authorization_servers: list[UrlText] = Field(
        default=[], description="with `resource`: where clients get tokens for it; if empty, the issuers of the route"
    )
    a2a: InboundA2aSection | None = Field(
        default=None, description="with `protocol: a2a`: rules for agent cards, tasks and notifications"
    )
    allow_self: bool = Field(
        default=False,
        description=(
            "accept tokens of workloads that act for themselves; with `mcp` only to open, keep and end a session, "
            "and for lists that say so"
        ),
    )
    delegate_self: bool = Field(
        default=False,
        description=(
            "with `allow_self`: open `may_call` to these workloads too; the token service lists each step in its "
            "`self_delegations`"
        ),
    )
    pass_token: bool = Field(default=False, description="pass the token on to the agent")
    forwarded: bool = Field(
        default=False,
        description=(
            "send the agent `X-Forwarded-Proto` (https), `-Host` (the host that the peer used) and `-For` "
            "(the peer's address); otherwise these are removed"
        ),
    )
    linger_s: float = Field(
        default=0.0,
        ge=0,
        le=86_400,
        description="how long the handle stays valid after the response, or the latest request of its chain",
    )
    max_calls: int = Field(default=64, ge=0, le=1_000_000, description="the most outbound calls of one request")
    records: RecordsWhen = Field(default="after_answer", description=RECORDS_WHEN)
    observe_until: Day | None = Field(
        default=None,
        description=(
            "until 00:00 UTC of this day a request without delegation passes, with its own credential, recorded as "
            "`observed_deny`; at most 30 days from now"
        ),
    )
    human: HumanSection | None = Field(default=None, description="the login that the user must have; if not set, any")
    stream: StreamField = False
    deadline_s: DeadlineField = None
    # not available yet
    websocket: Reserved = None
    max_stream_s: Reserved = None


class InboundSection(Section):
    """Calls to the agent: mTLS from peers, plain HTTP to the agent on loopback."""

    listen: AddressText = Field(default="0.0.0.0:7443", description="address where peers connect, with mTLS")
    agent: OriginText = Field(description="address of the agent, on loopback")
    agent_grpc: OriginText | None = Field(
        default=None,
        description=(
            "the agent's address for calls of gRPC on routes with `protocol: a2a` or `grpc`, by HTTP/2 with prior "
            "knowledge (h2c): another port than that of `agent`, or the same one if it speaks both versions of HTTP"
        ),
    )
    audiences: list[Line] = Field(default=[], description="our audiences besides our SPIFFE ID")
    routes: list[InboundRouteSection] = Field(description="the calls that peers may make; all else is refused")
    subjects_at_once: Literal[1] | None = Field(
        default=None,
        description=(
            "1: refuse a second subject while a request of the first is in progress or its handle lingers; for agents "
            "that could mix up users. In one process only, and not beside `entry`"
        ),
    )
    plain: PlainSection | None = Field(
        default=None, description="a port without TLS for callers that have no sidecar yet, until a day"
    )
    agent_key: AgentKeySection | None = Field(
        default=None, description="the key that the agent expects of its callers, if it still checks one"
    )
    network: Literal["auto", "pod", "host"] = Field(
        default="auto",
        description=(
            "`pod`: only a pod's containers share this network namespace; `auto`: so in Kubernetes, else `host`"
        ),
    )
    other_listeners: list[Annotated[int, Field(ge=1, le=65535)]] = Field(
        default=[],
        description="further ports that may listen beyond loopback; any other counts as a way past the sidecar",
    )
    txn_token: bool = Field(
        default=False,
        description=(
            "verify the `Txn-Token` of a peer and keep it for the calls of its request; otherwise it is removed. Needs "
            "`txn_tokens`"
        ),
    )
    connections: ConnectionLimitsSection = Field(
        default=ConnectionLimitsSection(), description="limits on the number of incoming connections"
    )
    limits: ServerLimitsSection = Field(default=ServerLimitsSection(), description="limits of incoming connections")
    upstream_limits: ClientLimitsSection = Field(
        default=ClientLimitsSection(), description="limits of connections to the next hop"
    )
    # not available yet
    http2: Reserved = None
    websocket: Reserved = None
