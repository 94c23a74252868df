"""Forwarding of a request at the door; filters the answer's fields for clients outside the mesh.

The next hop's challenge is for tokens of the mesh, and its CORS fields are for other origins: both are removed, and
the sidecar adds its own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from delegation_core.door import Door
from delegation_core.errors import Denied, Reason
from delegation_core.permit import IssuedPermit
from sidecar.features.mcp.forwarding import McpForwarding
from sidecar.features.mcp.sessions import RequestSession
from sidecar.proxy.journeys.forward import Way
from sidecar.proxy.journeys.headers import fold, passes_from_next_hop
from sidecar.proxy.journeys.refusal import challenge
from sidecar.wire.message import Edits, Field, Passes, Response, new_edits

_EXPOSED: Final = b"Mcp-Session-Id, WWW-Authenticate, Delegation-Reason, Delegation-Request-Id"
_KEPT_BACK: Final = frozenset(
    {b"alt-svc", b"clear-site-data", b"set-cookie", b"strict-transport-security", b"www-authenticate"}
)
# Removed from requests: the door has checked Origin and uses no cookies; a tool server may not know the door's origins.
_OF_BROWSERS: Final = frozenset({b"cookie", b"origin", b"referer"})
_OF_PAGES: Final = b"access-control-"


class DoorForwarding(McpForwarding):
    """Request at the ``door``. ``page``: the listed Origin of the web page that sent it, or None."""

    __slots__ = ("_challenge", "_fields")

    def __init__(self, way: Way, session: RequestSession, door: Door, page: str | None) -> None:
        permit = way.permit
        assert isinstance(permit, IssuedPermit)  # noqa: S101 - for the type only: each call of the door has one
        super().__init__(way._replace(edits=way.edits._replace(passes=_without_pages(way.edits.passes))), session)
        self._fields = cors(door, page)
        self._challenge = door, permit

    def rewrite(self, head: Response) -> Edits:
        """Return the edits to the answer's fields: the next hop's, plus CORS fields and a challenge."""
        passes, names, values = super().rewrite(head)
        for name, value in (*self._fields, *self._challenges(head)):
            names, values = (*names, name), (*values, value)
        return new_edits((passes, names, values))

    def _challenges(self, head: Response) -> list[Field]:
        """Return the challenge for a 401, or for a 403 for a scope that the login lacks; else nothing."""
        door, permit = self._challenge
        needed, delegation = permit.plan.route.scopes, permit.plan.delegation
        reason = head.all(b"delegation-reason")
        words = door.words_for(needed)
        if head.status == 401:
            error = Denied(Reason.NO_TOKEN)
        elif head.status == 403 and reason == (Reason.INSUFFICIENT_SCOPE.encode(),):
            if delegation is None or needed <= delegation.scope:
                return []
            error = Denied(Reason.INSUFFICIENT_SCOPE)
        else:
            return []
        return [(b"www-authenticate", challenge(error, words, None, door.resource))]


def passes_from_door(name: bytes) -> bool:
    """Return True if a field of the next hop's answer may reach a client at the door."""
    shown = fold(name)
    return passes_from_next_hop(name) and shown not in _KEPT_BACK and not shown.startswith(_OF_PAGES)


@lru_cache(maxsize=4)  # the wire caches results by rule object
def _without_pages(passes: Passes) -> Passes:
    def rule(name: bytes) -> bool:
        return passes(name) and fold(name) not in _OF_BROWSERS

    return rule


def cors(door: Door, page: str | None) -> list[Field]:
    """Return the CORS fields of an answer to origin ``page``; None: to no listed origin (Fetch standard)."""
    if not door.origins:
        return []
    if page is None:
        return [(b"vary", b"Origin")]
    return [
        (b"vary", b"Origin"),
        (b"access-control-allow-origin", page.encode("ascii")),
        (b"access-control-expose-headers", _EXPOSED),
    ]
