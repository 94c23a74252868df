"""Operations: what a message of a protocol above HTTP asks for, and what a route says of each.

A key names an operation: a method (``tools/list``), or a method and a name (``tools/call:search``). A route lists the
keys that it allows. Each listed key has a route of its own, made of the whole route and what the settings add for it,
so that an operation is decided exactly as a path is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from typing import Final, Generic, Literal, TypeAlias, TypeVar

from sidecar.errors import Denied, Reason

RouteProtocol: TypeAlias = Literal["http", "mcp", "a2a", "grpc", "metadata"]  # metadata: the sidecar itself answers
SessionsOf: TypeAlias = Literal["per_subject", "per_actor"]

OTHER: Final = "other"  # in records and metrics: a name, or a method, that the settings do not list
ANY_NAME: Final = "*"

_Route_co = TypeVar("_Route_co", covariant=True)


class Operations(Generic[_Route_co]):
    """The operations that a route allows: the route of each listed key. ``method:*`` is that of all other names.

    ``named`` are the keys that any route of the settings lists: records may name them where this route refuses them.
    """

    __slots__ = ("_folded", "_named", "_routes")

    def __init__(self, routes: Mapping[str, _Route_co], *, named: Collection[str] = ()) -> None:
        self._routes = dict(routes)
        self._named = frozenset(routes) | frozenset(named)
        self._folded = frozenset(map(_folded, routes))

    @property
    def keys(self) -> tuple[str, ...]:
        """The listed keys."""
        return tuple(self._routes)

    def find(self, key: str) -> _Route_co:
        """Return the route of an operation.

        Raises:
            Denied: OPERATION_REFUSED, the key is not listed; also if it is a listed one in another spelling, which an
                agent might take for that one.
        """
        route = self._routes.get(key)
        if route is not None:
            return route
        method, colon, _ = key.partition(":")
        if _folded(key) in self._folded:
            raise Denied(Reason.OPERATION_REFUSED, "another spelling of a listed operation")
        route = self._routes.get(f"{method}:{ANY_NAME}") if colon else None
        if route is None:
            raise Denied(Reason.OPERATION_REFUSED, "the route does not list this operation")
        return route

    def label(self, key: str) -> str:
        """Return an operation as records and metrics name it: text of a caller's never gets there."""
        if key in self._named:
            return key
        method, colon, _ = key.partition(":")
        return f"{method}:{OTHER}" if colon else key


def _folded(key: str) -> str:
    method, colon, name = key.partition(":")
    return method.casefold() + colon + unicodedata.normalize("NFKC", name).casefold().strip()
