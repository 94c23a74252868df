"""Proposes routes under which each accepted call passes once it carries a delegated token. Pure.

One route holds the methods of a place that the same callers use with the same scopes, so that no caller gets a method
that only another caller used. A caller's path is widened only if its own calls had several ids or a long one. A
proposal with too little evidence is held back: written as a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeAlias

from delegation_audit.suggest.evidence import MAX_DAYS, MAX_NAMES, Calls, Place, Seen, Spot, Use, Witness
from delegation_core.console.counts import pluralise
from delegation_core.errors import Denied
from delegation_core.inbound_routes import InboundRoutes
from delegation_core.route import InboundRoute
from delegation_core.scope import ScopeSet
from delegation_core.spiffe_id import SpiffeId

ENOUGH: Final = 3  # calls
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_RESERVED: Final = frozenset({"none", "other"})  # metrics use these names for calls without a route
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,55}")
_NO_NAME: Final = re.compile(r"[^a-z0-9._]+")
_LONGEST: Final = 48

_Hop: TypeAlias = tuple[str, str]  # caller and callee


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One caller of a route. ``held_back``: reason why its line is a comment, or None. ``records``: first names.

    ``among``: the calls belong to the caller's wider route, which includes this path.
    """

    spiffe_id: str
    calls: int
    days: int
    records: tuple[str, ...]
    held_back: str | None
    among: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """One inbound route. ``scopes_seen``: True if records named the scopes, False if they are invented by method.

    ``unnamed``: number of calls without a proven caller. ``sources``: IP addresses of such callers. ``widened_from``:
    number of paths that one prefix replaces. ``held_back``: reason why the route is a comment, or None.
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
    """One outbound route, to the next hop ``peer``. ``scopes_onward``: additional scopes for the peer's own calls.

    ``scopes_held_back``: scopes left out because only calls that are held back at the peer need them.
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
    records: tuple[str, ...]
    held_back: str | None


class _Asked(NamedTuple):
    """The routes of a callee that one caller needs: those that permit the caller, and those that are held back."""

    proposed: list[Inbound]
    held_back: list[Inbound]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The proposed routes of one workload."""

    workload: str
    inbound: tuple[Inbound, ...]
    outbound: tuple[Outbound, ...]

    @property
    def complete(self) -> bool:
        """True if no route and no caller is held back, and every call has a proven caller."""
        for route in self.inbound:
            if route.held_back or route.unnamed or any(peer.held_back for peer in route.peers):
                return False
        return not any(route.held_back for route in self.outbound)


def suggestions(witnesses: Mapping[str, Witness]) -> list[Suggestion]:
    """Propose the routes of every workload.

    A caller requests the scopes that its callee's routes need, and those of the callee's own calls, because a token
    never holds more scopes than its parent.
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
        Suggestion(workload, routes, tuple(_add_onward(route, outbound) for route in outbound[workload]))
        for workload, routes in inbound.items()
    ]


def _inbound(workload: str, places: Mapping[Spot, Place]) -> tuple[Inbound, ...]:
    names, service = _Names(), _service(workload)
    proposed = [made for spot in sorted(places) for made in _routes(spot, places[spot], service=service, names=names)]
    core = InboundRoutes([_core_route(route) for route, _ in proposed if route.held_back is None])
    return tuple(_check(route, uses, core) for route, uses in proposed)


class _Form(NamedTuple):
    """The match of a route: one path, or a prefix."""

    path: str
    prefix: bool


class _Grant(NamedTuple):
    """The use that a caller's line rests on. ``held_back`` and ``among``: see ``Peer``."""

    use: Use
    held_back: str | None
    among: bool = False

    @property
    def basis(self) -> Seen:
        """The accepted calls, or without any, all calls; a use without accepted calls is always held back."""
        return self.use.accepted if self.use.accepted.calls else self.use.seen


_Methods: TypeAlias = dict[str, dict[str, _Grant]]  # by method and caller


