"""MCP on both sides: sessions that belong to their holders, and lists cut to what their readers may call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.delegation.mcp_session import SessionIds
from sidecar.delegation.permit import ObservedPermit, Permit
from sidecar.delegation.policy import Policy
from sidecar.features.mcp.forwarding import McpForwarding
from sidecar.features.mcp.list_forwarding import forwarding_of
from sidecar.features.mcp.operation import McpOperation
from sidecar.features.mcp.sessions import RequestSession, session_of
from sidecar.features.operations.sides import InboundSide, OutboundSide
from sidecar.proxy.journeys.forward import Way
from sidecar.wire.message import Request

if TYPE_CHECKING:
    from sidecar.features import Features


class Feature:
    """MCP. ``session_ids`` are those of the whole sidecar."""

    def __init__(self, features: Features) -> None:
        self.session_ids = SessionIds(features.session_key)

    def inbound(self, _side: object) -> McpInbound:
        """Return the part in front of the agent."""
        return McpInbound(self.session_ids)

    def outbound(self, _side: object) -> McpOutbound:
        """Return the part behind the agent."""
        return McpOutbound()


class McpInbound(InboundSide):
    """MCP in front of the agent: each request goes on in a session."""

    def __init__(self, session_ids: SessionIds) -> None:
        self._session_ids = session_ids

    def new_operation(self) -> McpOperation:
        """Return the operation of a request that is not read yet."""
        return McpOperation()

    def open(self, operation: McpOperation, head: Request, permit: Permit | ObservedPermit, now: int) -> RequestSession:
        """Find the session of a permitted request. Raises Denied, as ``session_of``."""
        return session_of(self._session_ids, operation, head, permit, now)

    def forwarding(self, operation: McpOperation, session: RequestSession, way: Way, _policy: Policy) -> McpForwarding:
        """Make the way to the agent and back."""
        return forwarding_of(way, session, operation)


class McpOutbound(OutboundSide):
    """MCP behind the agent: the target's own sidecar knows the sessions."""

    def new_operation(self) -> McpOperation:
        """Return the operation of a call that is not read yet."""
        return McpOperation()
