"""Routes under which each observed call passes once it carries a delegated token, and no others. Pure.

One route holds the methods of a place that the same callers use with the same scopes, so that no caller gets a method
that only another one used. A path is widened only where several ids were seen, or where its id may be a secret. What
rests on too little evidence is held back: proposed as a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeAlias

from sidecar.audit.counts import counted
from sidecar.audit.suggest.evidence import MAX_DAYS, Calls, Place, Seen, Spot, Witness
from sidecar.delegation.inbound_routes import InboundRoutes
from sidecar.delegation.route import InboundRoute
from sidecar.delegation.scope import ScopeSet
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Denied

ENOUGH: Final = 3  # calls
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_RESERVED: Final = frozenset({"none", "other"})  # names of no route in metrics
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,55}")
_NO_NAME: Final = re.compile(r"[^a-z0-9._]+")
_LONGEST: Final = 48

_Hop: TypeAlias = tuple[str, str]  # caller and callee


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One caller of a route. ``held_back``: the reason why its line is a comment."""

    spiffe_id: str
    calls: int
    days: int
    held_back: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """One inbound route. ``scopes_seen``: the scopes are those of records; otherwise they are made up by method.

    ``unnamed`` counts calls without a proven caller; ``sources`` are addresses of such callers. ``widened_from`` counts
    the paths that became one prefix.
    """

    name: str
    path: str
    prefix: bool
    methods: tuple[str, ...]
    scopes: tuple[str, ...]
    scopes_seen: bool
    peers: tuple[Peer, ...]
    calls: int
    days: int
    unnamed: int
    sources: tuple[str, ...]
    widened_from: int
    held_back: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbound:
    """One outbound route, to the next hop ``peer``. ``scopes_onward`` are further ones, for the peer's own calls.

    ``scopes_held_back`` are not among them: only calls that are held back at the peer need these.
    """

    name: str
    peer: str
    methods: tuple[str, ...]
    scopes: tuple[str, ...]
    scopes_seen: bool
    scopes_onward: tuple[str, ...]
    scopes_held_back: tuple[str, ...]
    calls: int
    days: int
    held_back: str | None


