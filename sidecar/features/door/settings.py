"""Settings of an entry's door: section, builders and checks. Pure; each problem has its field and its fix."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pydantic import Field

from delegation_core.door import Door
from delegation_core.door_url import is_origin, is_resource
from delegation_core.errors import Problem
from delegation_core.login_issuer import LoginKind, UserIssuer
from delegation_core.resource_metadata import ProtectedResource, is_plain_url
from sidecar.config.addresses import parse_address
from sidecar.config.field_types import AddressText, FileText, Line, RouteName, UrlText
from sidecar.config.limits import ConnectionLimitsSection, ServerLimitsSection
from sidecar.config.profiles import kind_of
from sidecar.config.sections import Section
from sidecar.config.settings import DoorSettings
from sidecar.identity.public_tls import PublicTlsSettings
from sidecar.proxy.listening.connection_limits import ConnectionLimits
from sidecar.wire.limits import ServerLimits

if TYPE_CHECKING:
    from sidecar.config.outbound_model import OutboundRouteSection
    from sidecar.config.platform_file import Platform
    from sidecar.config.sidecar_model import SidecarFile

_FIELD: Final = "entry.door"


class DoorSection(Section):
    """A listener with public TLS for people's own clients, such as IDEs and browsers. They log in for `resource`."""

    listen: AddressText = Field(description="address where they connect")
    certificate: FileText = Field(
        description="PEM file: certificate of the host in `resource`, and its intermediates; followed as it changes"
    )
    key: FileText = Field(
        description="PEM file of its private key, mode 0600, or 0640 of another user; followed as it changes"
    )
    resource: UrlText = Field(
        description="the URL that clients are given; a login token must name it, and nothing else, in `aud`"
    )
    routes: list[RouteName] = Field(
        min_length=1, description="the outbound routes of MCP that the door opens, by their prefixes"
    )
    authorization_servers: list[Line] = Field(
        default=[], description="the `entry.issuers` whose login tokens it takes; if empty, all with access tokens"
    )
    origins: list[Line] = Field(
        default=[], description="origins of pages that may call it from a browser; all others are refused"
    )
    connections: ConnectionLimitsSection = Field(
        default=ConnectionLimitsSection(),
        description="limits on the number of its connections; `max_connections` is an eighth if not set",
    )
    limits: ServerLimitsSection = Field(default=ServerLimitsSection(), description="limits of its connections")


def door_settings_of(file: SidecarFile) -> DoorSettings | None:
    """Make the settings of the listener; None if there is no door."""
    section = None if file.entry is None else file.entry.door
    if section is None:
        return None
    return DoorSettings(
        listen=parse_address(section.listen),
        tls=PublicTlsSettings(certificate=Path(section.certificate), key=Path(section.key)),
        connections=ConnectionLimits(**section.connections.model_dump()),
        limits=ServerLimits(**section.limits.model_dump()),
    )


def door_of(door: DoorSection | None, users: Mapping[str, UserIssuer]) -> Door | None:
    """Make the door; None without a section, or for one that a check reports. ``users`` are the entry's by issuer."""
    if door is None or not is_plain_url(door.resource) or not is_resource(door.resource):
        return None
    servers = _servers(door, {issuer: user.kind for issuer, user in users.items()})
    if not servers:
        return None
    return Door(
        resource=ProtectedResource(door.resource, tuple(servers)),
        issuers={issuer: users[issuer].at_door(door.resource) for issuer in servers},
        routes=frozenset(door.routes),
        origins=frozenset(door.origins),
    )


def issuers_at_door(file: SidecarFile) -> frozenset[str]:
    """Return the issuers whose tokens callers present at the door; empty without a door."""
    door = None if file.entry is None else file.entry.door
    return frozenset() if door is None else frozenset(_servers(door, _kinds(file)))


def _kinds(file: SidecarFile) -> dict[str, LoginKind | None]:
    return {} if file.entry is None else {user.issuer: kind_of(user) for user in file.entry.issuers}


