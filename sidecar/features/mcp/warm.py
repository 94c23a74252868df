"""MCP on the native engine: messages of peers go on in their session; messages to next hops pass unchanged."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from delegation_core.mcp_session import SessionIds
from delegation_core.permit import Permit
from sidecar.features.mcp.forwarding import McpForwarding
from sidecar.features.mcp.list_forwarding import is_cut
from sidecar.features.mcp.operation import SESSION_FIELD, McpOperation
from sidecar.features.mcp.sessions import ENDS_HERE, REPLACED, RequestSession, session_of
from sidecar.proxy.journeys.forward import Way
from sidecar.proxy.journeys.headers import without
from sidecar.proxy.native.ghosts import Ghost
from sidecar.proxy.native.warm_operations import OperationRead, Passed, WarmMessage
from sidecar.wire.message import Request

if TYPE_CHECKING:
    from sidecar.proxy.native.warm import WarmSide


class GhostMcpForwarding(Ghost, McpForwarding):
    """Stands for the forwarding of a message to the agent."""

    __slots__ = ()


_new_forwarding: Final = partial(object.__new__, GhostMcpForwarding)


class SessionMessage(WarmMessage):
    """A message in a ``session`` with the agent."""

    __slots__ = ("session",)

    def __init__(self, message: McpOperation, handed_over: Callable[[], None], session: RequestSession) -> None:
        super().__init__(message, handed_over)
        self.session = session

    def answered(self, status: int, told: bytes | None, _body: bytes) -> bytes | None:
        """Return the header line with the peer's id of the session that the agent ``told``; None: it told none."""
        if told is None:
            return None
        shown = self.session.shown_to_peer([told], status)
        return b"" if shown is None else b"%b: %b\r\n" % (SESSION_FIELD, shown)

    def forwarding(self, way: Way) -> tuple[Any, ...]:
        """Return the class that replaces the ghost of the forwarding, and its arguments."""
        return McpForwarding, way, self.session


class WarmMcpInbound:
    """Handler of messages to the agent."""

    new_operation: Final = McpOperation

    def __init__(self, side: WarmSide, session_ids: SessionIds) -> None:
        self._session_ids = session_ids
        self._kind = side.kind(
            passes=without(side.passes, REPLACED),
            answer_passes=without(side.answer_passes, ENDS_HERE),
            new_forwarding=_new_forwarding,
            told=SESSION_FIELD,
        )

    def passed(
        self, found: OperationRead, head: Request, permit: Permit, now: int, handed_over: Callable[[], None]
    ) -> Passed | None:
        """Return how the native engine forwards a permitted message; None: Python must cut the list in its answer.

        Raises:
            Denied: as ``session_of``.
        """
        if is_cut(permit.route, found.asked):
            return None
        session = session_of(self._session_ids, found.asked, head, permit, now)
        return session.shown_to_agent(), self._kind, SessionMessage(found.asked, handed_over, session)


class WarmMcpOutbound:
    """Handler of messages to next hops. Session ids pass unchanged: the next hop's own sidecar replaces them."""

    new_operation: Final = McpOperation

    def __init__(self, side: WarmSide) -> None:
        self.kind = side.kind()

    def is_answered(self, _path: str) -> bool:
        """Return False: the next hop answers."""
        return False

    def is_rewritten(self, _found: OperationRead) -> bool:
        """Return False: answers pass unchanged."""
        return False
