"""Settings of hosts outside the mesh: routes with their keys, tunnels, and the key that the agent expects.

Sections, builders and checks. Pure; each problem has its field and its fix.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from delegation_core.connect import ConnectRoute, reachable_by_name
from delegation_core.errors import Problem
from delegation_core.outside import (
    PRESETS,
    FederatedKey,
    InjectedKey,
    OutsideRoute,
    client_fields,
    credential_paths,
    makes_credentials,
)
from sidecar.config.addresses import parse_address, parse_origin, upstream_of
from sidecar.config.endpoints import mesh_names
from sidecar.config.field_types import (
    Day,
    DeadlineField,
    FileText,
    KeyField,
    KeyScheme,
    Line,
    MethodText,
    OriginText,
    PathText,
    PrefixText,
    RequestField,
    RouteName,
    StreamField,
    TunnelText,
    start_of,
)
from sidecar.config.sections import RECORDS_WHEN, OutboundMatch, RecordsWhen, Section, scalars
from sidecar.config.validation import forbidden
from sidecar.features.outside.agent_key import AgentKeySettings
from sidecar.features.outside.federate_settings import (
    AnyFederateSection,
    audience_of_mesh,
    federated_key,
    trading_hosts,
)
from sidecar.features.outside.fields import may_be_listed

if TYPE_CHECKING:
    from sidecar.config.platform_file import Platform
    from sidecar.config.sidecar_model import SidecarFile


class OutsideSection(Section):
    """A host outside the mesh that the agent may call: these methods, these paths, and nobody else's certificate."""

    name: RouteName = Field(description="name in records, metrics and `may_call`")
    match: OutboundMatch = Field(description="the requests that it applies to")
    upstream: OriginText = Field(description="address of the host, https")
    ca: FileText | None = Field(
        default=None,
        description="PEM file of the authorities that certify the host; if not set, the system's public ones",
    )
    methods: list[MethodText] = Field(min_length=1, description="the methods, each by name")
    paths: list[PathText] = Field(default=[], description="whole paths at the host")
    path_prefixes: list[PrefixText] = Field(default=[], description="starts of paths, by whole segments")
    stream: StreamField = False
    deadline_s: DeadlineField = None
    records: RecordsWhen = Field(default="after_answer", description=RECORDS_WHEN)


class KeyedSection(OutsideSection):
    """A host outside the mesh that is called with the sidecar's key, and with listed request fields of the agent."""

    fields: list[RequestField] = Field(
        default=[],
        description=(
            "further request fields of the agent that are sent with the key, such as `anthropic-beta`; the agent then "
            "controls what they do, such as choosing who is billed"
        ),
    )


class InjectSection(Section):
    """A static key that the sidecar puts on calls; the agent never sees it."""

    file: FileText = Field(description="the file that holds the key alone; read again when it changes")
    preset: Literal["openai", "anthropic", "github"] | None = Field(
        default=None,
        description="the provider: sets `field` and `scheme`, and refuses its paths that give out credentials",
    )
    field: KeyField | None = Field(default=None, description="header field for the key; needed without a preset")
    scheme: KeyScheme | None = Field(default=None, description="the word before the key")
    owner: Line = Field(description="the person or team that answers for the key")
    until: Day = Field(description="the day on which the route closes, at 00:00 UTC")


class InjectRouteSection(KeyedSection):
    """A call with a static key of the sidecar. The platform file must list its host."""

    token: Literal["inject"] = Field(description="`inject`")
    inject: InjectSection = Field(description="the key")


class FederateRouteSection(KeyedSection):
    """A call with a provider's short-lived token, for which it took our identity. The platform file lists its host."""

    token: Literal["federate"] = Field(description="`federate`")
    federate: AnyFederateSection = Field(description="the provider, and what it needs to know of us")


class PassthroughRouteSection(OutsideSection):
    """A call with the agent's own credential, which is recorded as a static one by its kind and fingerprint."""

    token: Literal["passthrough"] = Field(description="`passthrough`")
    observe_until: Day | None = Field(
        default=None,
        description=(
            "until 00:00 UTC of this day a call without a handle passes too, recorded as `observed_deny`; at most 30 "
            "days from now"
        ),
    )