def _routes(spot: Spot, place: Place, *, service: str, names: _Names) -> Iterator[tuple[Inbound, _Methods]]:
    """Yield each route of one place with its grants. Methods with the same callers and scopes share a route."""
    for form, methods in sorted(_forms(spot, place).items()):
        groups: dict[tuple[object, ...], list[str]] = {}
        for method, grants in sorted(methods.items()):
            judged = frozenset((peer, one.held_back, one.among) for peer, one in grants.items())
            groups.setdefault((judged, *_scopes_for(grants, service, method)), []).append(method)
        for together in groups.values():
            reads = _READING.issuperset(together)
            name = names.take(form.path, suffix="" if len(groups) == 1 else "-read" if reads else "-write")
            chosen = {method: methods[method] for method in together}
            yield _route(form, chosen, place, name=name, service=service), chosen


def _forms(spot: Spot, place: Place) -> Mapping[_Form, _Methods]:
    """Return the matches of a place and their grants; each caller's match depends on its own calls only."""
    forms: dict[_Form, _Methods] = {}
    for (method, peer), use in place.uses.items():
        basis = _Grant(use, None).basis
        prefix = spot.ids and (basis.paths > 1 or basis.long_id)
        form = _Form(spot.path if prefix or not spot.ids else basis.samples[0], prefix)
        grant = _Grant(use, _weakness(peer, use, prefix=prefix))
        forms.setdefault(form, {}).setdefault(method, {})[peer] = grant
    wide = forms.get(_Form(spot.path, prefix=True), {})
    for form, methods in forms.items():
        if not form.prefix and _is_open(methods):  # an exact path takes precedence over the prefix of other callers
            for method, grants in wide.items():
                for peer, one in grants.items():
                    if one.held_back is None and one.use.accepted.has_path(form.path):
                        methods.setdefault(method, {}).setdefault(peer, one._replace(among=True))
    return forms


def _is_open(methods: _Methods) -> bool:
    return any(grant.held_back is None for grants in methods.values() for grant in grants.values())


def _weakness(peer: str, use: Use, *, prefix: bool) -> str | None:
    """Return the reason to hold back a use, or None to grant it."""
    seen = use.accepted
    if not peer:
        return "no proven caller"
    if not seen.calls:
        return "no evidence but the called side's: neither a delegated token, nor a record of the caller's own sidecar"
    if seen.calls < ENOUGH:
        less = f", and {pluralise(use.seen.calls, 'call')} recorded" if use.seen.calls > seen.calls else ""
        return f"seen {pluralise(seen.calls, 'time')}{less}"
    if len(seen.days) == 1:
        return "seen on one day"
    if prefix and seen.paths == 1:
        return "one path, with an id that may be a secret: it is not written, and a prefix would open more"
    return None


def _scopes_for(grants: Mapping[str, _Grant], service: str, method: str) -> tuple[ScopeSet, bool]:
    """Return the scopes of a method, and True if they are from records, False if they are invented."""
    counting = [one for one in grants.values() if one.held_back is None] or list(grants.values())
    named = {one.basis.scopes for one in counting}
    scopes = named.pop() if len(named) == 1 else None
    return (scopes, True) if scopes else (frozenset({_scope_of(service, method)}), False)


def _route(form: _Form, methods: _Methods, place: Place, *, name: str, service: str) -> Inbound:
    """Build the route for methods that the same callers use with the same scopes."""
    grants = [(peer, one) for grants in methods.values() for peer, one in grants.items()]
    own = [one.basis for _, one in grants if not one.among]
    unnamed = _calls(one.basis for peer, one in grants if not peer)
    first = next(iter(methods))
    scopes, scopes_seen = _scopes_for(methods[first], service, first)
    held_back = {peer: one.held_back for peer, one in grants}
    return Inbound(
        name=name,
        path=form.path,
        prefix=form.prefix,
        methods=tuple(methods),
        scopes=tuple(sorted(scopes)),
        scopes_seen=scopes_seen,
        peers=tuple(_peer(peer, [one for who, one in grants if who == peer]) for peer in sorted(held_back) if peer),
        calls=_calls(own),
        days=_days(own),
        unnamed=unnamed,
        sources=tuple(sorted(place.sources)) if unnamed else (),
        widened_from=max(one.basis.paths for _, one in grants) if form.prefix else 0,
        held_back=_hold_back(form, held_back),
    )


