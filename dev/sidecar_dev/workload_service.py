"""The calls of the SPIFFE Workload API, answered for the process behind one connection.

Theory of operation. Each call must have the security header, because a web page could make a browser send a call
without it (Workload Endpoint section 6.1). An answer contains all current entitlements of the process. A stream stays
open, queries them again after each change and at half of an SVID's life, and sends changed states. Each query returns
the whole state, so a slow reader skips states and never gets an old one. A process without entitlements gets
PERMISSION_DENIED.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from delegation_core.errors import Denied
from sidecar.identity import workload_pb as pb
from sidecar_dev import answers
from sidecar_dev.answers import State
from sidecar_dev.attestation import Peer
from sidecar_dev.registry import NoIdentityError, Registry

MAX_AUDIENCES: Final = 16
_MIN_RENEWAL_S: Final = 0.1  # avoids a busy loop when an authority is about to expire

Call = Stream[Any, Any]


class PeerService:
    """The Workload API for one connection. ``peer`` is None if its process cannot be identified."""

    def __init__(self, registry: Registry, peer: Peer | None) -> None:
        self._registry = registry
        self._peer = peer

    def __mapping__(self) -> dict[str, Handler]:
        unary, stream = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        calls = {
            "FetchX509SVID": Handler(self.x509_svid, stream, pb.X509SVIDRequest, pb.X509SVIDResponse),
            "FetchX509Bundles": Handler(self.x509_bundles, stream, pb.X509BundlesRequest, pb.X509BundlesResponse),
            "FetchJWTSVID": Handler(self.jwt_svid, unary, pb.JWTSVIDRequest, pb.JWTSVIDResponse),
            "FetchJWTBundles": Handler(self.jwt_bundles, stream, pb.JWTBundlesRequest, pb.JWTBundlesResponse),
            "ValidateJWTSVID": Handler(self.validate, unary, pb.ValidateJWTSVIDRequest, pb.ValidateJWTSVIDResponse),
        }
        return {pb.SERVICE + name: handler for name, handler in calls.items()}

    async def x509_svid(self, call: Call) -> None:
        """Serve FetchX509SVID."""
        await self._keep_current(call, answers.x509_svids)

    async def x509_bundles(self, call: Call) -> None:
        """Serve FetchX509Bundles."""
        await self._keep_current(call, answers.x509_bundles)

    async def jwt_bundles(self, call: Call) -> None:
        """Serve FetchJWTBundles."""
        await self._keep_current(call, answers.jwt_bundles)

    async def jwt_svid(self, call: Call) -> None:
        """Serve FetchJWTSVID."""
        request = await _request_of(call)
        audiences = list(request.audience)
        if not 0 < len(audiences) <= MAX_AUDIENCES or not all(audiences):
            raise GRPCError(Status.INVALID_ARGUMENT, "an audience must be named")
        with _denying():
            answer = answers.jwt_svids(self._registry, self._peer, audiences, request.spiffe_id)
        await call.send_message(answer)

    async def validate(self, call: Call) -> None:
        """Serve ValidateJWTSVID."""
        request = await _request_of(call)
        if not request.audience or not request.svid:
            raise GRPCError(Status.INVALID_ARGUMENT, "audience and svid must be given")
        try:
            with _denying():
                answer = answers.validate_jwt_svid(self._registry, self._peer, request.audience, request.svid)
        except Denied as error:
            raise GRPCError(Status.INVALID_ARGUMENT, error.reason.value) from error
        await call.send_message(answer)

    async def _keep_current(self, call: Call, state_of: Callable[[Registry, Peer | None], State]) -> None:
        await _request_of(call)
        sent = None
        while True:
            changed = self._registry.changed
            with _denying():
                state = state_of(self._registry, self._peer)
            serialized = state.message.SerializeToString(deterministic=True)
            if serialized != sent:
                await call.send_message(state.message)
                sent = serialized
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(state.renew_at - self._registry.now, _MIN_RENEWAL_S)):
                    await changed.wait()


async def _request_of(call: Call) -> Any:
    """Check the security header of a call, then return its request message. Raises a gRPC error."""
    if call.metadata is None or call.metadata.getall(pb.SECURITY_HEADER, []) != ["true"]:
        raise GRPCError(Status.INVALID_ARGUMENT, "security header missing from request")
    request = await call.recv_message()
    if request is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "request message missing")
    return request


@contextlib.contextmanager
def _denying() -> Iterator[None]:
    try:
        yield
    except NoIdentityError as error:
        raise GRPCError(Status.PERMISSION_DENIED, "no identity issued") from error