class _Asked(NamedTuple):
    """The routes of a callee that one caller needs: those that are open to it, and those that are held back."""

    proposed: list[Inbound]
    held_back: list[Inbound]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The routes of one workload."""

    workload: str
    inbound: tuple[Inbound, ...]
    outbound: tuple[Outbound, ...]

    @property
    def complete(self) -> bool:
        """True if nothing is held back."""
        for route in self.inbound:
            if route.held_back or route.unnamed or any(peer.held_back for peer in route.peers):
                return False
        return not any(route.held_back for route in self.outbound)


def suggestions(witnesses: Mapping[str, Witness]) -> list[Suggestion]:
    """Propose the routes of every workload.

    A caller asks for the scopes that its callee is to need, and for those of the callee's own calls: no token of a
    chain has more than the one before.
    """
    inbound = {workload: _inbound(workload, witnesses[workload].inbound) for workload in sorted(witnesses)}
    asked: dict[_Hop, _Asked] = {}
    for workload, routes in inbound.items():
        for route in routes:
            for peer in route.peers:
                one = asked.setdefault((peer.spiffe_id, workload), _Asked([], []))
                (one.held_back if route.held_back or peer.held_back else one.proposed).append(route)
    outbound = {workload: _outbound(workload, witnesses[workload].outbound, asked) for workload in inbound}
    return [
        Suggestion(workload, routes, tuple(_with_onward(route, outbound) for route in outbound[workload]))
        for workload, routes in inbound.items()
    ]


def _inbound(workload: str, places: Mapping[Spot, Place]) -> tuple[Inbound, ...]:
    names, service = _Names(), _service(workload)
    proposed = [
        (route, places[spot].samples)
        for spot in sorted(places)
        for route in _routes(spot, places[spot], service=service, names=names)
    ]
    core = InboundRoutes([_core_route(route) for route, _ in proposed if route.held_back is None])
    return tuple(_checked(route, samples, core) for route, samples in proposed)


def _routes(spot: Spot, place: Place, *, service: str, names: _Names) -> Iterator[Inbound]:
    """Yield the routes of one place: methods of the same callers and scopes together."""
    prefix = spot.ids and (place.paths > 1 or place.long_id)
    path = spot.path if prefix or not spot.ids else place.samples[0]
    groups: dict[tuple[object, ...], list[str]] = {}
    found: dict[str, tuple[Mapping[str, str | None], ScopeSet, bool]] = {}
    for method in sorted({method for method, _ in place.uses}):
        judged = _judged({peer: seen for (one, peer), seen in place.uses.items() if one == method})
        seen_scopes = place.needed.get(method)
        scopes = seen_scopes or frozenset({_scope_of(service, method)})
        found[method] = (judged, scopes, bool(seen_scopes))
        groups.setdefault((frozenset(judged.items()), scopes, bool(seen_scopes)), []).append(method)
    for methods in groups.values():
        judged, scopes, scopes_seen = found[methods[0]]
        uses = {peer: [place.uses[one, peer] for one in methods if (one, peer) in place.uses] for peer in judged}
        both = [seen for several in uses.values() for seen in several]
        reads = _READING.issuperset(methods)
        yield Inbound(
            name=names.take(path, suffix="" if len(groups) == 1 else "-read" if reads else "-write"),
            path=path,
            prefix=prefix,
            methods=tuple(methods),
            scopes=tuple(sorted(scopes)),
            scopes_seen=scopes_seen,
            peers=tuple(
                Peer(spiffe_id=peer, calls=_calls(uses[peer]), days=_days(uses[peer]), held_back=judged[peer])
                for peer in sorted(judged)
                if peer
            ),
            calls=_calls(both),
            days=_days(both),
            unnamed=_calls(uses.get("", ())),
            sources=tuple(sorted(place.sources)) if "" in uses else (),
            widened_from=place.paths if prefix else 0,
            held_back=_held_back(path, judged, prefix=prefix),
        )


def _judged(uses: Mapping[str, Seen]) -> Mapping[str, str | None]:
    """Tell for each caller of one method of a place why it is held back, or None."""
    days = set().union(*(seen.days for seen in uses.values()))
    alone = sum(bool(peer) and seen.calls >= ENOUGH for peer, seen in uses.items()) == 1
    judged: dict[str, str | None] = {}
    for peer, seen in uses.items():
        if not peer:
            judged[peer] = "no proven caller"
        elif seen.calls < ENOUGH:
            judged[peer] = f"seen {counted(seen.calls, 'time')}"
        elif len(seen.days) == 1 and alone:
            judged[peer] = "seen from one caller on one day"
        elif len(seen.days) == 1 and len(days) > 1:
            judged[peer] = "seen on one day of several"
        else:
            judged[peer] = None
    return judged


def _held_back(path: str, judged: Mapping[str, str | None], *, prefix: bool) -> str | None:
    if prefix and path == "/":
        return "an id comes first in the path, so this would open every path"
    if any(reason is None for reason in judged.values()):
        return None
    reasons = {reason for reason in judged.values() if reason is not None}
    return reasons.pop() if len(reasons) == 1 else "no caller was seen often enough"


def _checked(route: Inbound, paths: Iterable[str], core: InboundRoutes) -> Inbound:
    """Hold back a route that the core does not find for the paths that it was made from.

    Paths that differ only in case, or in a slash at the end, stand in each other's way.
    """
    if route.held_back is not None:
        return route
    if all(_finds(core, method, path, route.name) for path in paths for method in route.methods):
        return route
    return replace(route, held_back="paths that differ only in case or a last slash")


def _finds(core: InboundRoutes, method: str, path: str, name: str) -> bool:
    try:
        return core.find(method, path).name == name
    except Denied:
        return False


def _core_route(route: Inbound) -> InboundRoute:
    return InboundRoute(
        name=route.name,
        path=route.path,
        prefix=route.prefix,
        methods=frozenset(route.methods),
        scopes=frozenset(route.scopes),
        peers=frozenset(SpiffeId(peer.spiffe_id) for peer in route.peers if peer.held_back is None),
        issuers=frozenset(),
    )


def _outbound(
    workload: str, routes: Mapping[tuple[str, str], Calls], asked: Mapping[_Hop, _Asked]
) -> tuple[Outbound, ...]:
    names = _Names()
    found = []
    for (name, peer), calls in sorted(routes.items()):
        proposed, held_back = asked.get((workload, peer), _Asked([], []))
        needed = proposed or ([] if calls.scopes else held_back)
        seen = bool(calls.scopes) or any(route.scopes_seen for route in needed)
        scopes = calls.scopes.union(*(route.scopes for route in needed))
        scopes = scopes or {_scope_of(_service(peer), method) for method in calls.uses}
        count, days = _calls(calls.uses.values()), _days(calls.uses.values())
        weak = f"seen {counted(count, 'time')}" if count < ENOUGH else "seen on one day" if days == 1 else None
        if weak is None and needed and not proposed:
            weak = "each of its calls is held back at the peer"
        found.append(
            Outbound(
                name=names.exactly(name) if _NAME.fullmatch(name) else names.take(_service(peer)),
                peer=peer,
                methods=tuple(sorted(calls.uses)),
                scopes=tuple(sorted(scopes)),
                scopes_seen=seen,
                scopes_onward=(),
                scopes_held_back=tuple(sorted({scope for one in held_back for scope in one.scopes} - scopes)),
                calls=count,
                days=days,
                held_back=weak,
            )
        )
    return tuple(found)


def _with_onward(route: Outbound, outbound: Mapping[str, Sequence[Outbound]]) -> Outbound:
    """Return the route with the scopes of all calls that its peer makes, and of those that these cause."""
    scopes: set[str] = set()
    reached, rest = {route.peer}, [route.peer]
    while rest:
        for one in outbound.get(rest.pop(), ()):
            if one.held_back is None:
                scopes.update(one.scopes)
                if one.peer not in reached:
                    reached.add(one.peer)
                    rest.append(one.peer)
    held_back = tuple(scope for scope in route.scopes_held_back if scope not in scopes)
    return replace(route, scopes_onward=tuple(sorted(scopes.difference(route.scopes))), scopes_held_back=held_back)


class _Names:
    """Names of routes, each given once."""

    def __init__(self) -> None:
        self._taken: set[str] = set(_RESERVED)

    def take(self, text: str, *, suffix: str = "") -> str:
        """Make a name from a text, such as a path."""
        name = _NO_NAME.sub("-", text.lower()).strip("-._")[:_LONGEST] or "root"
        return self.exactly(f"{name}{suffix}")

    def exactly(self, name: str) -> str:
        """Return the name, with a number if it is taken."""
        number, free = 1, name
        while free in self._taken:
            number += 1
            free = f"{name}-{number}"
        self._taken.add(free)
        return free


def _service(workload: str) -> str:
    """Return a short name of a workload for its scopes: the end of its SPIFFE ID."""
    return _NO_NAME.sub("-", workload.rpartition("/")[2].lower()).strip("-._")[:_LONGEST] or "service"


def _scope_of(service: str, method: str) -> str:
    return f"{service}.{'read' if method in _READING else 'write'}"


def _calls(seen: Iterable[Seen]) -> int:
    return sum(one.calls for one in seen)


def _days(seen: Iterable[Seen]) -> int:
    return min(len(set().union(*(one.days for one in seen))), MAX_DAYS)
