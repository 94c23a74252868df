"""Ghosts: objects of the engine in Python that stand for a request in flight in the native engine.

A ghost is of its ordinary class but has no attribute, except ``warm``, the call that it stands for, and what is the
same for all. The first look at any other attribute makes all ghosts of that request real, in the state that the engine
in Python would have reached (``Warm…._inflate``), and from then on that engine serves the request. So deadlines, a
drain, a change of trust and the admin socket see such a request as any other, and need not know of it.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from sidecar.features.a2a.answers import TaskForwarding
from sidecar.features.mcp.forwarding import McpForwarding
from sidecar.observe.entry import Entry
from sidecar.proxy.journeys.forward import Forwarding
from sidecar.proxy.journeys.handles import ServedRequest
from sidecar.wire.h1_stream import H1Stream


class GhostStream(H1Stream):
    """Stands for a stream. Its body is there: each sweep of its connection asks for that."""

    __slots__ = ()

    intake = None

    def __getattr__(self, name: str) -> Any:
        return _real(self, name)


class GhostEntry(Entry):
    """Stands for an open record."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return _real(self, name)


class GhostForwarding(Forwarding):
    """Stands for the way of a request to its upstream and back."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return _real(self, name)


class GhostMcpForwarding(McpForwarding):
    """Stands for the way of a message of MCP to the agent and back."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return _real(self, name)


class GhostTaskForwarding(TaskForwarding):
    """Stands for the way of a message of A2A to the agent, whose answer may show a task, and back."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return _real(self, name)


class GhostRequest(ServedRequest):
    """Stands for the request behind a handle. It becomes real by itself: the agent calls out, and nothing else ends."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if type(self) is not GhostRequest:
            raise AttributeError(name)
        given, call_in, guard, epoch = object.__getattribute__(self, "warm").served()
        self.__class__ = ServedRequest  # type: ignore[assignment]
        ServedRequest.__init__(
            self, given.delegation, given.permit.route.max_calls, 0.0, call_in, guard, given.of_token
        )
        self.epoch = epoch
        return getattr(self, name)


_GHOSTS: Final = (GhostStream, GhostEntry, GhostForwarding, GhostMcpForwarding, GhostTaskForwarding)

new_stream: Final = partial(object.__new__, GhostStream)
new_entry: Final = partial(object.__new__, GhostEntry)
new_forwarding: Final = partial(object.__new__, GhostForwarding)
new_mcp_forwarding: Final = partial(object.__new__, GhostMcpForwarding)
new_task_forwarding: Final = partial(object.__new__, GhostTaskForwarding)
new_request: Final = partial(object.__new__, GhostRequest)


def _real(ghost: object, name: str) -> Any:
    """Make a request real, and return an attribute of what the ghost has become.

    Raises:
        AttributeError: it has none of this name, or the request has ended.
    """
    kind = type(ghost)
    if kind in _GHOSTS:
        object.__getattribute__(ghost, "warm").inflate()
        if type(ghost) is not kind:
            return getattr(ghost, name)
    raise AttributeError(name)
