"""What sections of both settings files look like: identity, control endpoints, issuers, records, limits."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Final, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, create_model

from sidecar.config.words import (
    AddressText,
    FileText,
    Line,
    ScopeText,
    Seconds,
    SocketText,
    SpiffeIdText,
    TrustDomainText,
    UrlText,
    one_of,
)
from sidecar.delegation.act import MAX_ACT_DEPTH
from sidecar.delegation.jws import ALGORITHMS
from sidecar.delegation.profile import MAX_LEEWAY_S, PRESETS, ActorForm
from sidecar.delegation.scope import ScopeShape
from sidecar.identity.files import LAYOUTS

PresetName = Annotated[str, *one_of(PRESETS)]
ActorFormName = Annotated[str, *one_of(ActorForm)]
AlgorithmName = Annotated[str, *one_of(sorted(ALGORITHMS))]
LayoutName = Annotated[str, *one_of(LAYOUTS)]


class Section(BaseModel):
    """A mapping of settings: unknown keys refused, no value converted into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=False)


class FilesSection(Section):
    """PEM files, followed as they change: a ``directory`` in a known ``layout``, or the files one by one.

    ``bundle`` holds our own trust domain's authorities; each other trust domain has a file of its own.
    """

    layout: LayoutName | None = None
    directory: FileText | None = None
    certificate: FileText | None = None
    key: FileText | None = None
    bundle: FileText | None = None
    federated: dict[TrustDomainText, FileText] = Field({})
    jwt_svids: dict[Line, FileText] = Field({})
    jwt_bundles: FileText | None = None
    look_every_s: float = Field(2.0, ge=0.5, le=10)


class IdentitySection(Section):
    """Where our own identity comes from: a Workload API (else ``SPIFFE_ENDPOINT_SOCKET`` says which), or files.

    Of several SVIDs the one with ``spiffe_id`` or ``hint`` is ours. Where neither is set there must be only one.
    """

    workload_api: SocketText | None = None
    source: Literal["py-spiffe"] | None = None
    files: FilesSection | None = None
    spiffe_id: SpiffeIdText | None = None
    hint: Line | None = None


class TlsSection(Section):
    """Who the other end of a control URL must be: a workload by SPIFFE ID, or a host certified by a CA file."""

    peer: SpiffeIdText | None = None
    ca: FileText | None = None


class ActorRow(Section):
    """One row of an actor table: what ``act`` says, and which workload that is."""

    iss: Line | None = None
    sub: Line
    spiffe_id: SpiffeIdText


class ProfileSection(Section):
    """A preset with some of it written differently."""

    preset: PresetName
    typ: list[Line | None] | None = None
    algorithms: list[AlgorithmName] | None = None
    actor: ActorFormName | None = None
    actor_table: list[ActorRow] | None = None
    act_iss: Line | None = None
    scope_claim: Line | None = None
    scope_shape: ScopeShape | None = None
    required_claims: list[Line] | None = None
    max_act_depth: int | None = Field(None, ge=1, le=MAX_ACT_DEPTH)
    leeway_s: int | None = Field(None, ge=0, le=MAX_LEEWAY_S)
    max_lifetime_s: int | None = None


def short_or_long(value: object) -> str:
    """Which of the two ways a setting is written in."""
    return LONG if isinstance(value, dict | Section) else SHORT


SHORT: Final = "<short>"  # the two ways to write some settings, a word or a mapping; problems leave these tags out
LONG: Final = "<long>"
ProfileWord = Annotated[
    Annotated[PresetName, Tag(SHORT)] | Annotated[ProfileSection, Tag(LONG)], Discriminator(short_or_long)
]


class KeySource(Section):
    """An issuer and where it publishes its keys."""

    issuer: Line
    jwks: UrlText
    tls: TlsSection | None = None
    refresh_s: Seconds | None = None
    max_age_s: Seconds | None = None
    cooldown_s: Seconds | None = None
    timeout_s: Seconds | None = None


class IssuerSection(KeySource):
    """An issuer whose delegated tokens are believed, and for how much. Empty lists mean nothing and nobody."""

    profile: ProfileWord
    actor_trust_domains: list[TrustDomainText]
    scopes: list[ScopeText]


class ScopeFromSection(Section):
    """What the values of a login token's claim are worth in the mesh."""

    claim: Line
    map: dict[Line, list[ScopeText]]


class UserIssuerSection(KeySource):
    """An issuer where users log in. ``kind`` is told by the ``oidc-…`` profiles and needed for any other."""

    profile: ProfileWord
    kind: Literal["id_token", "access_token"] | None = None
    scope_from: ScopeFromSection
    subject_prefix: Literal[""] | Line = ""


class FileSinkSection(Section):
    """Records into a file, appended to; it may be moved away by log rotation."""

    file: FileText


class RecordsSection(Section):
    """Where records go. A request that cannot be recorded is refused; there is no other choice.

    Callers that proved nothing (a refused handshake, a connection without a request, a token request without a valid
    SVID) leave at most ``unproven_per_s`` records a second at each listener, ``unproven_burst`` at once. All are
    counted, and the next record tells how many were left out (``suppressed``).
    """

    sink: Annotated[
        Annotated[Literal["stdout"], Tag(SHORT)] | Annotated[FileSinkSection, Tag(LONG)], Discriminator(short_or_long)
    ] = "stdout"
    on_failure: Literal["refuse"] = "refuse"
    spill: FileText | None = None
    unproven_per_s: Annotated[float, Field(gt=0, le=1000)] = 5.0
    unproven_burst: Annotated[int, Field(ge=1, le=100_000)] = 50


class ProbeSection(Section):
    """The listener of ``/metrics``, ``/livez`` and ``/readyz``."""

    listen: AddressText


class AdminSection(Section):
    """The socket of ``sidecar status``. Only the sidecar's own user (and root) can open it; off where it is not set."""

    socket: FileText | None = None


def limits_section(name: str, settings: type) -> type[Section]:
    """A section with the fields and defaults of a room's settings dataclass, all above zero where they are numbers."""
    hints = get_type_hints(settings)
    fields: dict[str, Any] = {
        field.name: (
            hints[field.name],
            Field(field.default, gt=0) if isinstance(field.default, int | float | None) else Field(field.default),
        )
        for field in dataclasses.fields(settings)
        if field.default is not dataclasses.MISSING
    }
    return create_model(name, __base__=Section, __doc__=settings.__doc__, **fields)
