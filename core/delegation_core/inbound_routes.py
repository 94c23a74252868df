"""Index of all inbound routes of one policy; finds the route of a request by method and canonical path.

The most specific path decides: if its routes do not allow the method, no wider route is tried. The cost of a lookup
does not depend on the number of routes: one dictionary access for exact paths, and one for each segment up to the
deepest prefix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from delegation_core.a2a_rules import CARD_METHODS, CARD_PATHS
from delegation_core.errors import Denied, Reason
from delegation_core.prefixes import Prefixes
from delegation_core.route import InboundRoute, Overlap, RouteMark
from delegation_core.scope import ScopeSet
from delegation_core.target import CanonicalTarget as CanonicalTarget
from delegation_core.target import canonical_target as canonical_target


def inbound_overlaps(routes: Sequence[InboundRoute]) -> list[Overlap]:
    """Return pairs of inbound routes that could match the same request, or share a name: errors in the settings."""
    found: list[Overlap] = []
    names: set[str] = set()
    taken: dict[tuple[str, bool, str], str] = {}
    for route in routes:
        if route.name in names:
            found.append(Overlap(route.name, route.name, "the name"))
        names.add(route.name)
        for method in sorted(route.methods):
            other = taken.setdefault((route.path, route.prefix, method), route.name)
            if other != route.name:
                found.append(Overlap(other, route.name, f"{method} {route.path}"))
    return found


class InboundRoutes:
    """All inbound routes of one policy, indexed.

    No wider route covers paths below an exact route of a protocol above HTTP: its server may answer there (``/mcp/``).
    If any route has metadata, no wider route covers paths below the well-known metadata path.
    ``cards``: the A2A routes of each agent-card path; ``find`` returns the first. ``depth``: the number of segments
    that decide; longer paths with the same first segments have the same route.

    Raises:
        ValueError: two routes overlap (see ``inbound_overlaps``).
    """

    __slots__ = (
        "_exact",
        "_exact_folded",
        "_folds_prefixes",
        "_named",
        "_prefixes",
        "_prefixes_folded",
        "cards",
        "depth",
        "routes",
        "scopes",
    )

    def __init__(self, routes: Sequence[InboundRoute]) -> None:
        if inbound_overlaps(routes):
            raise ValueError("inbound routes overlap")
        self.routes = tuple(routes)
        self.scopes: ScopeSet = frozenset().union(*(route.scopes for route in routes))
        self._named = {route.name: route for route in routes}
        self._exact: dict[str, dict[str, InboundRoute]] = {}
        by_prefix: dict[str, dict[str, InboundRoute]] = {}
        for route in routes:
            table = by_prefix if route.prefix else self._exact
            table.setdefault(route.path, {}).update(dict.fromkeys(route.methods, route))
        for route in routes:
            if not route.prefix and route.protocol != "http":
                by_prefix.setdefault(route.path, {})
        if described := [route for route in routes if route.resource is not None]:
            from delegation_core.resource_metadata import WELL_KNOWN

            by_prefix[WELL_KNOWN] = {}
            self._exact |= {path: {"GET": route} for path, route in _metadata_routes(described)}
        self.cards = _card_places(self.routes)
        for path, served in self.cards.items():
            self._exact[path] = dict.fromkeys(CARD_METHODS, served[0])
        self._exact_folded = frozenset(map(_folded, self._exact))
        self._prefixes = Prefixes(by_prefix)
        self._prefixes_folded = Prefixes({path.lower(): True for path in by_prefix})
        self.depth = max((path.count("/") for path in (*self._exact, *by_prefix)), default=0)
        self._folds_prefixes = any(path != path.lower() for path in by_prefix)

    def serves_a2a(self, path: str) -> bool:
        """True if an A2A route serves ``path``, the path of an interface in a card."""
        found = self._by_method(path or "/")
        return found is not None and any(route.protocol == "a2a" for route in found.values())

    def find(self, method: str, path: str) -> InboundRoute:
        """Return the route of a request; ``path`` must be canonical.

        Raises:
            Denied: NO_ROUTE, or METHOD_REFUSED if the most specific path does not allow the method.
        """
        by_method = self._by_method(path)
        if not by_method:
            raise Denied(Reason.NO_ROUTE)
        route = by_method.get(method)
        if route is None:
            raise Denied(Reason.METHOD_REFUSED)
        return route

    def same(self, mark: RouteMark) -> InboundRoute | None:
        """Return the route identified by ``mark``, which may be from another policy; None if it is gone."""
        named = self._named.get(mark.name)
        route = named or next((route for route in self.routes if route.mark.match == mark.match), None)
        try:
            return None if route is None else route.for_operation(mark.operation)
        except Denied:
            return None

    def allowed_methods(self, path: str) -> frozenset[str]:
        """Return the methods for ``Allow`` in a 405 answer (RFC 9110 section 10.2.1); empty without a route."""
        return frozenset(self._by_method(path) or ())

    def _by_method(self, path: str) -> Mapping[str, InboundRoute] | None:
        found = self._exact.get(path)
        if found is not None:
            return found
        prefix, covering = self._prefixes.longest(path)
        if prefix == path:
            return covering
        # Many frameworks treat "/Admin" and "/admin/" as "/admin". A wider route must not decide about such a variant
        # of a specific route.
        lower = path.lower()
        if lower != path or self._folds_prefixes:  # else the longest folded prefix equals ``prefix``
            folded_prefix, _ = self._prefixes_folded.longest(lower)
            if len(folded_prefix) > len(prefix):
                return None
        return None if lower.rstrip("/") in self._exact_folded else covering


def _metadata_routes(described: Sequence[InboundRoute]) -> Iterator[tuple[str, InboundRoute]]:
    """Yield metadata paths and the routes that serve them; also the well-known root if there is only one resource."""
    from delegation_core.resource_metadata import WELL_KNOWN

    for route in described:
        resource = route.resource
        if resource is None:
            continue
        for path in {resource.metadata_path, *([WELL_KNOWN] if len(described) == 1 else [])}:
            yield (
                path,
                replace(
                    route, path=path, methods=frozenset({"GET"}), protocol="metadata", operations=None, observe_until=0
                ),
            )


def _card_places(routes: Sequence[InboundRoute]) -> dict[str, tuple[InboundRoute, ...]]:
    """Return the A2A routes by agent-card path: at the root for all routes, and below the path of each."""
    found: dict[str, tuple[InboundRoute, ...]] = {}
    for route in routes:
        if route.protocol == "a2a":
            for start in {"", route.path.rstrip("/")}:
                for path in CARD_PATHS:
                    found[start + path] = (*found.get(start + path, ()), route)
    return found


def _folded(path: str) -> str:
    return path.rstrip("/").lower()
