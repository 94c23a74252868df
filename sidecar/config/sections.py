"""Sections that several settings files share: identity, control endpoints, issuers, records, limits."""

from __future__ import annotations

from dataclasses import fields
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from delegation_core.act import MAX_ACT_DEPTH
from delegation_core.jws import ALGORITHMS
from delegation_core.profile import MAX_LEEWAY_S, ActorForm
from delegation_core.profile_presets import PRESETS
from delegation_core.scope import ScopeShape
from sidecar.config.field_types import (
    AddressText,
    FileText,
    Line,
    PrefixText,
    Reserved,
    ScopeText,
    Seconds,
    SocketText,
    SpiffeIdText,
    TokenEndpoints,
    TrustDomainText,
    UrlText,
    one_of,
)
from sidecar.identity.files import LAYOUTS

PresetName = Annotated[str, *one_of(PRESETS)]
ActorFormName = Annotated[str, *one_of(ActorForm)]
AlgorithmName = Annotated[str, *one_of(sorted(ALGORITHMS))]
LayoutName = Annotated[str, *one_of(LAYOUTS)]

RecordsWhen: TypeAlias = Literal["after_answer", "before_answer"]
RECORDS_WHEN: Final = (
    "`before_answer`: a permitted call goes on only when the sink has its record `request.opened`, so that it has one "
    "even if this process is killed ([cost](records.md#what-can-be-lost)); `after_answer`: its record is written "
    "within 50 ms of its end"
)


