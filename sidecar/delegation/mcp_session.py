"""Sessions of MCP: only the holder that opened a session can use or end it.

An agent names a session by an id that it alone understands. Its peers get that id behind a MAC over the route, the
holder and the id, by a random key of the sidecar; ids of events, by which streams are resumed, are bound to their
session in the same way. So an id of another holder, route or run of the sidecar, or one without the prefix, is not
accepted. The last ``MOST_ENDED`` sessions that their holders ended are stored, because some agents go on serving an
ended session. For other sessions the agent knows if they live.

Where a session passes several sidecars, such as a door's and the tool server's, each puts its MAC in front. So an id
may have some in front already, and what is behind them is as long as an id of a server's may be. Pure.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from typing import Final, Literal, NamedTuple, TypeAlias

from sidecar.delegation import mcp
from sidecar.delegation.permit import ObservedPermit, Permit
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Denied, Reason

Kind: TypeAlias = Literal["subject", "actor", "own", "observed"]

KEY_BYTES: Final = 32
_MAC_BYTES: Final = 24
_MAC_CHARACTERS: Final = 32  # base64 of them
MAX_ID: Final = 1024  # characters of a server's id of a session or an event; none of the SDKs' has 64
BOUND_BEFORE: Final = r"(?:[A-Za-z0-9_-]{32}\.){0,8}"  # by as many other sidecars as a chain has actors
_ID: Final = re.compile(BOUND_BEFORE + r"[\x21-\x7e]{1,1024}")  # MCP 2025-11-25, Session Management: visible ASCII
MOST_ENDED: Final = 4096
_NOT_FOR_OTHERS: Final = frozenset({mcp.STREAM, mcp.DELETE, mcp.RESPONSE})


class Holder(NamedTuple):
    """The holder of a session: a subject at one peer, a peer for all its subjects, or a peer for itself (``own``).

    ``observed``: the peer's, or without TLS nobody's, while the route only observes.
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
    """Return the holders whose sessions a permitted request may use. A session that it opens is the first one's.

    Calls for subjects may go through the session that their actor opened for itself. Its stream, its end and the
    answers to what the agent asks in it are the actor's.
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
    """Makes ids of sessions and reads them. ``key`` is random, and of this run of the sidecar."""

    __slots__ = ("_ended", "_key")

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES:
            raise ValueError("the key of session ids is too short")
        self._key = key
        self._ended: dict[str, None] = {}  # MACs of ended sessions, the oldest first

    def end(self, shown: str) -> None:
        """Note that the holder of a session has ended it: its id is no longer accepted."""
        self._ended[shown[:_MAC_CHARACTERS]] = None
        if len(self._ended) > MOST_ENDED:
            del self._ended[next(iter(self._ended))]

    def give(self, route: str, session: Session) -> str:
        """Return the id by which the holder names a session of the agent's.

        Raises:
            Denied: UPSTREAM_BAD_RESPONSE, no session can have the agent's id.
        """
        if _ID.fullmatch(session.id) is None:
            raise Denied(Reason.UPSTREAM_BAD_RESPONSE, "the agent's Mcp-Session-Id is no visible text, or too long")
        return f"{self._mac(route, session)}.{session.id}"

    def find(self, route: str, holders: tuple[Holder, ...], shown: str) -> Session:
        """Return the session that a caller names, which belongs to one of ``holders``.

        Raises:
            Denied: SESSION_UNKNOWN, it belongs to none of them, or to nobody.
        """
        mac, dot, agents = shown[:_MAC_CHARACTERS], shown[_MAC_CHARACTERS:][:1], shown[_MAC_CHARACTERS + 1 :]
        if dot == "." and mac.isascii() and mac not in self._ended and _ID.fullmatch(agents) is not None:
            for holder in holders:
                session = Session(holder, agents)
                if hmac.compare_digest(mac, self._mac(route, session)):
                    return session
        raise Denied(Reason.SESSION_UNKNOWN, "the Mcp-Session-Id is not one that this caller has here")

    def give_event(self, route: str, session: Session, event: bytes) -> bytes:
        """Return the id by which the holder of a session names an event of a stream in it."""
        return f"{self._mac(route, session, event)}.".encode("ascii") + event

    def find_event(self, route: str, session: Session, shown: bytes) -> bytes:
        """Return the agent's id of an event that a caller names in a session.

        Raises:
            Denied: SESSION_UNKNOWN, it is of no stream in this session.
        """
        mac, dot, event = shown[:_MAC_CHARACTERS], shown[_MAC_CHARACTERS:][:1], shown[_MAC_CHARACTERS + 1 :]
        if dot == b"." and event and hmac.compare_digest(mac, self._mac(route, session, event).encode("ascii")):
            return event
        raise Denied(Reason.SESSION_UNKNOWN, "the Last-Event-ID is of no stream in this session")

    def _mac(self, route: str, session: Session, event: bytes | None = None) -> str:
        kind, peer, issuer, subject = session.holder
        parts = [one.encode("utf-8", "surrogatepass") for one in (route, kind, peer or "", issuer, subject, session.id)]
        if event is not None:
            parts += [b"event", event]
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return urlsafe_b64encode(hmac.digest(self._key, message, "sha256")[:_MAC_BYTES]).decode("ascii")
