"""All outbound routes of one policy: finds the one that a call of the agent takes, by its host or its path's prefix."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final, TypeAlias

from sidecar.delegation.outside import OutsideRoute
from sidecar.delegation.prefixes import Prefixes
from sidecar.delegation.route import OutboundRoute, Overlap
from sidecar.delegation.target import CanonicalTarget
from sidecar.errors import Denied, Reason

AnyRoute: TypeAlias = OutboundRoute | OutsideRoute

_DEFAULT_PORT: Final = ":80"


def outbound_overlaps(routes: Sequence[AnyRoute]) -> list[Overlap]:
    """Return pairs of outbound routes with equal names, hosts (default ports ignored) or prefixes."""
    found: list[Overlap] = []
    names: set[str] = set()
    taken: dict[tuple[str | None, str | None], str] = {}
    for route in routes:
        if route.name in names:
            found.append(Overlap(route.name, route.name, "the name"))
        names.add(route.name)
        match = (_without_default_port(route.host) if route.host else None, route.prefix)
        other = taken.setdefault(match, route.name)
        if other != route.name:
            found.append(Overlap(other, route.name, str(route.host or route.prefix)))
    return found


class OutboundRoutes:
    """All outbound routes of one policy, indexed: ``routes`` into the mesh, ``outside`` to hosts outside of it.

    Raises:
        ValueError: two routes overlap (see ``outbound_overlaps``).
    """

    __slots__ = ("_hosts", "_prefixes", "outside", "routes")

    def __init__(self, routes: Sequence[AnyRoute]) -> None:
        if outbound_overlaps(routes):
            raise ValueError("outbound routes overlap")
        self.routes = tuple(route for route in routes if isinstance(route, OutboundRoute))
        self.outside = tuple(route for route in routes if isinstance(route, OutsideRoute))
        self._hosts = {_without_default_port(route.host): route for route in routes if route.host is not None}
        self._prefixes = Prefixes({route.prefix: route for route in routes if route.prefix is not None})

    def find(
        self, authority: str | None, target: CanonicalTarget, *, own_authorities: Container[str]
    ) -> tuple[AnyRoute, CanonicalTarget]:
        """Return the route of an agent's call, and the target for the next hop (a matched prefix is stripped).

        ``authority`` is that of the absolute form, or the Host. None or one of ``own_authorities`` (lower case) means
        that our own listener is addressed, and the path's prefix selects the target.

        Raises:
            Denied: TARGET_DENIED, there is no such route.
        """
        host = None if authority is None else authority.lower()
        if host is not None and host not in own_authorities:
            named = self._hosts.get(_without_default_port(host))
            if named is None:
                raise Denied(Reason.TARGET_DENIED, "no route has this host")
            return named, target
        prefix, found = self._prefixes.longest(target.path)
        if found is None:
            raise Denied(Reason.TARGET_DENIED, "no route has a prefix of this path")
        return found, CanonicalTarget(target.path[len(prefix) :] or "/", target.query)


def _without_default_port(authority: str) -> str:
    return authority.removesuffix(_DEFAULT_PORT)
