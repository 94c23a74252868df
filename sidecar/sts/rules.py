"""Parts of a policy of the token service: targets, rules, entries, the issuers of users and other token services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from delegation_core.crossing import Crossing
from delegation_core.login_issuer import LoginKind as LoginKind
from delegation_core.login_issuer import ScopeFrom, UserIssuer
from delegation_core.scope import ScopeSet
from delegation_core.spiffe_id import SpiffeId
from delegation_core.validity import DELEGATION_LIFE_S, FIRST_TOKEN_LIFE_S
from delegation_core.verify import TrustedIssuer


class Anyone(Enum):
    """The explicit value for "no restriction", ``*`` in a policy file."""

    ANYONE = "*"


ANYONE: Final = Anyone.ANYONE


@dataclass(frozen=True, slots=True)
class SubjectMatch:
    """The subjects of a rule: ``subject`` of ``issuer``, or each of them ``ANYONE``.

    The issuer is a user issuer or a foreign token service, never this service.
    """

    issuer: str | Anyone
    subject: str | Anyone

    def matches(self, issuer: str, subject: str) -> bool:
        """Compare the pair byte for byte."""
        return self.issuer in (ANYONE, issuer) and self.subject in (ANYONE, subject)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A workload that tokens can be issued for: its SPIFFE ID, its other ``audiences``, its ``scopes``.

    The scopes are a ceiling: they must include the scopes of all further hops behind the target. Tokens for a
    ``bound`` target are valid only on a connection with the certificate that the client had here (RFC 8705 section 3).
    """

    workload: SpiffeId
    audiences: frozenset[str] = frozenset()
    scopes: ScopeSet
    bound: bool = False

    @property
    def names(self) -> frozenset[str]:
        """Every audience of this target."""
        return self.audiences | {str(self.workload)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """``actor`` may act for ``subjects`` at ``audience`` with at most ``scopes``. Rules add up."""

    actor: SpiffeId
    subjects: frozenset[SubjectMatch]
    audience: str
    scopes: ScopeSet

    def speaks_of(self, issuer: str, subject: str) -> bool:
        """Tell if the rule covers this subject of this user issuer."""
        return any(match.matches(issuer, subject) for match in self.subjects)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfRule:
    """``workload`` may act for itself, without a user, at ``audience`` with at most ``scopes`` (client credentials)."""

    workload: SpiffeId
    audience: str
    scopes: ScopeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfDelegation:
    """``actor`` may act at ``audience`` for ``workload``, which started a chain for itself, with at most ``scopes``.

    A ``Rule`` never covers such a chain, even with ``ANYONE`` as subjects.
    """

    workload: SpiffeId
    actor: SpiffeId
    audience: str
    scopes: ScopeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginIssuer:
    """A user issuer: the profile and ``kind`` of its login tokens, and the scopes that they give here.

    The profile names the claim that must hold the entry's OAuth client. ``subject_prefix`` keeps the subjects of two
    issuers apart in issued tokens.
    """

    trusted: TrustedIssuer
    kind: LoginKind
    scope_from: ScopeFrom
    subject_prefix: str = ""

    def for_client(self, client_id: str) -> UserIssuer:
        """Return this issuer's settings for an entry with the OAuth client ``client_id``."""
        return UserIssuer(
            trusted=self.trusted,
            kind=self.kind,
            client_id=client_id,
            scope_from=self.scope_from,
            subject_prefix=self.subject_prefix,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignIssuer:
    """A token service of others whose delegated tokens are exchanged here: only by ``actors``, at their audiences.

    ``crossing`` maps its subjects and scopes to ours.
    """

    trusted: TrustedIssuer
    crossing: Crossing
    actors: Mapping[SpiffeId, frozenset[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryWorkload:
    """A workload where users log in, with its OAuth client at each user issuer.

    ``door`` is the URL of its door: access tokens for that audience alone start a chain too, from any OAuth client.
    The first token of a chain lives ``first_token_life_s`` (None: 300 s) or the seconds that ``long_runs`` has for its
    audience, at most ``delegation_life_s`` (None: the login token's remaining life, at most one hour).
    """

    workload: SpiffeId
    client_ids: Mapping[str, str]
    delegation_life_s: int | None = None
    first_token_life_s: int | None = None
    long_runs: Mapping[str, int] = field(default_factory=dict)
    door: str | None = None

    @property
    def longest_delegation_s(self) -> int:
        """The longest life, in seconds, of any first token of this entry."""
        return DELEGATION_LIFE_S if self.delegation_life_s is None else self.delegation_life_s

    @property
    def longest_first_life_s(self) -> int:
        """The longest life of a first token, at any audience."""
        return max(self.first_life_s(audience) for audience in ("", *self.long_runs))

    def first_life_s(self, audience: str) -> int:
        """Return the longest life, in seconds, of a chain's first token at an audience."""
        wanted_s = self.long_runs.get(audience) or self.first_token_life_s or FIRST_TOKEN_LIFE_S
        return min(wanted_s, self.longest_delegation_s)
