"""Checks and builders of an entry's door. Pure; each problem has its field and its fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sidecar.config.addresses import parse_address
from sidecar.config.door_model import DoorSection
from sidecar.config.outbound_model import OutboundRouteSection
from sidecar.config.platform_file import Platform
from sidecar.config.profiles import kind_of
from sidecar.config.settings import DoorSettings
from sidecar.config.sidecar_model import EntrySection, SidecarFile
from sidecar.delegation.door import Door
from sidecar.delegation.door_url import is_origin, is_resource
from sidecar.delegation.login_issuer import LoginKind, UserIssuer
from sidecar.delegation.resource_metadata import ProtectedResource, is_plain_url
from sidecar.errors import Problem
from sidecar.identity.public_tls import PublicTlsSettings
from sidecar.proxy.listening.connection_limits import ConnectionLimits
from sidecar.wire.limits import ServerLimits

_FIELD: Final = "entry.door"


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


def door_of(section: EntrySection, users: Mapping[str, UserIssuer]) -> Door | None:
    """Make the door from the entry's issuers; None without a door, or for one that a check reports."""
    door = section.door
    if door is None or not is_plain_url(door.resource) or not is_resource(door.resource):
        return None
    servers = _servers(section, door)
    if not servers or not users.keys() >= set(servers):
        return None
    return Door(
        resource=ProtectedResource(door.resource, tuple(servers)),
        issuers={issuer: users[issuer].at_door(door.resource) for issuer in servers},
        routes=frozenset(door.routes),
        origins=frozenset(door.origins),
    )


def issuers_at_door(file: SidecarFile) -> frozenset[str]:
    """Return the issuers whose tokens callers present at the door; empty without a door."""
    entry = file.entry
    return frozenset() if entry is None or entry.door is None else frozenset(_servers(entry, entry.door))


def _servers(entry: EntrySection, door: DoorSection) -> list[str]:
    able = [user.issuer for user in entry.issuers if kind_of(user) is LoginKind.ACCESS_TOKEN]
    return [issuer for issuer in able if not door.authorization_servers or issuer in door.authorization_servers]


def door_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report a door that no token could open, and listed routes that it cannot serve."""
    entry = file.entry
    if entry is None or entry.door is None:
        return
    door = entry.door
    yield from _resource(entry, door)
    if door.certificate == door.key:
        yield Problem(f"{_FIELD}.key", "is the certificate's file", "keep the key in a file of its own")
    known = {user.issuer: kind_of(user) for user in entry.issuers}
    for number, issuer in enumerate(door.authorization_servers):
        where = f"{_FIELD}.authorization_servers[{number}]"
        if issuer not in known:
            yield Problem(where, f"{issuer} is not one of entry.issuers", "list it there, or remove it here")
        elif known[issuer] is LoginKind.ID_TOKEN:
            yield Problem(where, f"{issuer} shows ID tokens, which name no resource", "list one with access tokens")
    if not _servers(entry, door) and not door.authorization_servers:
        wrong = "is empty, and no issuer of the entry has access tokens"
        yield Problem(f"{_FIELD}.authorization_servers", wrong, "list one under entry.issuers")
    for number, origin in enumerate(door.origins):
        if not is_origin(origin):
            fix = "write it as browsers send it, such as https://inspector.acme.example"
            yield Problem(f"{_FIELD}.origins[{number}]", f"{origin} is not the origin of pages", fix)
    routes = {route.name: route for _, route in file.mesh_routes()}
    for number, name in enumerate(door.routes):
        yield from _route(entry, door, name, routes.get(name), f"{_FIELD}.routes[{number}]")


def _resource(entry: EntrySection, door: DoorSection) -> Iterator[Problem]:
    where = f"{_FIELD}.resource"
    if not is_plain_url(door.resource) or not is_resource(door.resource):
        fix = "write it as https://host or https://host/path, in lower case, without a port of 443 or a last slash"
        yield Problem(where, "cannot be the URL of a door", fix)
    elif door.resource in {user.client_id for user in entry.issuers}:
        yield Problem(where, "is an OAuth client ID of the entry too", "give the door a URL of its own")


def _route(
    entry: EntrySection, door: DoorSection, name: str, route: OutboundRouteSection | None, where: str
) -> Iterator[Problem]:
    if route is None:
        yield Problem(where, f"{name} is not an outbound route into the mesh", "add the route, or remove the name")
        return
    if name not in entry.may_call:
        yield Problem(where, f"{name} is not in entry.may_call", "list it there, or remove it here")
    if route.protocol != "mcp":
        yield Problem(where, f"{name} is no route of MCP", "set its protocol to mcp, or remove the name")
    if route.token != "exchange":  # noqa: S105 - a kind
        yield Problem(where, f"{name} exchanges no login token", "remove the name")
    if route.observe_until is not None:
        yield Problem(where, f"{name} observes, and strangers call here", "remove its observe_until, or the name")
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
