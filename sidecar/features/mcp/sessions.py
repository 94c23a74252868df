"""Sessions of MCP between a peer and the agent: the peer uses bound ids, the agent its own ids.

Only the answer to ``initialize`` opens a session. In any other answer only the id of the request's own session passes,
so an agent cannot hand one peer's session to another peer by mistake. MCP 2026-07-28 has no sessions: for it the field
is removed in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from delegation_core import mcp
from delegation_core.errors import Denied, Reason
from delegation_core.mcp_session import Holder, Session, SessionIds, usable
from delegation_core.permit import ObservedPermit, Permit
from sidecar.features.mcp.event_ids import EventIds
from sidecar.features.mcp.operation import SESSION_FIELD, McpOperation
from sidecar.proxy.journeys.headers import without
from sidecar.wire.message import Edits, Field, Request, Response, new_edits

_RESUMED: Final = b"last-event-id"
ENDS_HERE: Final = frozenset({SESSION_FIELD})
REPLACED: Final = frozenset({SESSION_FIELD, _RESUMED})
_NEEDS_ONE: Final = frozenset({mcp.DELETE, mcp.RESPONSE})


class RequestSession:
    """Session that a request names or opens. ``shown`` is the peer's id of it; ``by`` the holder of a new session.

    ``resumed`` is the agent's id of the event after which a stream resumes, or None. ``ends``: the request ends the
    session.
    """

    __slots__ = ("_ends", "_ids", "_opener", "_resumed", "_route", "_shown", "session")

    def __init__(
        self,
        ids: SessionIds,
        route: str,
        session: Session | None,
        shown: bytes,
        by: Holder | None,
        resumed: bytes | None = None,
        *,
        ends: bool = False,
    ) -> None:
        self._ends = ends
        self._resumed = resumed
        self._ids = ids
        self._route = route
        self._shown = shown
        self._opener = by
        self.session = session

    def to_agent(self, edits: Edits) -> Edits:
        """Return the edits with the agent's ids of session and event in place of the peer's."""
        passes, names, values = edits
        for name, value in self.shown_to_agent():
            names, values = (*names, name), (*values, value)
        return new_edits((without(passes, REPLACED), names, values))

    def shown_to_agent(self) -> list[Field]:
        """Return the fields with the agent's ids: of the session, and of the event after which a stream resumes."""
        shown = [] if self.session is None else [(SESSION_FIELD, self.session.id.encode("ascii"))]
        return shown if self._resumed is None else [*shown, (_RESUMED, self._resumed)]

    def event_ids(self) -> EventIds | None:
        """Return a filter that binds the event ids of the answer to the session; None: there is no session.

        Call it after ``from_agent``, because the answer itself may open the session.
        """
        session = self.session
        return None if session is None else EventIds(partial(self._ids.give_event, self._route, session))

    def from_agent(self, answer: Response, edits: Edits) -> Edits:
        """Return the edits to an answer's fields, with the peer's id of the session in place of the agent's.

        Raises:
            Denied: UPSTREAM_BAD_RESPONSE, the agent sends two ids, or an invalid one.
        """
        passes, names, values = edits
        given = self.shown_to_peer(answer.all(SESSION_FIELD), answer.status)
        if given is not None:
            names, values = (*names, SESSION_FIELD), (*values, given)
        return new_edits((without(passes, ENDS_HERE), names, values))

    def shown_to_peer(self, named: Sequence[bytes], status: int) -> bytes | None:
        """Return the peer's id for an answer, or None. ``named`` are the answer's Mcp-Session-Id values.

        A new id is made if the answer opens a session. A successful answer to DELETE ends the session.

        Raises:
            Denied: as ``from_agent``.
        """
        if self._ends and 200 <= status < 300:
            self._ids.end(self._shown.decode("latin-1"))
        if not named:
            return None
        if len(named) > 1:
            raise Denied(Reason.UPSTREAM_BAD_RESPONSE, "two Mcp-Session-Id fields")
        agents = named[0].decode("latin-1")
        if self.session is not None and agents == self.session.id:
            return self._shown
        if self._opener is None or not 200 <= status < 300:
            return None
        session = Session(self._opener, agents)
        shown = self._ids.give(self._route, session).encode("ascii")
        self.session = session  # last: Python may process the same answer again after the native engine
        return shown


def session_of(
    ids: SessionIds, asked: McpOperation, head: Request, permit: Permit | ObservedPermit, now: int
) -> RequestSession:
    """Return the session of a peer's permitted request.

    Raises:
        Denied: as ``session_held_by``.
    """
    return session_held_by(ids, asked, head, route=permit.route.name, holders=usable(permit, now))


def session_held_by(
    ids: SessionIds, asked: McpOperation, head: Request, *, route: str, holders: tuple[Holder, ...]
) -> RequestSession:
    """Return the session of a request. One of ``holders`` must hold it; the first one holds a session that it opens.

    Raises:
        Denied: SESSION_UNKNOWN, none of ``holders`` holds the session; the request names none and needs one (to end it,
            to answer the agent, or to resume a stream); or it resumes a stream of another session. HEADER_MALFORMED,
            it names two sessions or two events.
    """
    shown = None if asked.stateless else head.one(SESSION_FIELD)
    event = head.one(_RESUMED)
    session = None if shown is None else ids.find(route, holders, shown.decode("latin-1"))
    if session is None and (event is not None or asked.key in _NEEDS_ONE):
        raise Denied(Reason.SESSION_UNKNOWN, "a session is needed for this")
    resumed = None if session is None or event is None else ids.find_event(route, session, event)
    opens = asked.key == mcp.INITIALIZE and not asked.stateless
    ends = asked.key == mcp.DELETE
    return RequestSession(ids, route, session, shown or b"", holders[0] if opens else None, resumed, ends=ends)
