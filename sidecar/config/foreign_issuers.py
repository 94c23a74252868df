"""Sections of foreign issuers in a token service's settings, their checks and their builder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from delegation_core.crossing import Crossing
from delegation_core.errors import Problem
from delegation_core.profile import TrustedIssuer
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.config.crossing_checks import scope_map
from sidecar.config.field_types import Line, ScopeText, SpiffeIdText, TrustDomainText
from sidecar.config.profiles import profile_of, profile_problems
from sidecar.config.sections import KeySource, ProfileWord, Section
from sidecar.config.validation import Findings, repetitions
from sidecar.sts.rules import ForeignIssuer


class ForeignActorSection(Section):
    """A workload that may show tokens of a foreign issuer, and the audiences where they count then."""

    actor: SpiffeIdText = Field(description="SPIFFE ID of the workload that asks")
    audiences: list[Line] = Field(min_length=1, description="audiences of the tokens that it may get")


class ForeignIssuerSection(KeySource):
    """Another token service whose delegated tokens are exchanged here: for listed actors, at listed audiences."""

    profile: ProfileWord = Field(description="format of its tokens: a preset, or a preset with changes")
    actor_trust_domains: list[TrustDomainText] = Field(
        description="trust domains whose workloads it may name as actors"
    )
    subject_prefix: Line = Field(description="prefix added to `sub`, so that its subjects and ours never collide")
    scopes: dict[ScopeText, list[ScopeText]] = Field(
        description="scopes that each of its scopes grants here; one that is not listed grants nothing"
    )
    actors: list[ForeignActorSection] = Field(description="workloads that may show its tokens")


def foreign_problems(sections: Sequence[ForeignIssuerSection]) -> Iterator[Problem]:
    """Report a profile that names no actor, and an actor that is listed twice."""
    for number, section in enumerate(sections):
        field = f"foreign_issuers[{number}]"
        yield from profile_problems(section, field)
        yield from repetitions(f"{field}.actors", (row.actor for row in section.actors))


def foreign_issuers(sections: Sequence[ForeignIssuerSection], findings: Findings) -> dict[str, ForeignIssuer]:
    """Make the foreign issuers by name. Add problems to ``findings`` and leave out unusable issuers."""
    made: dict[str, ForeignIssuer] = {}
    for number, section in enumerate(sections):
        if any(profile_problems(section, "")):  # reported before
            continue
        foreign = findings.attempt(f"foreign_issuers[{number}]", _foreign_issuer, section)
        if foreign is not None:
            made[section.issuer] = foreign
    return made


def _foreign_issuer(section: ForeignIssuerSection) -> ForeignIssuer:
    scopes = scope_map(section.scopes)
    return ForeignIssuer(
        trusted=TrustedIssuer(
            issuer=section.issuer,
            profile=profile_of(section.profile),
            scopes=frozenset(scopes),
            actor_trust_domains=frozenset(map(TrustDomain, section.actor_trust_domains)),
        ),
        crossing=Crossing(issuer=section.issuer, subject_prefix=section.subject_prefix, scopes=scopes),
        actors={SpiffeId(row.actor): frozenset(row.audiences) for row in section.actors},
    )
