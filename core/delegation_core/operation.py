"""Operations of protocols above HTTP (MCP, A2A, gRPC), and the rules of a route for each.

A key names an operation: a method (``tools/list``), or a method and a name (``tools/call:search``). A route lists the
allowed keys. Each listed key has its own route object, built from the whole route and the settings of the operation, so
operations and paths are decided by the same code.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from typing import Final, Generic, Literal, TypeAlias, TypeVar

from delegation_core.errors import Denied, Reason

RouteProtocol: TypeAlias = Literal["http", "mcp", "a2a", "grpc", "metadata"]  # metadata: the sidecar itself answers
SessionsOf: TypeAlias = Literal["per_subject", "per_actor"]

OTHER: Final = "other"  # in records and metrics: a name or method that the settings do not list
ANY_NAME: Final = "*"

_Route_co = TypeVar("_Route_co", covariant=True)


class Operations(Generic[_Route_co]):
    """Allowed operations of a route: maps each listed key to its route object. ``method:*`` covers all other names.

    ``named``: keys that any route of the settings lists; records may name these even if this route refuses them.
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
        """Return the route object of an operation.

        Raises:
            Denied: OPERATION_REFUSED if no listed key covers ``key``, or if it is another spelling of a listed key,
                which an agent might treat as equal.
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
        """Return the name of an operation for records and metrics: names that no route lists become ``other``."""
        if key in self._named:
            return key
        method, colon, _ = key.partition(":")
        return f"{method}:{OTHER}" if colon else key


def _folded(key: str) -> str:
    method, colon, name = key.partition(":")
    return method.casefold() + colon + unicodedata.normalize("NFKC", name).casefold().strip()
