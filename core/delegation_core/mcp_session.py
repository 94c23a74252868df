"""MCP sessions: binds each session id to its holder, so that only the holder can use or end the session. Pure.

The agent's session id is opaque. Peers get it with a prefix: a MAC over route, holder and id, with a random key of this
run of the sidecar. Event ids, which resume streams, are bound to their session in the same way. So an id without a
prefix, or of another holder, route or run, is refused. The last ``MOST_ENDED`` sessions that their holders ended are
remembered, because some agents continue to serve an ended session. For other sessions the agent knows if they exist.

Where a session passes several sidecars, such as a door's and the tool server's, each adds its own prefix. So an id may
already have some, followed by up to ``MAX_ID`` characters of the server's id.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from typing import Final, Literal, NamedTuple, TypeAlias

from delegation_core import mcp
from delegation_core.errors import Denied, Reason
from delegation_core.permit import ObservedPermit, Permit
from delegation_core.spiffe_id import SpiffeId

Kind: TypeAlias = Literal["subject", "actor", "own", "observed"]

KEY_BYTES: Final = 32
_MAC_BYTES: Final = 24
_MAC_CHARACTERS: Final = 32  # base64 of them
MAX_ID: Final = 1024  # characters of a server's session or event id; those of the SDKs have fewer than 64
BOUND_BEFORE: Final = r"(?:[A-Za-z0-9_-]{32}\.){0,8}"  # prefixes of other sidecars, at most one for each actor
_ID: Final = re.compile(BOUND_BEFORE + r"[\x21-\x7e]{1,1024}")  # MCP 2025-11-25, Session Management: visible ASCII
MOST_ENDED: Final = 4096
_NOT_FOR_OTHERS: Final = frozenset({mcp.STREAM, mcp.DELETE, mcp.RESPONSE})


class Holder(NamedTuple):
    """The holder of a session: a subject at one peer, a peer for all its subjects, or a peer for itself (``own``).

    ``observed``: the peer (None without TLS) on a route that observes.
    """

    kind: Kind
    peer: SpiffeId | None
    issuer: str = ""
    subject: str = ""


class Session(NamedTuple):
    """A session, by the agent's own id, and its holder."""

    holder: Holder
    id: str


def usable(permit: Permit | ObservedPermit, now: int) -> tuple[Holder, ...]:
    """Return the holders whose sessions a permitted request may use; the first is the holder of a session it opens.

    Calls for subjects may use the session that their actor opened for itself. Only the actor may use that session's
    stream, end it, or answer the agent's requests in it.
    """
    route, peer = permit.route, permit.peer
    if isinstance(permit, ObservedPermit) or now < route.observe_until:
        return (Holder("observed", peer),)
    own, actor = Holder("own", peer), Holder("actor", peer)
    if permit.mode == "self":
        return (own, actor) if permit.route.sessions == "per_actor" else (own,)
    one = (
        actor
        if permit.route.sessions == "per_actor"
        else Holder("subject", peer, permit.token.issuer, permit.token.subject)
    )
    return (one,) if permit.route.operation in _NOT_FOR_OTHERS else (one, own)


class SessionIds:
    """Encoder and decoder of session ids. ``key``: ``KEY_BYTES`` or more random bytes of this run of the sidecar."""

    __slots__ = ("_ended", "_key")

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES:
            raise ValueError("the key of session ids is too short")
        self._key = key
        self._ended: dict[str, None] = {}  # MACs of ended sessions, the oldest first

    def end(self, shown: str) -> None:
        """Refuse the id ``shown`` from now on: the holder ended the session."""
        self._ended[shown[:_MAC_CHARACTERS]] = None
        if len(self._ended) > MOST_ENDED:
            del self._ended[next(iter(self._ended))]

    def give(self, route: str, session: Session) -> str:
        """Return the id of a session for its holder.

        Raises:
            Denied: UPSTREAM_BAD_RESPONSE if the agent's id is invalid.
        """
        if _ID.fullmatch(session.id) is None:
            raise Denied(Reason.UPSTREAM_BAD_RESPONSE, "the agent's Mcp-Session-Id is too long, or not visible ASCII")
        return f"{self._mac(route, session)}.{session.id}"

    def find(self, route: str, holders: tuple[Holder, ...], shown: str) -> Session:
        """Return the session with the id ``shown`` by a caller.

        Raises:
            Denied: SESSION_UNKNOWN if none of ``holders`` has such a session on ``route``, or it was ended.
        """
        mac, dot, agents = shown[:_MAC_CHARACTERS], shown[_MAC_CHARACTERS:][:1], shown[_MAC_CHARACTERS + 1 :]
        if dot == "." and mac.isascii() and mac not in self._ended and _ID.fullmatch(agents) is not None:
            for holder in holders:
                session = Session(holder, agents)
                if hmac.compare_digest(mac, self._mac(route, session)):
                    return session
        raise Denied(Reason.SESSION_UNKNOWN, "this caller has no session with this Mcp-Session-Id on this route")

    def give_event(self, route: str, session: Session, event: bytes) -> bytes:
        """Return the id of an event of a session's stream for the session's holder."""
        return f"{self._mac(route, session, event)}.".encode("ascii") + event

    def find_event(self, route: str, session: Session, shown: bytes) -> bytes:
        """Return the agent's id of the event with the id ``shown`` by a caller.

        Raises:
            Denied: SESSION_UNKNOWN if the event is not of this session.
        """
        mac, dot, event = shown[:_MAC_CHARACTERS], shown[_MAC_CHARACTERS:][:1], shown[_MAC_CHARACTERS + 1 :]
        if dot == b"." and event and hmac.compare_digest(mac, self._mac(route, session, event).encode("ascii")):
            return event
        raise Denied(Reason.SESSION_UNKNOWN, "the Last-Event-ID belongs to no stream of this session")

    def _mac(self, route: str, session: Session, event: bytes | None = None) -> str:
        kind, peer, issuer, subject = session.holder
        parts = [one.encode("utf-8", "surrogatepass") for one in (route, kind, peer or "", issuer, subject, session.id)]
        if event is not None:
            parts += [b"event", event]
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return urlsafe_b64encode(hmac.digest(self._key, message, "sha256")[:_MAC_BYTES]).decode("ascii")
