"""Streams a request of the door to a tool server and its answer back, with the fields that a stranger may get.

A challenge of the next hop is about tokens of the mesh, and its permission for pages about another origin: neither
passes. The sidecar writes its own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from sidecar.delegation.door import Door
from sidecar.delegation.permit import IssuedPermit
from sidecar.errors import Denied, Reason
from sidecar.features.mcp.forwarding import McpForwarding
from sidecar.features.mcp.sessions import RequestSession
from sidecar.proxy.journeys.forward import Way
from sidecar.proxy.journeys.headers import folded, passes_from_next_hop
from sidecar.proxy.journeys.refusal import challenge
from sidecar.wire.message import Edits, Field, Passes, Response, new_edits

_EXPOSED: Final = b"Mcp-Session-Id, WWW-Authenticate, Delegation-Reason, Delegation-Request-Id"
_KEPT_BACK: Final = frozenset(
    {b"alt-svc", b"clear-site-data", b"set-cookie", b"strict-transport-security", b"www-authenticate"}
)
# The door has judged the page, and takes no cookies; a tool server that looks at Origin knows none of our pages.
_OF_BROWSERS: Final = frozenset({b"cookie", b"origin", b"referer"})
_OF_PAGES: Final = b"access-control-"


class DoorForwarding(McpForwarding):
    """A request of the ``door`` from a page of ``page`` (None: from no page)."""

    __slots__ = ("_challenge", "_fields")

    def __init__(self, way: Way, session: RequestSession, door: Door, page: str | None) -> None:
        permit = way.permit
        assert isinstance(permit, IssuedPermit)  # noqa: S101 - for the type only: the door has no other one
        super().__init__(way._replace(edits=way.edits._replace(passes=_without_pages(way.edits.passes))), session)
        self._fields = cors(door, page)
        self._challenge = door, permit

    def rewrite(self, head: Response) -> Edits:
        """Edits to the answer's fields."""
        passes, names, values = super().rewrite(head)
        for name, value in (*self._fields, *self._challenges(head)):
            names, values = (*names, name), (*values, value)
        return new_edits((passes, names, values))

    def _challenges(self, head: Response) -> list[Field]:
        """Return the challenge of an answer that another login token could change."""
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
    """Tell whether a field of a next hop's answer may reach a client at the door."""
    shown = folded(name)
    return passes_from_next_hop(name) and shown not in _KEPT_BACK and not shown.startswith(_OF_PAGES)


@lru_cache(maxsize=4)  # the wire remembers the outcome of each rule
def _without_pages(passes: Passes) -> Passes:
    def rule(name: bytes) -> bool:
        return passes(name) and folded(name) not in _OF_BROWSERS

    return rule


def cors(door: Door, page: str | None) -> list[Field]:
    """Return the fields that let a page of this origin read an answer (Fetch standard, CORS protocol)."""
    if not door.origins:
        return []
    if page is None:
        return [(b"vary", b"Origin")]
    return [
        (b"vary", b"Origin"),
        (b"access-control-allow-origin", page.encode("ascii")),
        (b"access-control-expose-headers", _EXPOSED),
    ]
