"""Issuer profiles: token formats of issuers, and mapping of their actors to SPIFFE IDs.

Products differ in ``typ``, the shape of scopes and the member that names the actor. The settings select a profile for
each issuer; a token never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from delegation_core.act import MAX_ACT_DEPTH, Actor
from delegation_core.jws import ALGORITHMS
from delegation_core.scope import ScopeSet, ScopeShape
from delegation_core.spiffe_id import SpiffeId, SpiffeIdError, TrustDomain

MAX_LEEWAY_S: Final = 60

# RFC 9068 section 2.1 requires RS256. ES384 costs ten times as much as ES256, but only P-384 keys can use it.
DEFAULT_ALGORITHMS: Final = frozenset({"RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"})


class ActorForm(StrEnum):
    """Source of the actor's SPIFFE ID: members of the outermost ``act``, or the client claim, directly or by a table.

    The client claim names one actor, never a chain. Only profiles of issuers that are known to name the acting agent
    there use it.
    """

    SUB = "act.sub"
    ISS_SUB = "act.iss+act.sub"
    CLIENT_ID = "act.client_id"
    TABLE = "table"
    CLIENT = "client"
    CLIENT_TABLE = "client-table"


_BY_CLIENT: Final = frozenset({ActorForm.CLIENT, ActorForm.CLIENT_TABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerProfile:
    """Token format of one kind of issuer. None in ``typ`` or ``payload_typ`` permits an absent member."""

    name: str
    typ: frozenset[str | None]  # header typ, lower case, without "application/"
    algorithms: frozenset[str] = DEFAULT_ALGORITHMS
    actor: ActorForm = ActorForm.SUB
    scope_claim: str = "scope"
    scope_shape: ScopeShape = "string"
    subject_claim: str = "sub"
    subject_issuer: str | None = None  # the login issuer whose subjects keep their names in these tokens
    required_claims: frozenset[str] = frozenset()  # besides iss, aud, exp, sub
    required_values: Mapping[str, frozenset[str]] = field(default_factory=dict)  # the claim equals one of these
    required_members: Mapping[str, str] = field(default_factory=dict)  # the claim (list or spaced text) has this word
    required_prefixes: Mapping[str, frozenset[str]] = field(default_factory=dict)  # the claim begins with one of these
    refused_members: Mapping[str, frozenset[str]] = field(default_factory=dict)  # the claim has none of these words
    refused_claims: frozenset[str] = frozenset()  # claims of other kinds of tokens
    payload_typ: frozenset[str | None] | None = None  # values of Keycloak's claim "typ"; None: not checked
    audience_claims: tuple[str, ...] = ("aud",)  # the first claim that is present is used
    client_claim: str = "client_id"
    actor_table: Mapping[tuple[str | None, str], SpiffeId] = field(default_factory=dict)  # (act.iss, act.sub), or
    # (None, client); for the tables
    act_iss: str | None = None  # ISS_SUB: the required act.iss; None: the issuer itself
    follows_actor_profile: bool = False  # act.iss is required; refusals of actors use the draft's error code
    max_act_depth: int = MAX_ACT_DEPTH
    leeway_s: int = 30
    max_lifetime_s: int | None = None

    @property
    def names_actor_by_client(self) -> bool:
        """True if the client claim, not ``act``, names the actor."""
        return self.actor in _BY_CLIENT

    @property
    def tells_delegation(self) -> bool:
        """True if delegated tokens are distinguishable from own and login tokens, by ``act`` or a required claim."""
        return not self.names_actor_by_client or bool(
            self.required_values or self.required_members or self.required_prefixes
        )

    def __post_init__(self) -> None:
        if not 0 <= self.leeway_s <= MAX_LEEWAY_S:
            raise ValueError("leeway_s must be 0 to 60")
        if not 1 <= self.max_act_depth <= MAX_ACT_DEPTH:
            raise ValueError(f"max_act_depth must be 1 to {MAX_ACT_DEPTH}")
        if not self.algorithms <= ALGORITHMS:
            raise ValueError("algorithms must be known and asymmetric")
        if not self.audience_claims:
            raise ValueError("audience_claims must name at least one claim")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedIssuer:
    """A trusted issuer and the limits of that trust. An empty set permits nothing."""

    issuer: str
    profile: IssuerProfile
    scopes: ScopeSet  # the ceiling
    actor_trust_domains: frozenset[TrustDomain]

    def actor_id(self, actor: Actor) -> SpiffeId | None:
        """Return the SPIFFE ID of an actor in this issuer's tokens; None if unmapped or outside actor_trust_domains."""
        spiffe_id = self._mapped(actor)
        return spiffe_id if spiffe_id is not None and spiffe_id.trust_domain in self.actor_trust_domains else None

    def contradiction(self, actor: Actor, *, prior: bool = False) -> str | None:
        """Return a contradiction between an actor's SPIFFE ID and its other members; None if there is none.

        ``act.iss`` must be the issuer, the SPIFFE ID's trust domain or the profile's ``act_iss``. It is not checked for
        a ``prior`` actor, whose members may come from another issuer's token.
        """
        form = self.profile.actor
        spiffe_id = _spiffe_id(actor.client_id if form is ActorForm.CLIENT_ID else actor.subject)
        if spiffe_id is None:
            return None
        for other in (actor.subject, actor.client_id):
            if other is not None and other.lower().startswith("spiffe:") and other != spiffe_id:
                return "sub and client_id name different workloads"
        if "user" in (actor.sub_profile or "").lower().split():
            return "sub_profile is user, but the actor is a workload"
        if prior or actor.issuer is None or form not in {ActorForm.SUB, ActorForm.CLIENT_ID}:
            return None  # the other forms map the pair (iss, sub)
        known = {self.issuer, f"spiffe://{spiffe_id.trust_domain}", self.profile.act_iss}
        return (
            None if actor.issuer in known else "iss is none of the issuer, its act_iss and the SPIFFE ID's trust domain"
        )

    def _mapped(self, actor: Actor) -> SpiffeId | None:
        match self.profile.actor:
            case ActorForm.SUB:
                return _spiffe_id(actor.subject)
            case ActorForm.ISS_SUB:
                return _spiffe_id(actor.subject) if actor.issuer == (self.profile.act_iss or self.issuer) else None
            case ActorForm.CLIENT_ID:
                return _spiffe_id(actor.client_id)
            case ActorForm.TABLE:
                return self.profile.actor_table.get((actor.issuer, actor.subject))
            case ActorForm.CLIENT:
                return _spiffe_id(actor.subject)
            case ActorForm.CLIENT_TABLE:
                return self.profile.actor_table.get((None, actor.subject))


def _spiffe_id(text: str | None) -> SpiffeId | None:
    try:
        return SpiffeId(text) if text is not None else None
    except SpiffeIdError:
        return None
