"""Schema of a token service's settings file: sections, keys and their meaning. ``sts_file`` checks what must agree."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from delegation_core.revocation import Kind
from delegation_core.validity import FIRST_TOKEN_LIFE_S
from sidecar.config.field_types import AddressText, FileText, Line, ScopeText, Seconds, SpiffeIdText, UrlText, one_of
from sidecar.config.foreign_issuers import ForeignIssuerSection
from sidecar.config.sections import (
    LONG,
    SHORT,
    IdentitySection,
    ProbeSection,
    RecordsSection,
    Section,
    UserIssuerSection,
    short_or_long,
)
from sidecar.sts.schedule import KEYS_MAX_AGE_S, MOUNT_LAG_S, REFRESH_S

KindName = Annotated[str, *one_of(Kind)]


class KeysSection(Section):
    """The directory of signing keys, shared by replicas; ``sidecar sts keygen`` adds one."""

    directory: FileText = Field(description="directory that `sidecar sts keygen` writes to")
    mount_lag_s: int = Field(
        default=MOUNT_LAG_S, ge=0, le=3600, description="the longest time that a new file takes to reach a replica"
    )
    max_age_s: int = Field(
        default=KEYS_MAX_AGE_S, ge=1, le=86_400, description="how long others may cache the published keys"
    )
    refresh_s: int = Field(
        default=REFRESH_S,
        ge=0,
        le=86_400,
        description="the longest time until others fetch again after that; a key is published for all three before it "
        "signs",
    )


class TargetSection(Section):
    """A workload that tokens can be issued for, with its audiences and the most scopes."""

    workload: SpiffeIdText = Field(description="SPIFFE ID of the workload")
    audiences: list[Line] = Field(default=[], description="its further audiences")
    scopes: list[ScopeText] = Field(description="the most scopes it accepts")
    bound: bool = Field(
        default=False,
        description="bind its tokens to the certificate of the workload that they are issued to (RFC 8705)",
    )


class SubjectSection(Section):
    """The subject of a rule. ``*`` matches any; there are no other patterns."""

    issuer: Line = Field(description="issuer of the subject, or `*`")
    subject: Line = Field(description="the subject, or `*`")


class RuleSection(Section):
    """``actor`` may act for ``subjects`` at ``audience`` with at most ``scopes``.

    With groups, each actor may at each audience.
    """

    actor: SpiffeIdText | None = Field(default=None, description="SPIFFE ID of the workload that asks")
    actor_group: Line | None = Field(default=None, description="in place of `actor`: a group of workloads")
    subjects: list[SubjectSection] = Field(description="subjects that it may act for")
    audience: Line | None = Field(default=None, description="audience of the token")
    audience_group: Line | None = Field(default=None, description="in place of `audience`: a group of audiences")
    scopes: list[ScopeText] = Field(description="the most scopes")


class SelfDelegationSection(Section):
    """``actor`` may act at ``audience`` for ``workload``, which started a chain for itself, with at most ``scopes``."""

    workload: SpiffeIdText = Field(description="SPIFFE ID of the workload that started for itself")
    actor: SpiffeIdText = Field(description="SPIFFE ID of the workload that it called, and that asks")
    audience: Line = Field(description="audience of the token")
    scopes: list[ScopeText] = Field(description="the most scopes")


class SelfRuleSection(Section):
    """``workload`` may act for itself at ``audience`` with at most ``scopes``."""

    workload: SpiffeIdText = Field(description="SPIFFE ID of the workload")
    audience: Line = Field(description="audience of the token")
    scopes: list[ScopeText] = Field(description="the most scopes")


class EntryWorkloadSection(Section):
    """A workload where users log in, with its OAuth client at each user issuer."""

    workload: SpiffeIdText = Field(description="SPIFFE ID of the workload")
    client_ids: dict[Line, Line] = Field(description="its OAuth client ID at each user issuer")
    door: UrlText | None = Field(
        default=None,
        description="the `resource` of its [door](door.md): login tokens for that start a chain too, of any client",
    )
    delegation_life_s: int | None = Field(
        default=None,
        description=(
            "ceiling of `first_token_life_s` and `long_runs`; if set, a first token may outlive the login, if not set, "
            "it is the rest of the login, an hour at most"
        ),
    )
    first_token_life_s: int | None = Field(
        default=None,
        description=f"lifetime of the first token of a chain; if not set, {FIRST_TOKEN_LIFE_S} or the ceiling",
    )
    long_runs: dict[Line, int] = Field(
        default={},
        description="lifetime of the first token at each of these audiences, for agents that work longer",
    )


class ExchangeRateSection(Section):
    """Rate limit of one client with one subject token: ``burst`` exchanges at once, then ``per_s`` a second."""

    burst: int = Field(default=120, ge=1, le=1_000_000, description="number of exchanges at once")
    per_s: float = Field(default=2.0, ge=1, le=10_000, description="exchanges per second after that")


class ActorRateSection(Section):
    """Rate limit of one client, whatever it sends: ``burst`` requests at once, then ``per_s`` a second."""

    burst: int = Field(default=1000, ge=1, le=1_000_000, description="number of requests at once")
    per_s: float = Field(default=100.0, ge=1, le=10_000, description="requests per second after that")


class IntrospectionSection(Section):
    """Rate limit of each client of the introspection endpoint: ``burst`` requests at once, then ``per_s`` a second."""

    burst: int = Field(default=120, ge=1, le=1_000_000, description="number of requests at once")
    per_s: float = Field(default=20.0, ge=1, le=10_000, description="requests per second after that")


class OperatorSection(Section):
    """An operator who may revoke."""

    spiffe_id: SpiffeIdText = Field(description="SPIFFE ID of the operator")
    may: list[KindName] = Field(description="what the operator may revoke, confirm and lift")


class EventsSection(Section):
    """Events of the login issuers that stop a login: back-channel logout, and CAEP session-revoked."""

    listen: AddressText = Field(description="address where login issuers connect, in plain HTTP: end TLS before it")
    audiences: list[Line] = Field(
        default=[], description="our audiences in events, besides the OAuth client IDs of the entries"
    )
    login_for_s: int = Field(default=86_400, ge=60, le=2_678_400, description="how long an event stops a login")
    subject_for_s: int = Field(
        default=3600, ge=60, le=2_678_400, description="how long an event that names no session stops its user"
    )


class RevocationSection(Section):
    """Operators who may stop subjects, workloads, chains, tokens and logins everywhere, and the file of orders."""

    operators: list[OperatorSection] = Field(default=[], description="operators who may revoke")
    file: FileText | None = Field(
        default=None, description="file of the orders, on a disk of this replica; only `keys: ephemeral` does without"
    )
    replicas: list[UrlText] = Field(
        default=[],
        description="URLs of all replicas; a name stands for all its addresses (in Kubernetes a headless Service)."
        " A majority of them must hear each other; run three or more",
    )
    events: EventsSection | None = Field(default=None, description="the listener of login issuers' events")


class StsFile(Section):
    """Settings of one token service."""

    includable: ClassVar[frozenset[str]] = frozenset(
        {"entries", "groups", "rules", "self_delegations", "self_rules", "targets"}
    )

    version: Literal[1] = Field(default=1, description="version of the file format; an unknown number is refused")
    include: list[Line] = Field(
        default=[],
        description=(
            "files, or folders of `*.yaml` files, below the folder of this file, with more of `targets`, `groups`, "
            "`rules`, `self_rules`, `self_delegations` and `entries` "
            "([page](sts.md#many-agents))"
        ),
    )
    issuer: UrlText = Field(description="its own issuer name: `iss` of its tokens")
    base_url: UrlText | None = Field(default=None, description="its URL, if it is not `issuer`")
    identity: IdentitySection = Field(
        default=IdentitySection(), description="source of our own SVID and of the trust bundles"
    )
    listen: AddressText = Field(default="127.0.0.1:7444", description="address where workloads connect, with mTLS")
    probe: ProbeSection = Field(
        default=ProbeSection(listen="127.0.0.1:7090"), description="the listener of metrics and health checks"
    )
    keys: Annotated[
        Annotated[Literal["ephemeral"], Tag(SHORT)] | Annotated[KeysSection, Tag(LONG)], Discriminator(short_or_long)
    ] = Field(description="directory of signing keys, or `ephemeral` for development")
    exchange_rate: ExchangeRateSection = Field(
        default=ExchangeRateSection(burst=120, per_s=2.0), description="rate limit of one client with one token"
    )
    actor_rate: ActorRateSection = Field(
        default=ActorRateSection(burst=1000, per_s=100.0), description="rate limit of one client with all its tokens"
    )
    introspection: IntrospectionSection | None = Field(
        default=None, description="answer the audience of a token at `/introspect` (RFC 7662); off if not set"
    )
    max_connections: int = Field(default=1024, ge=1, le=1_000_000, description="the most connections at once")
    token_life_s: int = Field(default=300, description="the longest lifetime of an issued token")
    max_depth: int = Field(default=8, description="the most actors in a chain")
    profile: Literal["rfc8693", "actor-profile-01"] = Field(
        default="rfc8693",
        description="form of issued tokens, metadata and errors: RFC 8693 alone, or the "
        "[actor profile](sts.md#the-actor-profile) too",
    )
    act_iss: Line | None = Field(
        default=None,
        description="`act.iss` of each new actor, by the actor profile: namespace of its name (default: the issuer)",
    )
    login_issuers: list[UserIssuerSection] = Field(
        default=[], description="issuers whose login tokens may start a chain"
    )
    foreign_issuers: list[ForeignIssuerSection] = Field(
        default=[], description="other token services whose delegated tokens are exchanged here"
    )
    targets: list[TargetSection] = Field(description="workloads that tokens can be issued for")
    groups: dict[Line, list[Line]] = Field(
        default={}, description="named lists of SPIFFE IDs or audiences, for `actor_group` and `audience_group`"
    )
    rules: list[RuleSection] = Field(
        description="which actors may act for which subjects, at which audience, with which scopes"
    )
    self_rules: list[SelfRuleSection] = Field(
        default=[], description="which workloads may act for themselves, at which audience"
    )
    self_delegations: list[SelfDelegationSection] = Field(
        default=[], description="who may act for a workload that started a chain for itself; no rule covers these"
    )
    entries: list[EntryWorkloadSection] = Field(default=[], description="workloads where users log in")
    revocation: RevocationSection | None = Field(
        default=None, description="who may stop what during an incident; without it nothing can be revoked here"
    )
    records: RecordsSection = Field(default=RecordsSection(), description="destination of the records")
    body_timeout_s: Seconds = Field(default=5.0, description="timeout of reading a request body")
    drain_s: Seconds = Field(default=10.0, description="time for requests to finish after SIGTERM")