class Section(BaseModel):
    """A mapping of settings: unknown keys are refused, no value is converted into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=False)
    includable: ClassVar[frozenset[str]] = frozenset()  # of a whole file: the sections that an included file may have


def scalars(section: Section, settings: type) -> dict[str, Any]:
    """Return the flags and numbers that ``settings``, a dataclass, has by the same names, as its arguments.

    One that is null is left out: the dataclass has the default. Other types need a conversion, so a builder names them.
    """
    names = {field.name for field in fields(settings)} & scalar_keys(type(section))
    return {name: value for name in names if (value := getattr(section, name)) is not None}


def scalar_keys(section: type[Section]) -> frozenset[str]:
    """Return the keys of a section whose values are flags or numbers."""
    return frozenset(name for name, key in section.model_fields.items() if _kinds(key.annotation) <= _SCALARS)


def _kinds(annotation: object) -> set[object]:
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        return set().union(*map(_kinds, get_args(annotation)))
    return {annotation}


_SCALARS: Final = frozenset({bool, int, float, NoneType})


class FilesSection(Section):
    """PEM files, reloaded when they change: a ``directory`` in a known ``layout``, or the files one by one.

    ``bundle`` holds the CA certificates of our own trust domain; each other trust domain has a file of its own.
    """

    layout: LayoutName | None = Field(
        default=None, description="the program that writes the files, which fixes their names"
    )
    directory: FileText | None = Field(default=None, description="the directory of that layout")
    certificate: FileText | None = Field(default=None, description="our chain, leaf first")
    key: FileText | None = Field(default=None, description="its private key")
    bundle: FileText | None = Field(default=None, description="CA certificates of our own trust domain")
    federated: dict[TrustDomainText, FileText] = Field(
        default={}, description="CA certificates of each other trust domain, one file each"
    )
    jwt_svids: dict[Line, FileText] = Field(default={}, description="a file with our JWT-SVID for each audience")
    jwt_bundles: FileText | None = Field(
        default=None, description="a file of JWT bundles; a token service verifies JWT-SVIDs with them"
    )
    look_every_s: float = Field(default=2.0, ge=0.5, le=10, description="interval between two checks of the files")


class IdentitySection(Section):
    """Source of our own identity: a Workload API (by default that of ``SPIFFE_ENDPOINT_SOCKET``), or files.

    Of several SVIDs the one with ``spiffe_id`` or ``hint`` is ours. Where neither is set there must be only one.
    """

    workload_api: SocketText | None = Field(
        default=None, description="address of the Workload API; if not set, `SPIFFE_ENDPOINT_SOCKET`"
    )
    source: Literal["py-spiffe"] | None = Field(
        default=None, description="a client of the Workload API to use instead of the built-in one"
    )
    files: FilesSection | None = Field(default=None, description="PEM files to use instead of the Workload API")
    spiffe_id: SpiffeIdText | None = Field(default=None, description="selects our SVID among several")
    hint: Line | None = Field(default=None, description="selects our SVID by the hint that the server gave it")


class TlsSection(Section):
    """Identity that the other end of a control URL must prove: a SPIFFE ID, or a host certified by a CA file."""

    peer: SpiffeIdText | None = Field(default=None, description="SPIFFE ID of the workload that must answer")
    ca: FileText | None = Field(default=None, description="file of CA certificates for the host's name")


class ActorRow(Section):
    """One row of an actor table: an ``act`` claim and its workload."""

    iss: Line | None = Field(default=None, description="the issuer in `act`, if it names one")
    sub: Line = Field(description="the `sub` in `act`")
    spiffe_id: SpiffeIdText = Field(description="the workload that the row stands for")


class ProfileSection(Section):
    """A preset with changes."""

    preset: PresetName = Field(description="the preset that the other keys change")
    typ: list[Line | None] | None = Field(
        default=None, description="accepted `typ` values; null is a token without one"
    )
    algorithms: list[AlgorithmName] | None = Field(default=None, description="accepted signature algorithms")
    actor: ActorFormName | None = Field(
        default=None,
        description=(
            "the claim that names the actor: a member of `act`, or the client (`client`, `client-table`), which tells "
            "of one actor and never of a chain"
        ),
    )
    actor_table: list[ActorRow] | None = Field(
        default=None, description="workload of each `act`, or of each client (as `sub`)"
    )
    subject_claim: Line | None = Field(default=None, description="the claim that names the user")
    subject_issuer: Line | None = Field(
        default=None,
        description=(
            "the login issuer whose users have the same `sub` here, and nobody else has; a token that starts a chain "
            "then needs no `sub_id`"
        ),
    )
    client_claim: Line | None = Field(default=None, description="the claim that names the client")
    act_iss: Line | None = Field(default=None, description="the issuer that `act` must name")
    scope_claim: Line | None = Field(default=None, description="the claim that holds the scopes")
    scope_shape: ScopeShape | None = Field(default=None, description="text with spaces, or a list")
    required_claims: list[Line] | None = Field(
        default=None, description="claims without which a token is refused, besides those that the preset requires"
    )
    required_values: dict[Line, list[Line]] | None = Field(
        default=None,
        description=(
            "claims that must have one of these texts, besides those of the preset; with `actor: client` this tells "
            "delegated tokens from a client's own"
        ),
    )
    max_act_depth: int | None = Field(default=None, ge=1, le=MAX_ACT_DEPTH, description="the most actors in a chain")
    leeway_s: int | None = Field(default=None, ge=0, le=MAX_LEEWAY_S, description="tolerated clock difference")
    max_lifetime_s: int | None = Field(default=None, description="the longest lifetime of a token")


def short_or_long(value: object) -> str:
    """Tag of the way in which a setting is written."""
    return LONG if isinstance(value, dict | Section) else SHORT


SHORT: Final = "<short>"  # the two ways to write some settings, a word or a mapping; problems leave these tags out
LONG: Final = "<long>"


def one_or_several(value: object) -> str:
    """Tag of the way in which a section that may occur more than once is written."""
    return SEVERAL if isinstance(value, list) else ONE


ONE: Final = "<one>"
SEVERAL: Final = "<several>"
ProfileWord = Annotated[
    Annotated[PresetName, Tag(SHORT)] | Annotated[ProfileSection, Tag(LONG)], Discriminator(short_or_long)
]


class KeySource(Section):
    """An issuer and where it publishes its keys."""

    issuer: Line = Field(description="the issuer, exactly as in `iss`")
    jwks: UrlText = Field(description="URL of its keys; https, or http on loopback")
    tls: TlsSection | None = Field(default=None, description="the identity that must answer there")
    refresh_s: Seconds | None = Field(
        default=None, description="interval between two fetches of keys; if not set, the response's max-age, else 300"
    )
    max_age_s: Seconds | None = Field(
        default=None, description="how long the last good keys are used while fetching fails; 3600 if not set"
    )
    cooldown_s: Seconds | None = Field(
        default=None,
        description="the least time between two fetches for unknown key IDs; 30 if not set, 5 for issuers of a door",
    )
    timeout_s: Seconds | None = Field(default=None, description="timeout of one fetch; 5 if not set")


class RevocationListSection(Section):
    """The issuer's list of revocations: what its operators have stopped."""

    url: UrlText = Field(description="URL of the list; https, or http on loopback")
    tls: TlsSection | None = Field(
        default=None, description="the identity that must answer there; if not set, that of the issuer's other URLs"
    )
    every_s: Annotated[float, Field(ge=0.5, le=60)] = Field(default=2.0, description="interval between two polls")
    max_stale_s: Annotated[float, Field(ge=5, le=3600)] = Field(
        default=300.0,
        description=(
            "how long the last list is relied on while polls fail, never longer than the issuer lets it (the lifetime "
            "of its tokens); then its tokens are refused with `revocations_stale`"
        ),
    )


class IssuerSection(KeySource):
    """An issuer whose delegated tokens are accepted, and its limits. An empty list permits nothing and nobody."""

    profile: ProfileWord = Field(description="format of its tokens: a preset, or a preset with changes")
    actor_trust_domains: list[TrustDomainText] = Field(
        description="trust domains whose workloads it may name as actors"
    )
    scopes: list[ScopeText] = Field(description="the most scopes it may grant")
    revocations: RevocationListSection | None = Field(
        default=None, description="its list of revocations; without it only `deny` stops its tokens"
    )
    metadata: Reserved = None  # not available yet


