"""Checks and builders of routes to hosts outside the mesh. Pure; each problem has its field and its fix."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.config.addresses import parse_address, parse_origin, upstream_of
from sidecar.config.federate_checks import federated_key
from sidecar.config.field_types import start_of
from sidecar.config.outbound_model import (
    AnyOutsideSection,
    ConnectRouteSection,
    FederateRouteSection,
    InjectRouteSection,
    InjectSection,
    KeyedSection,
    PassthroughRouteSection,
)
from sidecar.config.sections import scalars
from sidecar.config.sidecar_model import SidecarFile
from sidecar.delegation.connect import ConnectRoute, reachable_by_name
from sidecar.delegation.outside import (
    PRESETS,
    FederatedKey,
    InjectedKey,
    OutsideRoute,
    client_fields,
    credential_paths,
    makes_credentials,
)
from sidecar.errors import Problem
from sidecar.features.outside.fields import may_be_listed


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
    yield file.probe.listen


def _host_and_port(origin: str) -> tuple[str, int]:
    upstream = upstream_of(origin)
    return upstream.host, upstream.port


def connect_route(section: ConnectRouteSection) -> ConnectRoute:
    """Make the route. Raises ValueError as ``ConnectRoute`` does."""
    return ConnectRoute(name=section.name, host=section.match.host, without_handle=section.without_handle)


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
