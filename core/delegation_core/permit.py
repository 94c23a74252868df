"""Permits: capabilities that forwarding requires, created only by decisions.

Permit: forward a request to the agent. IssuedPermit: call with an issued token. OwnPermit: call outside the mesh.
TunnelPermit: open a CONNECT tunnel. ObservedPermit: pass a refused call on a route that observes, without authority.

The constructors need the seal of this module, which only ``decide`` imports: without a decision there is no permit, and
without a permit no bytes go upstream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NoReturn, final

from delegation_core.errors import Reason
from delegation_core.plan import Delegation, Plan
from delegation_core.route import InboundRoute, OutboundRoute
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import VerifiedToken

if TYPE_CHECKING:
    from delegation_core.connect import ConnectRoute
    from delegation_core.outside import OutsideRoute

Mode = Literal["delegated", "self"]

_SEAL: Final = object()


class _Sealed:
    """Base of permits: immutable, not copyable, and not extensible outside this module."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        if cls.__module__ != __name__:
            raise TypeError("a permit cannot be subclassed")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a permit is immutable")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a permit is immutable")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a permit cannot be copied or pickled")


def _fill(permit: _Sealed, seal: object, **fields: object) -> None:
    """Set the fields of a new permit. Raises TypeError without the seal."""
    if seal is not _SEAL:
        raise TypeError("only a decision makes a permit")
    for name, value in fields.items():
        object.__setattr__(permit, name, value)


@final
class Permit(_Sealed):
    """Permission for ``peer`` to call ``route`` with ``token``.

    ``mode``: ``delegated`` (for a subject), or ``self`` (an autonomous agent for itself, if the route allows it).
    """

    __slots__ = ("mode", "peer", "route", "token")

    token: VerifiedToken
    peer: SpiffeId
    route: InboundRoute
    mode: Mode

    def __init__(self, seal: object, token: VerifiedToken, peer: SpiffeId, route: InboundRoute, mode: Mode) -> None:
        if seal is not _SEAL:
            raise TypeError("only a decision makes a permit")
        _set_token(self, token)
        _set_peer(self, peer)
        _set_route(self, route)
        _set_mode(self, mode)

    @property
    def fresh_until(self) -> int | None:
        """Time at which the user's login becomes too old for the route (seconds since the epoch); None: never."""
        human = self.route.human
        return None if human is None else human.fresh_until(self.token)


# The slots' own setters are three times as fast as object.__setattr__, and each request makes a permit.
_set_mode, _set_peer, _set_route, _set_token = (vars(Permit)[name].__set__ for name in Permit.__slots__)


@final
class IssuedPermit(_Sealed):
    """Permission to make the call of ``plan``, on its ``route``, with the ``token`` that the STS issued for it."""

    __slots__ = ("plan", "route", "token")

    token: VerifiedToken
    plan: Plan
    route: OutboundRoute

    def __init__(self, seal: object, token: VerifiedToken, plan: Plan) -> None:
        _fill(self, seal, token=token, plan=plan)
        _fill(self, seal, route=plan.route)  # reads ``plan`` only after the seal is checked


@final
class OwnPermit(_Sealed):
    """Permission for the request behind ``delegation`` to call ``route``, outside the mesh, without a user's token.

    ``delegation`` None: the workload calls for itself, by its own handle. ``path``: the path at the next hop.
    ``ends_at``: the earlier end of the request's authority and the route (seconds since the epoch).
    """

    __slots__ = ("delegation", "ends_at", "method", "path", "route")

    delegation: Delegation | None
    route: OutsideRoute
    method: str
    path: str
    ends_at: int

    def __init__(
        self, seal: object, delegation: Delegation | None, route: OutsideRoute, *, method: str, path: str, ends_at: int
    ) -> None:
        _fill(self, seal, delegation=delegation, route=route, method=method, path=path, ends_at=ends_at)


@final
class ObservedPermit(_Sealed):
    """Permission for a call on ``route``, which observes, although ``reason`` refuses it. Grants no authority.

    ``peer``: the caller's proven SPIFFE ID; None: unproven, or our own agent calls. ``token``: verified for any
    audience; None: the call has none. Both serve only to re-evaluate the call. ``ends_at``: in seconds since the epoch.
    """

    __slots__ = ("ends_at", "peer", "reason", "route", "token")

    route: InboundRoute | OutboundRoute | OutsideRoute
    reason: Reason
    peer: SpiffeId | None
    token: VerifiedToken | None
    ends_at: int

    def __init__(
        self,
        seal: object,
        route: InboundRoute | OutboundRoute | OutsideRoute,
        reason: Reason,
        *,
        peer: SpiffeId | None,
        token: VerifiedToken | None,
        ends_at: int,
    ) -> None:
        _fill(self, seal, route=route, reason=reason, peer=peer, token=token, ends_at=ends_at)


@final
class TunnelPermit(_Sealed):
    """Permission for the request behind ``delegation`` to open a tunnel to the host and port of ``route``.

    ``delegation`` None: the workload opens it for itself, by its own handle (``own``), or without a handle.
    ``ends_at``: expiry of the request's token (seconds since the epoch); infinite without one.
    """

    __slots__ = ("delegation", "ends_at", "own", "route")

    delegation: Delegation | None
    route: ConnectRoute
    own: bool
    ends_at: float

    def __init__(self, seal: object, delegation: Delegation | None, route: ConnectRoute, *, own: bool = False) -> None:
        ends_at = float("inf") if delegation is None else float(delegation.token.expires_at)
        _fill(self, seal, delegation=delegation, route=route, own=own, ends_at=ends_at)