class ScopeFromSection(Section):
    """Scopes that each value of a login token's claim grants in the mesh."""

    claim: Line = Field(description="the claim to read")
    map: dict[Line, list[ScopeText]] = Field(description="the scopes of each of its values")


class PlatformIssuerSection(IssuerSection):
    """An issuer that workloads may trust, and ask for tokens.

    ``tls`` applies to the URLs of keys and tokens.
    """

    token_endpoint: UrlText | None = Field(
        default=None, description="URL of the token endpoint; `{issuer}/token` if not set"
    )
    token_endpoints: TokenEndpoints | None = Field(
        default=None, description="in place of `token_endpoint`: the URLs of all its replicas"
    )
    authorization_endpoint: UrlText | None = Field(
        default=None,
        description="where settings may send users to log in; if not set, only the issuer's metadata says where",
    )


class UserIssuerSection(KeySource):
    """An issuer where users log in. The ``oidc-…`` profiles imply ``kind``; any other needs it."""

    profile: ProfileWord = Field(description="format of its tokens: a preset, or a preset with changes")
    kind: Literal["id_token", "access_token"] | None = Field(
        default=None, description="the one accepted kind of login token"
    )
    scope_from: ScopeFromSection = Field(description="scopes that a login grants in the mesh")
    subject_prefix: Literal[""] | Line = Field(
        default="", description="prefix added to `sub`, so that subjects of two issuers never collide"
    )


class CrossingSection(Section):
    """Exchange of another issuer's tokens for those of the route's own. What is not in ``scopes`` is worth nothing."""

    from_: Line = Field(alias="from", description="issuer of the tokens that come in")
    subject_prefix: Line = Field(
        description="prefix that the route's token service adds to `sub`, the same as in its settings"
    )
    scopes: dict[ScopeText, list[ScopeText]] = Field(description="scopes that each scope of that issuer grants here")


class OutboundMatch(Section):
    """A target by its host (proxy form, or the Host header), or by a prefix of the path on our own listener."""

    host: Line | None = Field(default=None, description="the target's host, in proxy form or the Host header")
    prefix: PrefixText | None = Field(
        default=None, description="the start of the path, removed before the call is passed on"
    )


class FileSinkSection(Section):
    """A file that records are appended to; log rotation may move it away."""

    file: FileText = Field(description="the file, created with mode 0600")


class CountersignSection(Section):
    """The token service that countersigns the record stream. Its keys are those of ``issuer``."""

    issuer: Line = Field(description="the issuer that the token service is, one of `issuers`")
    endpoint: UrlText | None = Field(
        default=None, description="URL of its countersigning endpoint; `{issuer}/countersign` if not set"
    )
    peer: SpiffeIdText | None = Field(
        default=None, description="SPIFFE ID of the workload that must answer there; or use `tls`"
    )
    tls: TlsSection | None = Field(default=None, description="the identity that must answer there")
    every_s: Annotated[float, Field(ge=5, le=3600)] = Field(
        default=60.0, description="interval between two checkpoints: records after the last one can be rewritten"
    )


class RecordsSection(Section):
    """Destination of records. A request that cannot be recorded is refused; there is no other choice.

    Unauthenticated callers (a refused handshake, a connection without a request, a refused request at the port without
    TLS, a token request without a valid SVID) cause at most ``unproven_per_s`` records a second at each listener,
    ``unproven_burst`` at once. All are counted, and the next record reports how many were suppressed (``suppressed``).
    """

    sink: Annotated[
        Annotated[Literal["stdout"], Tag(SHORT)] | Annotated[FileSinkSection, Tag(LONG)], Discriminator(short_or_long)
    ] = Field(default="stdout", description="standard output, or a file")
    on_failure: Literal["refuse"] = Field(default="refuse", description="action for a request that cannot be recorded")
    spill: FileText | None = Field(
        default=None,
        description=(
            "directory on another disk than the sink's. A process that stops writes the records there that"
            " the sink did not accept; without it the operations log names each by its request ID"
        ),
    )
    countersign: CountersignSection | None = Field(
        default=None,
        description=(
            "the token service that signs the record stream from time to time, so that it cannot be rewritten"
            " unnoticed; a token service signs its own"
        ),
    )
    unproven_per_s: Annotated[float, Field(gt=0, le=1000)] = Field(
        default=5.0,
        description=(
            "the most records per second of unauthenticated callers, at each listener; the next record "
            "reports how many were suppressed"
        ),
    )
    unproven_burst: Annotated[int, Field(ge=1, le=100_000)] = Field(default=50, description="the burst of such records")


class ProbeSection(Section):
    """The listener of ``/metrics``, ``/livez`` and ``/readyz``."""

    listen: AddressText = Field(description="address to listen at, without TLS")


class AdminSection(Section):
    """The socket of ``sidecar status``; none if not set. Only the sidecar's own user (and root) can open it."""

    socket: FileText | None = Field(
        default=None, description="path of the socket; a stale one is replaced, one in use is refused"
    )
