"""Interface of an operation: the call of a protocol above HTTP that a request asks for."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from sidecar.proxy.journeys.journey import Journey

if TYPE_CHECKING:
    from delegation_core.errors import SidecarError
    from delegation_core.operation import RouteProtocol
    from delegation_core.route import InboundRoute, OutboundRoute
    from delegation_core.target import CanonicalTarget
    from sidecar.observe.access_log import Entry
    from sidecar.wire.message import Field, Request
    from sidecar.wire.stream import Stream

_Route = TypeVar("_Route", "InboundRoute", "OutboundRoute")


class Operation(Protocol):
    """Operation that a request asks for; empty until ``find``, which reads at most ``max_bytes`` of the body."""

    protocol: ClassVar[RouteProtocol]
    key: str
    grpc: bool  # true: the request is a gRPC call
    max_bytes: int

    @property
    def allow(self) -> Collection[str] | None:
        """Methods for the Allow field of a 405; None: those of the route."""

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
        """Parse the operation of a request and return the route of that operation.

        ``below`` is the path relative to the protocol's endpoint, empty at the endpoint. None: the endpoint's path is
        unknown, as for outbound calls; the target's own sidecar knows it.

        Raises:
            Denied: the operation is malformed or not permitted; TOO_LARGE, the body is longer than ``max_bytes``.
        """

    def answer(self, error: SidecarError, request_id: str) -> tuple[int, bytes] | None:
        """Return status and body of a refusal in the protocol's own form; None: it has no such form."""

    def grpc_status(self, error: SidecarError, code: int, text: str, request_id: str) -> tuple[int, str, list[Field]]:
        """Return code, message and additional trailers of a gRPC refusal. ``code`` and ``text`` are the defaults."""
