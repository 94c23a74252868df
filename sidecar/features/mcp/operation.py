"""Operations of MCP: a message (POST), the stream of a session (GET) and its end (DELETE)."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import ClassVar, Final

from delegation_core import mcp
from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.json_rpc import METHOD_NOT_FOUND
from delegation_core.operation import RouteProtocol
from delegation_core.route import InboundRoute, OutboundRoute
from delegation_core.target import CanonicalTarget
from sidecar.features.operations.operation import Operation, refuse_body, text_field
from sidecar.proxy.journeys.journey import Journey
from sidecar.wire.message import Request
from sidecar.wire.stream import Stream

SESSION_FIELD: Final = b"mcp-session-id"
_PARAM: Final = b"mcp-param-"
_OF_SESSIONS: Final = frozenset({SESSION_FIELD, b"last-event-id"})
_CODES: Final = {Reason.OPERATION_MALFORMED: -32600, Reason.PROTOCOL_VERSION: -32022}


class McpOperation(Operation):
    """Operation of an MCP request. ``stateless``: the request uses a revision without sessions."""

    __slots__ = ("_posts_alone", "stateless")

    protocol: ClassVar[RouteProtocol] = "mcp"

    def __init__(self) -> None:
        super().__init__()
        self.stateless = False
        self._posts_alone = False

    @property
    def allow(self) -> Collection[str] | None:
        """POST alone if the request has no session, because only sessions have GET and DELETE; else None."""
        return ("POST",) if self._posts_alone else None

    def _read(
        self,
        stream: Stream,
        head: Request,
        _target: CanonicalTarget,
        route: InboundRoute | OutboundRoute,
        _below: str | None,
    ) -> Journey[None]:
        version = text_field(head, b"mcp-protocol-version")
        if head.method not in {"POST", "GET", "DELETE"}:
            raise Denied(Reason.METHOD_REFUSED, "MCP has no such method")
        if head.method != "POST":
            refuse_body(head)
            mcp.check_version(version)
            self.stateless = version in mcp.STATELESS
            of_none = head.layout.places.keys().isdisjoint(_OF_SESSIONS)
            if self.stateless or (head.method == "GET" and of_none):
                self._posts_alone = True
                raise Denied(Reason.METHOD_REFUSED, "only a session has a stream of its own, or an end")
            self.key = mcp.STREAM if head.method == "GET" else mcp.DELETE
            return
        message = yield from self._read_message(stream, head, route)
        method, name = text_field(head, b"mcp-method"), text_field(head, b"mcp-name")
        params = [(name, head.values[at].decode("latin-1")) for name, at in _params(head.layout.names)]
        self.stateless = mcp.check_fields(message, version=version, method=method, name=name, params=params)
        self.key = mcp.operation_of(message, stateless=self.stateless)

    def _rpc_status(self, error: SidecarError) -> int:
        if self.stateless and self.code == METHOD_NOT_FOUND:
            return 404  # MCP 2026-07-28; in a session of an older revision 404 would say that the session is gone
        return error.answer.status

    def _rpc_code(self, error: SidecarError) -> int:
        return self.code or _CODES.get(error.reason) or super()._rpc_code(error)


@lru_cache(maxsize=64)  # a client sends few different sets of names
def _params(names: tuple[bytes, ...]) -> list[tuple[str, int]]:
    """Return name and index of each ``Mcp-Param-*`` field, without that prefix."""
    return [(name[len(_PARAM) :].decode("latin-1"), at) for at, name in enumerate(names) if name.startswith(_PARAM)]
