"""Ghosts: objects of the engine in Python that stand for a request in flight in the native engine.

A ghost is a subclass of the class that it stands for. It has only the attribute ``warm``, its native call, and
attributes of the class. Reading any other attribute makes all ghosts of that request real: each gets its ordinary class
and the state that the engine in Python would have reached (``_take_over`` of its side). That engine then serves the
rest of the request. So deadlines, a drain, a change of trust and the admin socket treat all requests alike.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from sidecar.observe.entry import Entry
from sidecar.proxy.journeys.forward import Forwarding
from sidecar.proxy.journeys.handles import ServedRequest
from sidecar.wire.h1_stream import H1Stream


class Ghost:
    """Base of the ghosts that become real together."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        """Make the request real, and return the attribute ``name`` of the object that replaces this ghost.

        Raises:
            AttributeError: the object has no such attribute, or the request has ended.
        """
        kind = type(self)
        if issubclass(kind, Ghost):
            object.__getattribute__(self, "warm").inflate()
            if type(self) is not kind:
                return getattr(self, name)
        raise AttributeError(name)


class GhostStream(Ghost, H1Stream):
    """Stands for a stream whose body is complete: ``intake`` is None, as each sweep of its connection reads it."""

    __slots__ = ()

    intake = None


class GhostEntry(Ghost, Entry):
    """Stands for an open record."""

    __slots__ = ()


class GhostForwarding(Ghost, Forwarding):
    """Stands for the forwarding of a request to its upstream."""

    __slots__ = ()


class GhostRequest(ServedRequest):
    """Stands for the request behind a handle. It becomes real alone, when the agent calls out; other ghosts stay."""

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


new_stream: Final = partial(object.__new__, GhostStream)
new_entry: Final = partial(object.__new__, GhostEntry)
new_forwarding: Final = partial(object.__new__, GhostForwarding)
new_request: Final = partial(object.__new__, GhostRequest)
