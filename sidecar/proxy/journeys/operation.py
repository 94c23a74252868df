"""Interface of an operation of a protocol above HTTP to the journeys and to what they answer."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from sidecar.proxy.journeys.journey import Journey

if TYPE_CHECKING:
    from sidecar.delegation.operation import RouteProtocol
    from sidecar.delegation.route import InboundRoute, OutboundRoute
    from sidecar.delegation.target import CanonicalTarget
    from sidecar.errors import SidecarError
    from sidecar.observe.access_log import Entry
    from sidecar.wire.message import Field, Request
    from sidecar.wire.stream import Stream

_Route = TypeVar("_Route", "InboundRoute", "OutboundRoute")


class Operation(Protocol):
    """The operation that a request asks for, as far as it was read. No more than ``max_bytes`` of its body is."""

    protocol: ClassVar[RouteProtocol]
    key: str
    grpc: bool  # a call by gRPC
    max_bytes: int

    @property
    def allow(self) -> Collection[str] | None:
        """The methods that an answer with status 405 names; None: those of the route."""

    def find(
        self,
        stream: Stream,
        head: Request,
        target: CanonicalTarget,
        route: _Route,
        entry: Entry,
        *,
        below: str | None,
    ) -> Journey[_Route]:
        """Read what the request asks for, and return the route of that operation.

        ``below`` is the path below that of the interface, empty at it. None: it is not known where that begins, as on
        the agent's side; the target's own sidecar knows.
        """

    def answer(self, error: SidecarError, request_id: str) -> tuple[int, bytes] | None:
        """Return the status and the body of a refusal, in the protocol's own form; None: it has none."""

    def grpc_status(self, error: SidecarError, code: int, text: str, request_id: str) -> tuple[int, str, list[Field]]:
        """Return the code, the message and further fields of a refusal by gRPC."""
