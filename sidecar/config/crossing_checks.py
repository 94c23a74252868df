"""Checks and builder of crossings between two issuers. Pure; each problem has its field and its fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from delegation_core.crossing import Crossing, collide
from delegation_core.errors import Problem
from sidecar.config.outbound_model import OutboundRouteSection
from sidecar.config.sections import CrossingSection
from sidecar.config.sidecar_model import SidecarFile


def crossing_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report contradictions between crossings, their routes and the issuers."""
    for field, route in file.mesh_routes():
        seen = [section.from_ for section in route.crossings]
        for number, section in enumerate(route.crossings):
            where = f"{field}.crossings[{number}]"
            if seen.index(section.from_) != number:
                yield Problem(f"{where}.from", "is listed twice", "keep one of them")
            yield from _crossing(file, route, section, where)
    yield from _prefixes(file)


def crossings_of(route: OutboundRouteSection) -> dict[str, Crossing]:
    """Make the crossings of a route. Raises ValueError as ``Crossing`` does."""
    return {section.from_: crossing_of(section) for section in route.crossings}


def crossing_of(section: CrossingSection) -> Crossing:
    """Make a crossing. Raises ValueError as ``Crossing`` does."""
    return Crossing(issuer=section.from_, subject_prefix=section.subject_prefix, scopes=scope_map(section.scopes))


def scope_map(scopes: Mapping[str, list[str]]) -> dict[str, frozenset[str]]:
    """Make the map from scopes of one issuer to those of another."""
    return {scope: frozenset(granted) for scope, granted in scopes.items()}


def crosses(file: SidecarFile, route: OutboundRouteSection, issuers: set[str]) -> bool:
    """True if tokens of one of these issuers can be exchanged on the route."""
    return file.issuer_of(route) in issuers or any(section.from_ in issuers for section in route.crossings)


def _crossing(
    file: SidecarFile, route: OutboundRouteSection, section: CrossingSection, where: str
) -> Iterator[Problem]:
    known = {issuer.issuer: issuer for issuer in file.issuers}
    if route.token == "self":  # noqa: S105 - a kind
        yield Problem(where, "has no effect on a self route, which exchanges no token", "remove it")
    if section.from_ == file.issuer_of(route):
        yield Problem(f"{where}.from", "is the issuer of the route's own tokens", "remove it: those need no crossing")
    elif section.from_ not in known:
        yield Problem(f"{where}.from", "is not a configured issuer", "list it under issuers, with its keys")
    else:
        for scope in sorted(section.scopes.keys() - set(known[section.from_].scopes)):
            yield Problem(f"{where}.scopes", f"{scope} is above the ceiling of {section.from_}", f"remove {scope}")
        if not _opened_to(file, route, section.from_):
            yield Problem(
                f"{where}.from",
                "is accepted on no inbound route that opens this route",
                "accept the issuer on a route with this route in may_call, or remove the crossing",
            )
    if not section.scopes:
        yield Problem(f"{where}.scopes", "is empty, so every call is refused", "list what each scope grants here")
    for scope in sorted(set().union(*section.scopes.values()) - set(route.scopes)):
        yield Problem(f"{where}.scopes", f"{scope} is not among the route's scopes", "add it there, or remove it here")


def _opened_to(file: SidecarFile, route: OutboundRouteSection, issuer: str) -> bool:
    routes = file.inbound_routes()
    return any(route.name in one.may_call and (one.issuers is None or issuer in one.issuers) for _, one in routes)


def _prefixes(file: SidecarFile) -> Iterator[Problem]:
    """Report subject prefixes that differ for one issuer, or that let two subjects collide at a token service."""
    opened = set(file.entry.may_call) if file.entry is not None else set()
    by_service: dict[str, dict[str, str]] = {}
    for field, route in file.mesh_routes():
        issuer = file.issuer_of(route)
        if issuer is None:
            continue
        prefixes = by_service.setdefault(issuer, {})
        if file.entry is not None and route.name in opened:
            prefixes |= {user.issuer: user.subject_prefix for user in file.entry.issuers}
        for number, section in enumerate(route.crossings):
            where = f"{field}.crossings[{number}].subject_prefix"
            if prefixes.setdefault(section.from_, section.subject_prefix) != section.subject_prefix:
                yield Problem(where, "differs from an earlier one of the same issuers", "give both the same value")
    for issuer, prefixes in by_service.items():
        if len(prefixes) > 1 and collide(prefixes.values()) and any(_crosses_to(file, issuer)):
            yield Problem(
                "outbound.routes",
                f"two subjects could become one at {issuer}",
                "give each crossing and each issuer of the entry a subject_prefix; none is the start of another",
            )


def _crosses_to(file: SidecarFile, issuer: str) -> Iterator[CrossingSection]:
    for _, route in file.mesh_routes():
        if file.issuer_of(route) == issuer:
            yield from route.crossings