def _peer(spiffe_id: str, grants: Sequence[_Grant]) -> Peer:
    seen = [one.basis for one in grants]
    records = tuple(name for one in seen for name in one.names)[:MAX_NAMES]
    return Peer(
        spiffe_id=spiffe_id,
        calls=_calls(seen),
        days=_days(seen),
        records=records,
        held_back=grants[0].held_back,
        among=grants[0].among,
    )


def _hold_back(form: _Form, judged: Mapping[str, str | None]) -> str | None:
    if form.prefix and form.path == "/":
        return "an id comes first in the path, so this would open every path"
    if any(reason is None for reason in judged.values()):
        return None
    reasons = {reason for reason in judged.values() if reason is not None}
    return reasons.pop() if len(reasons) == 1 else "no caller was seen often enough"


def _check(route: Inbound, granted: _Methods, core: InboundRoutes) -> Inbound:
    """Hold back a route under which the core would refuse one of the route's own sample paths.

    Paths that differ only in case, or in a slash at the end, conflict.
    """
    if route.held_back is not None:
        return route
    for method, grants in granted.items():
        for peer, one in grants.items():
            paths = one.use.accepted.samples if route.prefix else [route.path]
            if one.held_back is None and not all(_lets(core, peer, method, path) for path in paths):
                return replace(route, held_back="paths that differ only in case or a last slash")
    return route


def _lets(core: InboundRoutes, peer: str, method: str, path: str) -> bool:
    try:
        return peer in core.find(method, path).peers
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
        weak = f"seen {pluralise(count, 'time')}" if count < ENOUGH else "seen on one day" if days == 1 else None
        if weak is None and needed and not proposed:
            weak = "each of its calls is held back at the peer"
        found.append(
            Outbound(
                name=names.reserve(name) if _NAME.fullmatch(name) else names.take(_service(peer)),
                peer=peer,
                methods=tuple(sorted(calls.uses)),
                scopes=tuple(sorted(scopes)),
                scopes_seen=seen,
                scopes_onward=(),
                scopes_held_back=tuple(sorted({scope for one in held_back for scope in one.scopes} - scopes)),
                calls=count,
                days=days,
                records=tuple(name for one in calls.uses.values() for name in one.names)[:MAX_NAMES],
                held_back=weak,
            )
        )
    return tuple(found)


def _add_onward(route: Outbound, outbound: Mapping[str, Sequence[Outbound]]) -> Outbound:
    """Return the route with ``scopes_onward``: those of all calls that its peer makes, directly or indirectly."""
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
    """Generator of unique route names."""

    def __init__(self) -> None:
        self._taken: set[str] = set(_RESERVED)

    def take(self, text: str, *, suffix: str = "") -> str:
        """Make a unique name from a text, such as a path."""
        name = _NO_NAME.sub("-", text.lower()).strip("-._")[:_LONGEST] or "root"
        return self.reserve(f"{name}{suffix}")

    def reserve(self, name: str) -> str:
        """Reserve the name, with a number appended if it is already in use; return the reserved name."""
        number, free = 1, name
        while free in self._taken:
            number += 1
            free = f"{name}-{number}"
        self._taken.add(free)
        return free


def _service(workload: str) -> str:
    """Return a short name of a workload for scopes and routes: the last segment of its SPIFFE ID."""
    return _NO_NAME.sub("-", workload.rpartition("/")[2].lower()).strip("-._")[:_LONGEST] or "service"


def _scope_of(service: str, method: str) -> str:
    return f"{service}.{'read' if method in _READING else 'write'}"


def _calls(seen: Iterable[Seen]) -> int:
    return sum(one.calls for one in seen)


def _days(seen: Iterable[Seen]) -> int:
    return min(len(set().union(*(one.days for one in seen))), MAX_DAYS)
