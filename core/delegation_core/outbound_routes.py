"""Index of all outbound routes of one policy; finds the route of an agent's call by its host or path prefix."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from delegation_core.errors import Denied, Reason
from delegation_core.prefixes import Prefixes
from delegation_core.route import OutboundRoute, Overlap
from delegation_core.target import CanonicalTarget

if TYPE_CHECKING:
    from delegation_core.connect import ConnectRoute
    from delegation_core.outside import OutsideRoute

CallRoute: TypeAlias = "OutboundRoute | OutsideRoute"
AnyRoute: TypeAlias = "CallRoute | ConnectRoute"

_DEFAULT_PORT: Final = ":80"


def outbound_overlaps(routes: Sequence[AnyRoute]) -> list[Overlap]:
    """Return pairs of outbound routes with equal names, hosts (default ports ignored) or prefixes.

    A host may have one route for calls and one for tunnels, which the method CONNECT selects.
    """
    found: list[Overlap] = []
    names: set[str] = set()
    taken: dict[tuple[str | None, ...], str] = {}
    for route in routes:
        if route.name in names:
            found.append(Overlap(route.name, route.name, "the name"))
        names.add(route.name)
        other = taken.setdefault(_match_of(route), route.name)
        if other != route.name:
            what = route.host if route.protocol == "connect" else route.host or route.prefix
            found.append(Overlap(other, route.name, str(what)))
    return found


def _match_of(route: AnyRoute) -> tuple[str | None, ...]:
    if route.protocol == "connect":
        return "CONNECT", route.host
    return (_without_default_port(route.host) if route.host else None, route.prefix)


class OutboundRoutes:
    """All outbound routes of one policy, indexed.

    ``routes``: to the mesh. ``outside``: to hosts outside the mesh. ``tunnels``: for CONNECT. ``depth``: as in
    ``InboundRoutes``, for calls to our own listener.

    Raises:
        ValueError: two routes overlap (see ``outbound_overlaps``).
    """

    __slots__ = ("_hosts", "_prefixes", "_servers", "_tunnels", "depth", "names", "outside", "routes", "tunnels")

    def __init__(self, routes: Sequence[AnyRoute]) -> None:
        if outbound_overlaps(routes):
            raise ValueError("outbound routes overlap")
        self.routes = tuple(route for route in routes if isinstance(route, OutboundRoute))
        self.outside = tuple(route for route in routes if route.protocol == "outside")
        self.tunnels = tuple(route for route in routes if route.protocol == "connect")
        self.names = tuple(route.name for route in routes)
        calls: tuple[CallRoute, ...] = (*self.routes, *self.outside)
        self._hosts = {_without_default_port(route.host): route for route in calls if route.host is not None}
        self._prefixes = Prefixes({route.prefix: route for route in calls if route.prefix is not None})
        self.depth = max(self._prefixes.deepest, 0)
        self._tunnels = {route.host: route for route in self.tunnels}
        self._servers = {route.name: (route.upstream.host, route.upstream.port) for route in calls}
        for tunnel in self.tunnels:
            host, _, port = tunnel.host.rpartition(":")
            self._servers[tunnel.name] = host.strip("[]"), int(port)

    def server_of(self, name: str) -> tuple[str, int] | None:
        """Return the host and port of the next hop of the route called ``name``; None if there is no such route."""
        return self._servers.get(name)

    def has_host(self, authority: str) -> bool:
        """True if a route for calls has this host (lower case, default port ignored)."""
        return _without_default_port(authority) in self._hosts

    def find(
        self, authority: str | None, target: CanonicalTarget, *, own_authorities: Container[str]
    ) -> tuple[CallRoute, CanonicalTarget]:
        """Return the route of an agent's call, and the target for the next hop (a matched prefix is stripped).

        ``authority``: from the absolute-form target, or Host. None, or one of ``own_authorities`` (lower case),
        addresses our own listener: then the path prefix selects the route.

        Raises:
            Denied: TARGET_DENIED if no route matches.
        """
        host = None if authority is None else authority.lower()
        if host is not None and host not in own_authorities:
            named = self._hosts.get(_without_default_port(host))
            if named is None:
                raise Denied(Reason.TARGET_DENIED, "no route has this host")
            return named, target
        prefix, found = self._prefixes.longest(target.path)
        if found is None:
            raise Denied(
                Reason.TARGET_DENIED, "the host is the sidecar's own address, and no route's prefix matches the path"
            )
        return found, CanonicalTarget(target.path[len(prefix) :] or "/", target.query)

    def find_tunnel(self, authority: str) -> ConnectRoute:
        """Return the route of a CONNECT to ``authority`` (host and port).

        Raises:
            Denied: TARGET_DENIED if the host and port are not listed.
        """
        route = self._tunnels.get(authority.lower())
        if route is None:
            raise Denied(Reason.TARGET_DENIED, "no route has this host and port")
        return route


def _without_default_port(authority: str) -> str:
    return authority.removesuffix(_DEFAULT_PORT)
