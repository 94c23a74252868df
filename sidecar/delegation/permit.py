"""Permits: the only things that open a way to the agent or out to a next hop.

A Permit opens the way to the agent. An IssuedPermit opens the way out with a user's token, an OwnPermit without one, a
TunnelPermit that of a CONNECT. An ObservedPermit is for a call that the policy refuses on a route that only observes:
it opens the way, and gives no authority.

Each is made with the seal of this module, which ``decide`` alone imports: no decision, no permit; no permit, no bytes
upstream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NoReturn, final

from sidecar.delegation.plan import Delegation, Plan
from sidecar.delegation.route import InboundRoute, OutboundRoute
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.delegation.verify import VerifiedToken
from sidecar.errors import Reason

if TYPE_CHECKING:
    from sidecar.delegation.connect import ConnectRoute
    from sidecar.delegation.outside import OutsideRoute

Mode = Literal["delegated", "self"]

_SEAL: Final = object()


class _Sealed:
    """Base of objects that only a decision creates; immutable afterwards."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        if cls.__module__ != __name__:
            raise TypeError("a permit has no other kinds")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a permit does not change")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a permit does not change")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a permit is neither copied nor stored")


def _fill(permit: _Sealed, seal: object, **fields: object) -> None:
    """Set the fields of a permit, which change never after. Raises TypeError without the seal."""
    if seal is not _SEAL:
        raise TypeError("only a decision makes a permit")
    for name, value in fields.items():
        object.__setattr__(permit, name, value)


@final
class Permit(_Sealed):
    """This ``peer`` may make the call ``route`` on the strength of ``token``.

    ``mode`` is ``delegated`` (for a subject), or ``self`` (an autonomous agent for itself, where the route admits it).
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
        """The time at which the user's login becomes too old for the route; None: never."""
        human = self.route.human
        return None if human is None else human.fresh_until(self.token)


# The slots' own setters: three times as fast as object.__setattr__, and a permit is made for every request.
_set_mode, _set_peer, _set_route, _set_token = (vars(Permit)[name].__set__ for name in Permit.__slots__)


@final
class IssuedPermit(_Sealed):
    """The planned call may be made with ``token``, which the STS issued for it. ``route`` is that of its ``plan``."""

    __slots__ = ("plan", "route", "token")

    token: VerifiedToken
    plan: Plan
    route: OutboundRoute

    def __init__(self, seal: object, token: VerifiedToken, plan: Plan) -> None:
        _fill(self, seal, token=token, plan=plan)
        _fill(self, seal, route=plan.route)  # only now: without the seal nothing is read


@final
class OwnPermit(_Sealed):
    """The request behind ``delegation`` may make this call on ``route``, which carries no user's token.

    ``delegation`` None: the workload makes it for itself, by its own handle. ``path`` is the one at the next hop. The
    permit ends at ``ends_at`` (seconds since the epoch), with the request's token or the route.
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
    """A call passes on ``route``, which only observes, although ``reason`` refuses it. It carries no authority.

    ``peer`` is the caller that proved its SPIFFE ID; None: none did, or our own agent calls. ``token`` was verified,
    for some audience; None: the call shows none. Both only serve to judge the call again. It ends at ``ends_at``
    (seconds since the epoch).
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
    """The request behind ``delegation`` may open a tunnel to the host and port of ``route``.

    ``delegation`` None: the workload opens it for itself, by its own handle (``own``), or for no request that is known.
    The permit ends at ``ends_at`` (seconds since the epoch), with the request's token; without one it has no end of
    its own.
    """

    __slots__ = ("delegation", "ends_at", "own", "route")

    delegation: Delegation | None
    route: ConnectRoute
    own: bool
    ends_at: float

    def __init__(self, seal: object, delegation: Delegation | None, route: ConnectRoute, *, own: bool = False) -> None:
        ends_at = float("inf") if delegation is None else float(delegation.token.expires_at)
        _fill(self, seal, delegation=delegation, route=route, own=own, ends_at=ends_at)
