"""gRPC policy for any service: the operation is the path of the call; messages are not parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.grpc import key_of_path, label_of
from delegation_core.operation import RouteProtocol
from delegation_core.route import InboundRoute, OutboundRoute
from delegation_core.target import CanonicalTarget
from sidecar.features.operations.operation import Operation
from sidecar.features.operations.sides import InboundSide, OutboundSide
from sidecar.proxy.journeys.journey import Journey
from sidecar.wire.grpc import is_grpc
from sidecar.wire.message import Request
from sidecar.wire.stream import Stream

if TYPE_CHECKING:
    from sidecar.features import Features


class GrpcOperation(Operation):
    """Operation of a gRPC call. Other requests on its route are refused with an HTTP status."""

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
        """Read the operation from the path of a call.

        Raises:
            Denied: OPERATION_MALFORMED, not gRPC over HTTP/2, or as ``key_of_path``; METHOD_REFUSED, not POST.
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
        """Return None: a refusal has the usual HTTP body; callers that speak gRPC get ``grpc_status``."""


class Feature:
    """gRPC on both sides."""

    def __init__(self, _features: Features) -> None:
        pass

    def inbound(self, _side: object) -> GrpcInbound:
        """Return the inbound protocol."""
        return GrpcInbound()

    def outbound(self, _side: object) -> GrpcOutbound:
        """Return the outbound protocol."""
        return GrpcOutbound()


class GrpcInbound(InboundSide):
    """Inbound gRPC."""

    def new_operation(self) -> GrpcOperation:
        """Return an empty operation; its ``find`` reads the call."""
        return GrpcOperation()


class GrpcOutbound(OutboundSide):
    """Outbound gRPC."""

    def new_operation(self) -> GrpcOperation:
        """Return an empty operation; its ``find`` reads the call."""
        return GrpcOperation()