class ConnectMatch(Section):
    """The host and port of a CONNECT. No other host, port or spelling matches."""

    host: TunnelText = Field(description="host and port, as CONNECT names them")


class ConnectRouteSection(Section):
    """An opaque tunnel to one host and port, for agents that use the sidecar as `HTTPS_PROXY`."""

    name: RouteName = Field(description="name in records, metrics and `may_call`")
    match: ConnectMatch = Field(description="where the tunnel leads")
    token: Literal["connect"] = Field(description="`connect`")
    without_handle: bool = Field(
        default=False, description="also open tunnels that show no handle; their records name no user"
    )


AnyOutsideSection: TypeAlias = InjectRouteSection | FederateRouteSection | PassthroughRouteSection


class AgentKeySection(Section):
    """The static key that the agent expects of its callers. The sidecar puts it on permitted requests, in place of the
    caller's field; with `authorization` the handle is in `Delegation-Handle` alone. An observed request keeps its own.
    """

    file: FileText = Field(description="the file that holds the key alone; read again when it changes")
    field: KeyField = Field(description="header field for the key")
    scheme: KeyScheme | None = Field(default=None, description="the word before the key")


def outside_route(section: AnyOutsideSection) -> OutsideRoute:
    """Make the route. Raises ValueError as ``OutsideRoute`` does."""
    return OutsideRoute(
        name=section.name,
        host=section.match.host,
        prefix=section.match.prefix,
        upstream=upstream_of(section.upstream),
        token=section.token,
        methods=frozenset(section.methods),
        paths=frozenset(section.paths),
        path_prefixes=frozenset(section.path_prefixes),
        ca_file=section.ca,
        key=_key_of(section),
        fields=_fields_of(section),
        record_first=section.records == "before_answer",
        observe_until=start_of(section.observe_until)
        if isinstance(section, PassthroughRouteSection) and section.observe_until is not None
        else 0,
        **scalars(section, OutsideRoute),
    )


def _fields_of(section: AnyOutsideSection) -> frozenset[str]:
    if not isinstance(section, KeyedSection):
        return frozenset()
    preset = section.inject.preset if isinstance(section, InjectRouteSection) else None
    return client_fields(preset, upstream_of(section.upstream).host) | {name.lower() for name in section.fields}


def _key_of(section: AnyOutsideSection) -> InjectedKey | FederatedKey | None:
    if isinstance(section, InjectRouteSection):
        return _key(section.inject, upstream_of(section.upstream).host)
    return federated_key(section.federate) if isinstance(section, FederateRouteSection) else None


def _key(section: InjectSection, host: str) -> InjectedKey:
    preset = None if section.preset is None else PRESETS[section.preset]
    scheme = "" if section.scheme is None else f"{section.scheme} "
    return InjectedKey(
        file=section.file,
        field=section.field or (preset.field if preset is not None else ""),
        scheme=preset.scheme if preset is not None and section.scheme is None else scheme,
        owner=section.owner,
        until=start_of(section.until),
        makes_credentials=credential_paths(section.preset, host),
    )


def connect_route(section: ConnectRouteSection) -> ConnectRoute:
    """Make the route. Raises ValueError as ``ConnectRoute`` does."""
    return ConnectRoute(name=section.name, host=section.match.host, without_handle=section.without_handle)


def agent_key_of(section: AgentKeySection | None) -> AgentKeySettings | None:
    """Make the settings of the key that the agent expects; None without a section."""
    if section is None:
        return None
    scheme = "" if section.scheme is None else f"{section.scheme} "
    return AgentKeySettings(file=section.file, field=section.field, scheme=scheme)


