"""Routes: finds the configured call that a request makes. Matched once, on the canonical target.

The most specific path wins and alone decides: if it does not take the method, no wider route is tried. The cost of a
lookup does not depend on the number of routes: one for exact paths, one per segment (of the deepest prefix) for
prefixes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple, TypeVar

from sidecar.delegation.a2a import CARD_METHODS, CARD_PATHS, PLAIN_RULES, A2aRules
from sidecar.delegation.crossing import Crossing
from sidecar.delegation.human import Human
from sidecar.delegation.operation import Operations, RouteProtocol, SessionsOf
from sidecar.delegation.prefixes import Prefixes
from sidecar.delegation.resource_metadata import WELL_KNOWN, ProtectedResource
from sidecar.delegation.scope import ScopeSet
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.delegation.target import CanonicalTarget as CanonicalTarget
from sidecar.delegation.target import canonical_target as canonical_target
from sidecar.errors import Denied, Reason

MAX_MESSAGE_BYTES: Final = 1024 * 1024  # of a message of MCP or A2A, where the settings do not say otherwise

_AnyRoute = TypeVar("_AnyRoute")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,31}")
_NEVER_SERVED: Final = frozenset({"CONNECT", "TRACE"})
_AUTHORITY: Final = re.compile(r"(?:[a-z0-9._-]{1,255}|\[[0-9a-f:.]{2,45}\])(?::[1-9][0-9]{0,4})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundRoute:
    """One call that peers may make of this workload.

    ``path`` is exact, or with ``prefix`` the start of the path by whole segments (``/`` is every path). All ``scopes``
    are needed. ``peers`` may call (empty: nobody) with tokens of ``issuers`` (empty: nobody's). A request may use the
    outbound routes in ``may_call`` (empty: none), at most ``max_calls`` times in all, and for ``linger_s`` seconds
    after its end. ``allow_self`` admits an autonomous agent acting for itself, and ``delegate_self`` opens ``may_call``
    to such a request as well. ``forwarded`` tells the agent how the
    call reached us, in ``X-Forwarded-Proto``, ``-Host`` and ``-For``. ``human`` is the login that the user needs.
    Before ``observe_until`` (seconds since the epoch) the route only observes: it lets pass what ``observed.RELAXED``
    lists. ``subjects`` are those for whom it may be called (empty: anybody).
    With a ``protocol`` above HTTP, ``operations`` has a route of its own for each of its operations, of which
    ``operation`` is the key; their messages have ``max_message_bytes`` at most. Sessions of MCP belong to a subject at
    a peer, or with ``sessions`` ``per_actor`` to a peer. ``resource`` is what clients are told of it (RFC 9728).
    With ``filter_lists`` an answer that lists tools, prompts or resources holds those that its reader may call.
    ``a2a`` is for routes of A2A.

    Raises:
        ValueError: the path is not canonical, a prefix ends in a slash, or a name, method or number is invalid;
            operations without a protocol.
    """

    name: str
    path: str
    prefix: bool
    methods: frozenset[str]
    scopes: ScopeSet
    peers: frozenset[SpiffeId]
    issuers: frozenset[str]
    may_call: frozenset[str] = frozenset()
    pass_token: bool = False
    forwarded: bool = False
    allow_self: bool = False
    delegate_self: bool = False
    linger_s: float = 0.0
    max_calls: int = 64
    observe_until: int = 0
    human: Human | None = None
    subjects: frozenset[str] = frozenset()
    protocol: RouteProtocol = "http"
    operations: Operations[InboundRoute] | None = field(default=None, compare=False)
    operation: str | None = None
    max_message_bytes: int = MAX_MESSAGE_BYTES
    sessions: SessionsOf = "per_subject"
    resource: ProtectedResource | None = None
    filter_lists: bool = False
    a2a: A2aRules = PLAIN_RULES
    key: str = field(init=False)
    forwards_as_is: bool = field(init=False)  # nothing lingers, and nothing of the answer is read
    mark: RouteMark = field(init=False, compare=False, repr=False)  # identifies the route after a reload

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.name if self.operation is None else f"{self.name} {self.operation}")
        object.__setattr__(self, "forwards_as_is", self.protocol == "http" and not self.linger_s)
        object.__setattr__(self, "mark", RouteMark(self.name, (self.path, self.prefix, self.methods), self.operation))
        if self.operations is not None and (self.protocol == "http" or self.operation is not None):
            raise ValueError("only a route of a protocol has operations, which have none themselves")
        require_name(self.name)
        require_path(self.path, prefix=self.prefix)
        if not self.methods:
            raise ValueError("a route names its methods")
        for method in self.methods:
            require_method(method)
        if not 0 <= self.linger_s < float("inf") or self.max_calls < 0:
            raise ValueError("linger_s and max_calls are not negative")

    def below(self, path: str) -> str:
        """Return the part of a path below the route's own; empty at it."""
        return path.removeprefix(self.path.rstrip("/")) if self.prefix and path != self.path else ""

    @property
    def scopes_of_any(self) -> ScopeSet:
        """The scopes that a call needs whatever its operation: of a route without operations, its own."""
        if self.operations is None:
            return self.scopes
        return frozenset.intersection(*(self.operations.find(key).scopes for key in self.operations.keys))

    def for_operation(self, key: str | None) -> InboundRoute:
        """Return the route of one of its operations; with ``key`` None the route itself.

        Raises:
            Denied: OPERATION_REFUSED, the operation is not listed, or the route's protocol has changed.
        """
        return self if key is None and self.operations is None else _operation(self.operations, key)


def _operation(operations: Operations[_AnyRoute] | None, key: str | None) -> _AnyRoute:
    if operations is None or key is None:
        raise Denied(Reason.OPERATION_REFUSED, "the protocol of the route has changed")
    return operations.find(key)


class RouteMark(NamedTuple):
    """Identifies the same route in another policy: by its name, or if renamed by the requests it matches.

    ``operation`` is the listed key, where the route is that of an operation.
    """

    name: str
    match: tuple[str, bool, frozenset[str]]
    operation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Address of the next hop."""

    scheme: Literal["http", "https"]
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundRoute:
    """One target the agent may call: by ``host`` (authority, lower case), or by ``prefix`` of the path on our listener.

    The next hop must show the SPIFFE ID ``peer``; the token is issued for ``audience``, by the token service of
    ``issuer``; ``scopes`` is the ceiling of what may be asked for. With ``token`` ``self`` the call is made on the
    workload's own authority, with ``login`` by the token that a user granted for this route alone. At an entry
    ``first_token_life_s`` replaces that of the entry for chains that start here. Before ``observe_until`` (seconds
    since the epoch) a call without a handle goes to ``peer`` with its own credential.
    ``crossings`` by issuer: whose tokens are exchanged here besides those of ``issuer``. ``txn_token``: the transaction
    token of a chain goes along. ``protocol``, ``operations``, ``operation``, ``max_message_bytes`` and ``a2a`` as of an
    inbound route. ``for_itself`` is the route of the same operation on the workload's own authority, where that is
    allowed. ``http_version`` is that of the next hop: the agent's own, or one for all calls.

    Raises:
        ValueError: not exactly one of host and prefix, a prefix that is not canonical, no audience, or no issuer; it
            observes a next hop that proves no SPIFFE ID; a crossing from the route's own issuer, or under another name.
    """

    name: str
    host: str | None
    prefix: str | None
    upstream: Upstream
    peer: SpiffeId | None
    audience: str
    issuer: str
    scopes: ScopeSet
    token: Literal["exchange", "self", "login"] = "exchange"  # noqa: S105 - a kind, no secret
    first_token_life_s: int | None = None
    observe_until: int = 0
    crossings: Mapping[str, Crossing] = field(default_factory=dict, hash=False)
    txn_token: bool = False
    protocol: RouteProtocol = "http"
    operations: Operations[OutboundRoute] | None = field(default=None, compare=False)
    for_itself: OutboundRoute | None = field(default=None, compare=False)
    operation: str | None = None
    max_message_bytes: int = MAX_MESSAGE_BYTES
    a2a: A2aRules = PLAIN_RULES
    http_version: Literal["same", "1.1", "2"] = "same"
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.name if self.operation is None else f"{self.name} {self.operation}")
        if self.operations is not None and (self.protocol == "http" or self.operation is not None):
            raise ValueError("only a route of a protocol has operations, which have none themselves")
        require_match(self.name, self.host, self.prefix)
        if self.observe_until and self.peer is None:
            raise ValueError("observe_until: only a route with a peer observes; name the peer")
        if not self.audience or not self.issuer:
            raise ValueError("an outbound route names the audience of its tokens, and their issuer")
        if any(issuer == self.issuer or issuer != one.issuer for issuer, one in self.crossings.items()):
            raise ValueError("a crossing is from another issuer than the route's, under that issuer's name")

    def for_operation(self, key: str | None) -> OutboundRoute:
        """Return the route of one of its operations; with ``key`` None the route itself.

        Raises:
            Denied: OPERATION_REFUSED, the operation is not listed, or the route's protocol has changed.
        """
        return self if key is None and self.operations is None else _operation(self.operations, key)


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two routes, by name, that would both match. ``what`` they share: a name, or methods of a path, or a target."""

    first: str
    second: str
    what: str


def overlaps(routes: Sequence[InboundRoute]) -> list[Overlap]:
    """Return pairs of inbound routes that could match the same request, which is a settings error."""
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

    Servers of MCP and A2A may answer below their path too (a mount, ``/mcp/``), so no wider route covers paths there.
    Where one has metadata, everything at its well-known place is the sidecar's, whatever a wider route covers.
    ``cards`` has the paths of agent cards, with the routes of A2A that each is for: ``find`` returns the first.

    Raises:
        ValueError: two routes overlap (see ``overlaps``).
    """

    __slots__ = (
        "_exact",
        "_exact_folded",
        "_folds_prefixes",
        "_named",
        "_prefixes",
        "_prefixes_folded",
        "cards",
        "routes",
        "scopes",
    )

    def __init__(self, routes: Sequence[InboundRoute]) -> None:
        if overlaps(routes):
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
            by_prefix[WELL_KNOWN] = {}
            self._exact |= {path: {"GET": route} for path, route in _metadata_routes(described)}
        self.cards = _card_places(self.routes)
        for path, served in self.cards.items():
            self._exact[path] = dict.fromkeys(CARD_METHODS, served[0])
        self._exact_folded = frozenset(map(_folded, self._exact))
        self._prefixes = Prefixes(by_prefix)
        self._prefixes_folded = Prefixes({path.lower(): True for path in by_prefix})
        self._folds_prefixes = any(path != path.lower() for path in by_prefix)

    def serves_a2a(self, path: str) -> bool:
        """Tell if an interface of A2A at this path, as a card has it, is on a route."""
        found = self._by_method(path or "/")
        return found is not None and any(route.protocol == "a2a" for route in found.values())

    def find(self, method: str, path: str) -> InboundRoute:
        """Return the route of a request for a canonical path.

        Raises:
            Denied: NO_ROUTE, or METHOD_REFUSED if the most specific route of the path does not take the method.
        """
        by_method = self._by_method(path)
        if not by_method:
            raise Denied(Reason.NO_ROUTE)
        route = by_method.get(method)
        if route is None:
            raise Denied(Reason.METHOD_REFUSED)
        return route

    def same(self, mark: RouteMark) -> InboundRoute | None:
        """Return the counterpart of a route, perhaps of another policy, in this one; None if it is gone."""
        named = self._named.get(mark.name)
        route = named or next((route for route in self.routes if route.mark.match == mark.match), None)
        try:
            return None if route is None else route.for_operation(mark.operation)
        except Denied:
            return None

    def allowed_methods(self, path: str) -> frozenset[str]:
        """Return the methods for ``Allow`` in a 405 answer (RFC 9110 section 10.2.1); empty where there is no route."""
        return frozenset(self._by_method(path) or ())

    def _by_method(self, path: str) -> Mapping[str, InboundRoute] | None:
        found = self._exact.get(path)
        if found is not None:
            return found
        prefix, covering = self._prefixes.longest(path)
        if prefix == path:
            return covering
        # Many frameworks treat "/Admin" and "/admin/" as "/admin". Such a variant of a specific route must not be
        # judged by a wider route that happens to cover it.
        lower = path.lower()
        if lower != path or self._folds_prefixes:  # else the longest folded prefix is the one that was found
            folded_prefix, _ = self._prefixes_folded.longest(lower)
            if len(folded_prefix) > len(prefix):
                return None
        return None if lower.rstrip("/") in self._exact_folded else covering


def _metadata_routes(described: Sequence[InboundRoute]) -> Iterator[tuple[str, InboundRoute]]:
    """Yield the paths of metadata and the routes that tell it: at the root too, if that is about one resource alone."""
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
    """Return the paths of cards: of the host, for all routes of A2A, and below the path of each."""
    found: dict[str, tuple[InboundRoute, ...]] = {}
    for route in routes:
        if route.protocol == "a2a":
            for start in {"", route.path.rstrip("/")}:
                for path in CARD_PATHS:
                    found[start + path] = (*found.get(start + path, ()), route)
    return found


def require_name(name: str) -> None:
    """Refuse a name that no route may have.

    Raises:
        ValueError: so it is.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("a route's name is 1 to 64 letters, digits, dots, dashes and underscores")


def require_match(name: str, host: str | None, prefix: str | None) -> None:
    """Refuse an outbound route without a name, or with anything but one host or one prefix.

    Raises:
        ValueError: so it is.
    """
    require_name(name)
    if (host is None) == (prefix is None):
        raise ValueError("an outbound route is matched by exactly one of host and prefix")
    if host is not None and not _AUTHORITY.fullmatch(host):
        raise ValueError("a host is a lower-case name or address, with or without a port")
    if prefix is not None:
        require_path(prefix, prefix=True)


def require_method(method: str) -> None:
    """Refuse a method that no route can serve.

    Raises:
        ValueError: it is not an upper-case token, or CONNECT or TRACE.
    """
    if not _METHOD.fullmatch(method) or method in _NEVER_SERVED:
        raise ValueError("a method is an upper-case token, and neither CONNECT nor TRACE")


def require_path(path: str, *, prefix: bool) -> None:
    """Refuse a route's path that no request could ever match.

    Raises:
        ValueError: it is not in canonical form or has no single safe meaning, or a ``prefix`` ends with a slash.
    """
    try:
        canonical = canonical_target(path.encode())
    except Denied as error:
        raise ValueError(f"the path cannot be served: {error.detail}") from error
    if canonical.path != path:
        raise ValueError("the path is not in canonical form, or has a query")
    if prefix and path != "/" and path.endswith("/"):
        raise ValueError("a prefix matches whole segments and has no slash at its end")


def _folded(path: str) -> str:
    return path.rstrip("/").lower()
