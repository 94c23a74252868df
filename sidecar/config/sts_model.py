"""Schema of a token service's settings file. ``sts_file`` and the policy check what must agree."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from sidecar.config.field_types import AddressText, FileText, Line, ScopeText, Seconds, SpiffeIdText, UrlText
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


class KeysSection(Section):
    """The directory of signing keys, shared by replicas; ``sidecar sts keygen`` adds one."""

    directory: FileText = Field(description="directory that `sidecar sts keygen` writes to")


class TargetSection(Section):
    """A workload that tokens can be issued for, with its audiences and the most scopes."""

    workload: SpiffeIdText = Field(description="SPIFFE ID of the workload")
    audiences: list[Line] = Field(default=[], description="its further audiences")
    scopes: list[ScopeText] = Field(description="the most scopes it accepts")


class SubjectSection(Section):
    """The subject of a rule. ``*`` matches any; there are no other patterns."""

    issuer: Line = Field(description="issuer of the subject, or `*`")
    subject: Line = Field(description="the subject, or `*`")


class RuleSection(Section):
    """``actor`` may act for ``subjects`` at ``audience`` with at most ``scopes``."""

    actor: SpiffeIdText = Field(description="SPIFFE ID of the workload that asks")
    subjects: list[SubjectSection] = Field(description="subjects that it may act for")
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
    delegation_life_s: int | None = Field(
        default=None,
        description="the longest lifetime of a chain that starts here; if not set, that of the login, an hour at most",
    )


class ExchangeRateSection(Section):
    """Rate limit of one client with one subject token: ``burst`` exchanges at once, then ``per_s`` a second."""

    burst: int = Field(default=120, ge=1, le=1_000_000, description="number of exchanges at once")
    per_s: float = Field(default=2.0, ge=1, le=10_000, description="exchanges per second after that")


class StsFile(Section):
    """Settings of one token service."""

    version: Literal[1] = Field(default=1, description="version of the file format; an unknown number is refused")
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
    max_connections: int = Field(default=1024, ge=1, le=1_000_000, description="the most connections at once")
    token_life_s: int = Field(default=300, description="the longest lifetime of an issued token")
    max_depth: int = Field(default=8, description="the most actors in a chain")
    login_issuers: list[UserIssuerSection] = Field(
        default=[], description="issuers whose login tokens may start a chain"
    )
    targets: list[TargetSection] = Field(description="workloads that tokens can be issued for")
    rules: list[RuleSection] = Field(
        description="which actors may act for which subjects, at which audience, with which scopes"
    )
    self_rules: list[SelfRuleSection] = Field(
        default=[], description="which workloads may act for themselves, at which audience"
    )
    entries: list[EntryWorkloadSection] = Field(default=[], description="workloads where users log in")
    records: RecordsSection = Field(default=RecordsSection(), description="destination of the records")
    body_timeout_s: Seconds = Field(default=5.0, description="timeout of reading a request body")
    drain_s: Seconds = Field(default=10.0, description="time for requests to finish after SIGTERM")
