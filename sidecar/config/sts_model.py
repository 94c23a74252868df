"""The shape of a token service's settings file. What must agree with what is in ``sts.contradictions``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

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
from sidecar.config.words import AddressText, FileText, Line, ScopeText, Seconds, SpiffeIdText, UrlText


class KeysSection(Section):
    """The directory of signing keys, shared by replicas; ``sidecar sts keygen`` adds one."""

    directory: FileText


class TargetSection(Section):
    """A workload that tokens can be issued for, with the most that is worth asking there."""

    workload: SpiffeIdText
    audiences: list[Line] = Field([])
    scopes: list[ScopeText]


class SubjectSection(Section):
    """Whom a rule speaks of; ``*`` is anyone, and nothing else is a pattern."""

    issuer: Line
    subject: Line


class RuleSection(Section):
    """``actor`` may act for ``subjects`` at ``audience`` with at most ``scopes``."""

    actor: SpiffeIdText
    subjects: list[SubjectSection]
    audience: Line
    scopes: list[ScopeText]


class SelfRuleSection(Section):
    """``workload`` may act for itself at ``audience`` with at most ``scopes``."""

    workload: SpiffeIdText
    audience: Line
    scopes: list[ScopeText]


class EntryWorkloadSection(Section):
    """A workload where users log in: the OAuth client it is registered as, per user issuer."""

    workload: SpiffeIdText
    client_ids: dict[Line, Line]
    delegation_life_s: int | None = None


class ExchangeRateSection(Section):
    """How often one client may exchange one subject token: ``burst`` times at once, then ``per_s`` times a second."""

    burst: int = Field(120, ge=1, le=1_000_000)
    per_s: float = Field(2.0, ge=1, le=10_000)


class StsFile(Section):
    """Settings of one token service."""

    version: Literal[1] = 1
    issuer: UrlText
    base_url: UrlText | None = None
    identity: IdentitySection = IdentitySection()
    listen: AddressText = "127.0.0.1:7444"
    probe: ProbeSection = ProbeSection(listen="127.0.0.1:7090")
    keys: Annotated[
        Annotated[Literal["ephemeral"], Tag(SHORT)] | Annotated[KeysSection, Tag(LONG)], Discriminator(short_or_long)
    ]
    exchange_rate: ExchangeRateSection = ExchangeRateSection(burst=120, per_s=2.0)
    max_connections: int = Field(1024, ge=1, le=1_000_000)
    token_life_s: int = 300
    max_depth: int = 8
    login_issuers: list[UserIssuerSection] = Field([])
    targets: list[TargetSection]
    rules: list[RuleSection]
    self_rules: list[SelfRuleSection] = Field([])
    entries: list[EntryWorkloadSection] = Field([])
    records: RecordsSection = RecordsSection()
    body_timeout_s: Seconds = 5.0
    drain_s: Seconds = 10.0
