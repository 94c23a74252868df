"""Profiles of issuers: presets, and presets with the changes of a section; and the kind of login token of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final, Protocol, TypeVar

from delegation_core.errors import Problem
from delegation_core.login_issuer import LoginKind
from delegation_core.profile import ActorForm, IssuerProfile
from delegation_core.profile_presets import PRESETS
from delegation_core.spiffe_id import SpiffeId
from sidecar.config.sections import ActorRow, ProfileSection, UserIssuerSection
from sidecar.config.validation import Findings

U = TypeVar("U", bound=UserIssuerSection)

_KINDS: Final = {"oidc-id-token": LoginKind.ID_TOKEN, "oidc-access-token": LoginKind.ACCESS_TOKEN}
LOGIN_PRESETS: Final = frozenset(_KINDS)
_TABLES: Final = frozenset({ActorForm.TABLE, ActorForm.CLIENT_TABLE})


def profile_of(section: str | ProfileSection) -> IssuerProfile:
    """Make the profile: the preset with the section's changes. Raises ValueError for a contradiction."""
    if isinstance(section, str):
        return PRESETS[section]
    changes: dict[str, object] = {
        name: value
        for name in (
            "act_iss",
            "subject_claim",
            "subject_issuer",
            "client_claim",
            "scope_claim",
            "scope_shape",
            "max_act_depth",
            "leeway_s",
            "max_lifetime_s",
        )
        if (value := getattr(section, name)) is not None
    }
    if section.actor is not None:
        changes["actor"] = ActorForm(section.actor)
    if section.typ is not None:
        changes["typ"] = frozenset(
            None if typ is None else typ.lower().removeprefix("application/") for typ in section.typ
        )
    if section.algorithms is not None:
        changes["algorithms"] = frozenset(section.algorithms)
    if section.required_claims is not None:
        changes["required_claims"] = PRESETS[section.preset].required_claims.union(section.required_claims)
    if section.required_values is not None:
        values = {claim: frozenset(texts) for claim, texts in section.required_values.items()}
        changes["required_values"] = {**PRESETS[section.preset].required_values, **values}
    if section.actor_table is not None:
        changes["actor_table"] = _table(section.actor_table)
    return dataclasses.replace(PRESETS[section.preset], **changes)  # type: ignore[arg-type]  # checked by the model


def preset_of(profile: str | ProfileSection) -> str:
    """Return the name of a profile's preset."""
    return profile if isinstance(profile, str) else profile.preset


def with_usable_profile(section: U, field: str, findings: Findings) -> U:
    """Return the section; if its profile is contradictory, report that and return it with the preset alone."""
    if findings.attempt(f"{field}.profile", profile_of, section.profile) is not None:
        return section
    return section.model_copy(update={"profile": preset_of(section.profile)})


class Profiled(Protocol):
    """A section with a profile."""

    @property
    def profile(self) -> str | ProfileSection:
        """The preset, or a preset with changes."""


def profile_problems(section: Profiled, field: str) -> Iterator[Problem]:
    """Report a profile that cannot yield an actor, as an issuer of delegated tokens must."""
    if preset_of(section.profile) in LOGIN_PRESETS:
        yield Problem(f"{field}.profile", "is for login tokens, which name no actor", "list it where users log in")
        return
    findings = Findings()
    profile = findings.attempt(f"{field}.profile", lambda: profile_of(section.profile))
    yield from findings.problems
    if profile is not None and profile.actor in _TABLES and not profile.actor_table:
        yield Problem(f"{field}.profile", "maps no actor", "write a mapping with preset and actor_table")


def _table(rows: list[ActorRow]) -> dict[tuple[str | None, str], SpiffeId]:
    table: dict[tuple[str | None, str], SpiffeId] = {}
    for row in rows:
        if (row.iss, row.sub) in table:
            raise ValueError("actor_table: one actor has two rows; keep one of them")
        table[row.iss, row.sub] = SpiffeId(row.spiffe_id)
    return table


def kind_of(section: UserIssuerSection) -> LoginKind | None:
    """Return the kind of login token: the ``kind`` set, else the preset's; None if neither exists."""
    if section.kind is not None:
        return LoginKind(section.kind)
    return _KINDS.get(preset_of(section.profile))


def kind_problems(section: UserIssuerSection, field: str) -> Iterator[Problem]:
    """Report a missing kind, or one that contradicts the preset."""
    told = _KINDS.get(preset_of(section.profile))
    if kind_of(section) is None:
        yield Problem(
            f"{field}.kind", "is missing, and the profile does not imply one", "write id_token or access_token"
        )
    elif told is not None and told is not kind_of(section):
        yield Problem(f"{field}.kind", "is not the kind of the profile", "remove it, or change the profile")
