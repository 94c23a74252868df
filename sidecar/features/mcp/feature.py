"""MCP in both directions: binds sessions to their holders, and removes operations that the reader may not call."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from delegation_core.mcp_session import SessionIds
from delegation_core.permit import ObservedPermit, Permit
from delegation_core.policy import Policy
from sidecar.features.mcp.forwarding import McpForwarding
from sidecar.features.mcp.list_forwarding import forwarding_of
from sidecar.features.mcp.operation import McpOperation
from sidecar.features.mcp.sessions import RequestSession, session_of
from sidecar.features.operations.sides import InboundSide, OutboundSide
from sidecar.proxy.journeys.forward import Way
from sidecar.wire.message import Request

if TYPE_CHECKING:
    from sidecar.features import Features
    from sidecar.features.mcp.warm import WarmMcpInbound, WarmMcpOutbound
    from sidecar.proxy.native.warm import WarmSide


class Feature:
    """MCP. ``session_ids`` binds the session ids of the whole sidecar."""

    def __init__(self, features: Features) -> None:
        self.session_ids = SessionIds(features.session_key)
        if features.engine == "native":
            import_module("sidecar.features.mcp.warm")  # now, so that no message waits for it

    def inbound(self, _side: object) -> McpInbound:
        """Return the inbound protocol."""
        return McpInbound(self.session_ids)

    def outbound(self, _side: object) -> McpOutbound:
        """Return the outbound protocol."""
        return McpOutbound()


class McpInbound(InboundSide):
    """Inbound MCP: finds the session of each request."""

    def __init__(self, session_ids: SessionIds) -> None:
        self._session_ids = session_ids

    def new_operation(self) -> McpOperation:
        """Return an empty operation; its ``find`` reads the request."""
        return McpOperation()

    def open(self, operation: McpOperation, head: Request, permit: Permit | ObservedPermit, now: int) -> RequestSession:
        """Return the session of a permitted request. Raises Denied, as ``session_of``."""
        return session_of(self._session_ids, operation, head, permit, now)

    def forwarding(self, operation: McpOperation, session: RequestSession, way: Way, _policy: Policy) -> McpForwarding:
        """Make the forwarding to the agent."""
        return forwarding_of(way, session, operation)

    def warm(self, side: WarmSide) -> WarmMcpInbound:
        """Return the handler of messages for the native engine."""
        from sidecar.features.mcp.warm import WarmMcpInbound

        return WarmMcpInbound(side, self._session_ids)


class McpOutbound(OutboundSide):
    """Outbound MCP, without sessions: the target's own sidecar knows them."""

    def new_operation(self) -> McpOperation:
        """Return an empty operation; its ``find`` reads the call."""
        return McpOperation()

    def warm(self, side: WarmSide) -> WarmMcpOutbound:
        """Return the handler of messages for the native engine."""
        from sidecar.features.mcp.warm import WarmMcpOutbound

        return WarmMcpOutbound(side)
