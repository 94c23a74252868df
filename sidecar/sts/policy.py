"""What the token service may grant: who is a target, which actor may act for whom there, and where chains may start.

One immutable snapshot, swapped whole when the policy file changes. An empty collection means nobody; "any subject" is a
value of its own that cannot come about by leaving something out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Final

from sidecar.delegation.act import MAX_ACT_DEPTH
from sidecar.delegation.scope import ScopeSet
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import ConfigError
from sidecar.sts.contradictions import contradictions

if TYPE_CHECKING:
    from sidecar.delegation.verify import TrustedIssuer


class Anyone(Enum):
    """The explicit word for "no restriction"; in a policy file it is written ``*``."""

    ANYONE = "*"


ANYONE: Final = Anyone.ANYONE


@dataclass(frozen=True, slots=True)
class SubjectMatch:
    """Whom a rule speaks of: ``subject`` of ``issuer`` (the *user* issuer, never us), or each of them ``ANYONE``."""

    issuer: str | Anyone
    subject: str | Anyone

    def matches(self, issuer: str, subject: str) -> bool:
        """Compare the pair byte for byte."""
        return self.issuer in (ANYONE, issuer) and self.subject in (ANYONE, subject)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A workload tokens can be issued for: its SPIFFE ID, its other ``audiences``, the ``scopes`` known there.

    The scopes are a ceiling and also name what everything behind the target needs.
    """

    workload: SpiffeId
    audiences: frozenset[str] = frozenset()
    scopes: ScopeSet

    @property
    def names(self) -> frozenset[str]:
        """Every audience that means this target."""
        return self.audiences | {str(self.workload)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """``actor`` may act for ``subjects`` at ``audience`` with at most ``scopes``. Rules add up."""

    actor: SpiffeId
    subjects: frozenset[SubjectMatch]
    audience: str
    scopes: ScopeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfRule:
    """``workload`` may be itself, without a user, at ``audience`` with at most ``scopes`` (client credentials)."""

    workload: SpiffeId
    audience: str
    scopes: ScopeSet


class LoginKind(StrEnum):
    """The one kind of token a user issuer's logins show."""

    ID_TOKEN = "id_token"  # noqa: S105 - the name of a kind of token
    ACCESS_TOKEN = "access_token"  # noqa: S105 - the same


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginIssuer:
    """A user issuer: how its login tokens are verified and what they are worth here.

    A login token's scopes are the union of ``scope_map`` over the values of its claim ``scope_claim``; a value that is
    not in the map is worth nothing. ``subject_prefix`` keeps two issuers' subjects apart in what we issue.
    """

    trusted: TrustedIssuer
    kind: LoginKind
    scope_claim: str
    scope_map: Mapping[str, ScopeSet]
    subject_prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryWorkload:
    """A workload where users log in: the OAuth client it is registered as, per user issuer.

    ``delegation_life_s`` bounds the first token; None means what is left of the login token, at most one hour.
    """

    workload: SpiffeId
    client_ids: Mapping[str, str]
    delegation_life_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StsPolicy:
    """One snapshot of everything a decision depends on besides tokens and time.

    ``issuer`` is our own identifier (RFC 8414 section 2). A workload owns the audiences of its target, and its
    SPIFFE ID in any case.

    Raises:
        ConfigError: every contradiction, not the first.
    """

    issuer: str
    targets: tuple[Target, ...]
    rules: tuple[Rule, ...]
    self_rules: tuple[SelfRule, ...] = ()
    entries: Mapping[SpiffeId, EntryWorkload] = field(default_factory=dict)
    login_issuers: Mapping[str, LoginIssuer] = field(default_factory=dict)
    token_life_s: int = 300
    max_depth: int = MAX_ACT_DEPTH

    def __post_init__(self) -> None:
        if problems := list(contradictions(self)):
            raise ConfigError(problems)

    def target_of(self, audience: str) -> Target | None:
        """The one workload that receives tokens under this name."""
        return next((target for target in self.targets if audience in target.names), None)

    def audiences_of(self, workload: SpiffeId) -> frozenset[str]:
        """The names whose tokens this workload may hand in as its own."""
        own = (target.names for target in self.targets if target.workload == workload)
        return frozenset((workload,)).union(*own)

    def scopes_for(self, actor: SpiffeId, *, issuer: str, subject: str, audience: str) -> ScopeSet | None:
        """What the rules let this actor do for this subject at this audience; None if no rule speaks of the three."""
        matching = [
            rule.scopes
            for rule in self.rules
            if rule.actor == actor
            and rule.audience == audience
            and any(match.matches(issuer, subject) for match in rule.subjects)
        ]
        return frozenset().union(*matching) if matching else None

    def self_scopes(self, workload: SpiffeId, audience: str) -> ScopeSet | None:
        """What this workload may do on its own authority at this audience; None if the pair is not listed."""
        matching = [rule.scopes for rule in self.self_rules if rule.workload == workload and rule.audience == audience]
        return frozenset().union(*matching) if matching else None
