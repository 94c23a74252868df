"""Routes: calls that peers may make to this workload, and targets that its agent may call.

``inbound_routes`` and ``outbound_routes`` find the route of a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeVar

from delegation_core.a2a_rules import PLAIN_RULES, A2aRules
from delegation_core.errors import Denied, Reason
from delegation_core.scope import ScopeSet
from delegation_core.spiffe_id import SpiffeId

if TYPE_CHECKING:
    from delegation_core.crossing import Crossing
    from delegation_core.human import Human
    from delegation_core.operation import Operations, RouteProtocol, SessionsOf
    from delegation_core.resource_metadata import ProtectedResource

MAX_MESSAGE_BYTES: Final = 1024 * 1024  # default limit of an MCP or A2A message

_AnyRoute = TypeVar("_AnyRoute")


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundRoute:
    """One call that peers may make to this workload.

    ``path`` is exact, or with ``prefix`` a prefix of whole segments (``/``: every path). A token needs all ``scopes``.
    Allowed callers are ``peers`` (empty: none) with tokens of ``issuers`` (empty: none). A request may use the outbound
    routes in ``may_call`` (empty: none), at most ``max_calls`` times in total, and until ``linger_s`` seconds after its
    end. ``allow_self``: admit an autonomous agent that acts for itself; ``delegate_self``: such a request may use
    ``may_call`` too. ``forwarded``: send ``X-Forwarded-Proto``, ``-Host`` and ``-For`` to the agent. ``human``: the
    login that is required of the user. ``subjects``: those for whom peers may call (empty: all).
    Before ``observe_until`` (seconds since the epoch) the route observes: requests refused for a reason in
    ``observed.RELAXED`` pass.
    With a ``protocol`` above HTTP, ``operations`` has a route object for each allowed operation, and ``operation`` is
    that object's key; a message has at most ``max_message_bytes``. ``sessions``: MCP sessions belong to one subject at
    a peer, or with ``per_actor`` to the peer. ``resource``: protected resource metadata (RFC 9728).
    ``filter_lists``: remove tools, prompts and resources that the caller may not use from answers. ``a2a``: rules of an
    A2A route. ``stream``: requests and answers may stay open; only idle time is limited. ``deadline_s``: maximum
    duration of a call (None: unlimited). ``record_first``: forward a request only after its first record is written.

    Raises:
        ValueError: the path is not canonical, a prefix ends in a slash, a name, method or number is invalid, or a route
            of plain HTTP has operations.
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
    stream: bool = False
    deadline_s: float | None = None
    record_first: bool = False
    key: str = field(init=False)
    forwards_as_is: bool = field(init=False)  # no linger, and no parsing of messages
    mark: RouteMark = field(init=False, compare=False, repr=False)  # identifies the route after a reload

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.name if self.operation is None else f"{self.name} {self.operation}")
        object.__setattr__(self, "forwards_as_is", self.protocol == "http" and not self.linger_s)
        object.__setattr__(self, "mark", RouteMark(self.name, (self.path, self.prefix, self.methods), self.operation))
        if self.operations is not None and (self.protocol == "http" or self.operation is not None):
            raise ValueError("only a route of a protocol has operations, and an operation has none")
        from delegation_core.route_checks import require_method, require_name, require_path

        require_name(self.name)
        require_path(self.path, prefix=self.prefix)
        if not self.methods:
            raise ValueError("a route needs methods")
        for method in self.methods:
            require_method(method)
        if not 0 <= self.linger_s < float("inf") or self.max_calls < 0:
            raise ValueError("linger_s and max_calls must not be negative")

    def below(self, path: str) -> str:
        """Return the rest of ``path`` after the route's prefix; empty for an exact route, or at the prefix itself."""
        return path.removeprefix(self.path.rstrip("/")) if self.prefix and path != self.path else ""

    @property
    def scopes_of_any(self) -> ScopeSet:
        """Scopes that every operation requires; without operations, the route's own."""
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
    """Identifies the same route in another policy: by its name or, if renamed, by the requests that it matches.

    ``operation``: the listed key, if the route object is that of an operation.
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
    """One target of the agent, matched by ``host`` (authority, lower case) or by path ``prefix`` on our own listener.

    The next hop must prove the SPIFFE ID ``peer``. The token service of ``issuer`` issues the token for ``audience``,
    with at most ``scopes``. ``token``: ``exchange``; ``self`` for the workload's own authority; ``login`` for a token
    that a user granted for this route. ``first_token_life_s`` overrides the entry's for chains that start on this
    route. Before ``observe_until`` (seconds since the epoch) a call without a handle goes to ``peer`` with its own
    credential.
    ``crossings``: by issuer, the further issuers whose tokens are exchanged. ``txn_token``: send the chain's
    transaction token. ``for_itself``: the route object of the same operation on the workload's own authority, if
    allowed. ``http_version``: of calls to the next hop; ``same`` is that of the agent's call. Other members as in
    ``InboundRoute``.

    Raises:
        ValueError: not exactly one of host and prefix, an invalid one, no audience or issuer, ``observe_until`` without
            ``peer``, or a crossing from the route's own issuer or under another name.
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
    stream: bool = False
    deadline_s: float | None = None
    record_first: bool = False
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.name if self.operation is None else f"{self.name} {self.operation}")
        if self.operations is not None and (self.protocol == "http" or self.operation is not None):
            raise ValueError("only a route of a protocol has operations, and an operation has none")
        from delegation_core.route_checks import require_match

        require_match(self.name, self.host, self.prefix)
        if self.observe_until and self.peer is None:
            raise ValueError("observe_until: only a route with a peer observes; name the peer")
        if not self.audience or not self.issuer:
            raise ValueError("an outbound route needs audience and issuer")
        if any(issuer == self.issuer or issuer != one.issuer for issuer, one in self.crossings.items()):
            raise ValueError("crossings: each key must be its crossing's issuer, and differ from the route's")

    def for_operation(self, key: str | None) -> OutboundRoute:
        """Return the route of one of its operations; with ``key`` None the route itself.

        Raises:
            Denied: OPERATION_REFUSED, the operation is not listed, or the route's protocol has changed.
        """
        return self if key is None and self.operations is None else _operation(self.operations, key)


@dataclass(frozen=True, slots=True)
class Overlap:
    """Names of two routes that would both match. ``what``: the shared name, method and path, or target."""

    first: str
    second: str
    what: str