def outside_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report contradictions within routes to hosts outside the mesh, or with the routes into it."""
    peers = {route.upstream for _, route in file.mesh_routes()}
    for field, route in file.outside_routes():
        if parse_origin(route.upstream).scheme != "https":
            yield Problem(f"{field}.upstream", "is plain http, which does not verify the server", "use https")
        if route.upstream in peers:
            yield Problem(f"{field}.upstream", "is a mesh target of another route", "call it by an exchange route only")
        if not route.paths and not route.path_prefixes:
            yield Problem(f"{field}.paths", "is missing, and so is path_prefixes", "list what may be called there")
        if isinstance(route, KeyedSection):
            yield from _fields(route, field)
        if isinstance(route, InjectRouteSection):
            yield from _inject(route, field)


def connect_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report a tunnel that leads into the mesh, back into this sidecar, or to a name of this machine."""
    own = {parse_address(text).port for text in _own_listeners(file)}
    peers = {_host_and_port(route.upstream) for _, route in file.mesh_routes()}
    for field, route in file.tunnel_routes():
        where, target = f"{field}.match.host", connect_route(route)
        host, port = target.address
        if target.address in peers:
            yield Problem(where, "is a mesh target of another route", "call it by an exchange route only")
        elif host == "localhost" or host.endswith(".localhost"):
            yield Problem(
                where, "is a name of this machine, which tunnels must not reach", "write the address that is meant"
            )
        elif target.is_literal and not reachable_by_name(host) and port in own:
            yield Problem(where, "is a listener of this sidecar", "remove the route")


def _own_listeners(file: SidecarFile) -> Iterator[str]:
    if file.inbound is not None:
        yield file.inbound.listen
        if file.inbound.plain is not None:
            yield file.inbound.plain.listen
    if file.outbound is not None:
        yield file.outbound.listen
    if file.entry is not None and file.entry.door is not None:
        yield file.entry.door.listen
    yield file.probe.listen


def _host_and_port(origin: str) -> tuple[str, int]:
    upstream = upstream_of(origin)
    return upstream.host, upstream.port


def _fields(route: KeyedSection, field: str) -> Iterator[Problem]:
    for number, name in enumerate(route.fields):
        if not may_be_listed(name.lower().encode("ascii")):
            yield Problem(
                f"{field}.fields[{number}]",
                f"{name} must not go beside a key: it is a credential, the sidecar's own, or changes how the host reads"
                " the call or spells its answer",
                "remove it",
            )


def _inject(route: InjectRouteSection, field: str) -> Iterator[Problem]:
    section = route.inject
    if section.preset is None and section.field is None:
        yield Problem(
            f"{field}.inject.field", "is missing, and no preset names one", "name the header field of the key"
        )
    patterns = credential_paths(section.preset, upstream_of(route.upstream).host)
    for name, paths in (("paths", route.paths), ("path_prefixes", route.path_prefixes)):
        for path in paths:
            if makes_credentials(path, patterns):
                yield Problem(f"{field}.{name}", f"{path} gives out credentials", "remove it")


def outside_ceiling_problems(file: SidecarFile, platform: Platform | None) -> Iterator[Problem]:
    """Report a route with a host that the platform file does not list. Without a platform file no key is sent."""
    for field, route in file.outside_routes():
        if platform is None:
            if route.token != "passthrough":  # noqa: S105 - a kind
                yield Problem(
                    f"{field}.token", "needs a platform file that lists the host", "start with --platform, or remove it"
                )
            continue
        hosts = [("upstream", parse_origin(route.upstream).netloc)]
        if isinstance(route, FederateRouteSection):
            if route.federate.audience.rstrip("/") in platform.names() - mesh_names(file):
                yield audience_of_mesh(field)
            hosts += [(f"federate.{name}", host) for name, host in trading_hosts(route.federate)]
        for name, host in hosts:
            if host not in getattr(platform, route.token):
                yield Problem(
                    f"{field}.{name}", f"{host} is not in the platform's {route.token}", "remove it, or list it there"
                )


def tunnel_ceiling_problems(file: SidecarFile, platform: Platform, _own: object) -> Iterator[Problem]:
    """Report a tunnel to a host that the platform file does not list, or without a handle where it forbids that."""
    for field, route in file.tunnel_routes():
        host = route.match.host
        if host not in platform.connect:
            yield Problem(
                f"{field}.match.host", f"{host} is not in the platform's connect", "remove it, or list it there"
            )
        if route.without_handle and not platform.connect_without_handle:
            yield forbidden(f"{field}.without_handle")
