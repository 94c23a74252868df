"""Policy for calls of gRPC of any service: the path of a call names its operation, and no message is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sidecar.delegation.grpc import key_of_path, label_of
from sidecar.delegation.operation import RouteProtocol
from sidecar.delegation.route import InboundRoute, OutboundRoute
from sidecar.delegation.target import CanonicalTarget
from sidecar.errors import Denied, Reason, SidecarError
from sidecar.features.operations.operation import Operation
from sidecar.features.operations.sides import InboundSide, OutboundSide
from sidecar.proxy.journeys.journey import Journey
from sidecar.wire.grpc import is_grpc
from sidecar.wire.message import Request
from sidecar.wire.stream import Stream

if TYPE_CHECKING:
    from sidecar.features import Features


class GrpcOperation(Operation):
    """The operation of a call of gRPC. A refusal of anything else on its route has the status of HTTP alone."""

    __slots__ = ()

    protocol: ClassVar[RouteProtocol] = "grpc"

    def _read(
        self,
        stream: Stream,
        head: Request,
        target: CanonicalTarget,
        _route: InboundRoute | OutboundRoute,
        _below: str | None,
    ) -> Journey[None]:
        """Read the operation of a call.

        Raises:
            Denied: OPERATION_MALFORMED, it is no such call; METHOD_REFUSED.
        """
        yield from ()
        if head.method != "POST":
            raise Denied(Reason.METHOD_REFUSED, "calls of gRPC use POST")
        if not (stream.http2 and is_grpc(head)):
            raise Denied(Reason.OPERATION_MALFORMED, "the call is not one of gRPC over HTTP/2")
        self.grpc = True
        self.key = key_of_path(target.path, target.query)

    def _label(self, operations: Any) -> str:
        return label_of(operations, self.key)

    def answer(self, _error: SidecarError, _request_id: str) -> None:
        """Return None: no call of gRPC, so its caller reads the status of HTTP."""


class Feature:
    """gRPC on both sides."""

    def __init__(self, _features: Features) -> None:
        pass

    def inbound(self, _side: object) -> GrpcInbound:
        """Return the part in front of the agent."""
        return GrpcInbound()

    def outbound(self, _side: object) -> GrpcOutbound:
        """Return the part behind the agent."""
        return GrpcOutbound()


class GrpcInbound(InboundSide):
    """gRPC in front of the agent."""

    def new_operation(self) -> GrpcOperation:
        """Return the operation of a call that is not read yet."""
        return GrpcOperation()


class GrpcOutbound(OutboundSide):
    """gRPC behind the agent."""

    def new_operation(self) -> GrpcOperation:
        """Return the operation of a call that is not read yet."""
        return GrpcOperation()