def _servers(door: DoorSection, kinds: Mapping[str, LoginKind | None]) -> list[str]:
    able = [issuer for issuer, kind in kinds.items() if kind is LoginKind.ACCESS_TOKEN]
    return [issuer for issuer in able if not door.authorization_servers or issuer in door.authorization_servers]


def door_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report a door that no token could open, and listed routes that it cannot serve."""
    entry = file.entry
    if entry is None or entry.door is None:
        return
    door = entry.door
    yield from _resource(door, {user.client_id for user in entry.issuers})
    if door.certificate == door.key:
        yield Problem(f"{_FIELD}.key", "is the same file as the certificate", "keep the key in a file of its own")
    known = _kinds(file)
    for number, issuer in enumerate(door.authorization_servers):
        where = f"{_FIELD}.authorization_servers[{number}]"
        if issuer not in known:
            yield Problem(where, f"{issuer} is not one of entry.issuers", "list it there, or remove it here")
        elif known[issuer] is LoginKind.ID_TOKEN:
            yield Problem(where, f"{issuer} issues ID tokens, which name no resource", "list one with access tokens")
    if not _servers(door, known) and not door.authorization_servers:
        wrong = "is empty, and no issuer of the entry has access tokens"
        yield Problem(f"{_FIELD}.authorization_servers", wrong, "list one under entry.issuers")
    for number, origin in enumerate(door.origins):
        if not is_origin(origin):
            fix = "write it as browsers send it, such as https://inspector.acme.example"
            yield Problem(f"{_FIELD}.origins[{number}]", f"{origin} is not a web origin", fix)
    routes = {route.name: route for _, route in file.mesh_routes()}
    for number, name in enumerate(door.routes):
        yield from _route(entry.may_call, door, name, routes.get(name), f"{_FIELD}.routes[{number}]")


def _resource(door: DoorSection, client_ids: Collection[str]) -> Iterator[Problem]:
    where = f"{_FIELD}.resource"
    if not is_plain_url(door.resource) or not is_resource(door.resource):
        fix = "write it as https://host or https://host/path, in lower case, without a port of 443 or a last slash"
        yield Problem(where, "cannot be the URL of a door", fix)
    elif door.resource in client_ids:
        yield Problem(where, "is also an OAuth client ID of the entry", "give the door a URL of its own")


def _route(
    may_call: Collection[str], door: DoorSection, name: str, route: OutboundRouteSection | None, where: str
) -> Iterator[Problem]:
    if route is None:
        yield Problem(where, f"{name} is not an outbound route into the mesh", "add the route, or remove the name")
        return
    if name not in may_call:
        yield Problem(where, f"{name} is not in entry.may_call", "list it there, or remove it here")
    if route.protocol != "mcp":
        yield Problem(where, f"{name} is not an MCP route", "set its protocol to mcp, or remove the name")
    if route.token != "exchange":  # noqa: S105 - a kind
        yield Problem(where, f"{name} does not exchange login tokens", "remove the name")
    if route.observe_until is not None:
        yield Problem(
            where, f"{name} observes, but anybody can connect to the door", "remove its observe_until, or the name"
        )
    prefix, path = route.match.prefix, urlsplit(door.resource).path.rstrip("/")
    if prefix is None:
        yield Problem(where, f"{name} is matched by host", "match it by prefix: the door has one host")
    elif not f"{prefix}/".startswith(f"{path}/") and not f"{path}/".startswith(f"{prefix}/"):
        yield Problem(where, f"{name} is not at or below the path of resource", "change its prefix, or the resource")


def door_ceiling_problems(file: SidecarFile, platform: Platform) -> Iterator[Problem]:
    """Report a door that the platform file does not list."""
    door = None if file.entry is None else file.entry.door
    if door is not None and door.resource not in platform.doors:
        yield Problem(
            f"{_FIELD}.resource", f"{door.resource} is not in doors of {platform.path}", "remove it, or list it there"
        )
