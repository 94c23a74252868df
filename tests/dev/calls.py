"""Raw calls of the Workload API, as only a misbehaving client makes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from sidecar.identity import workload_pb as pb

HEADER = [(pb.SECURITY_HEADER, "true")]
STREAMS: dict[str, tuple[Any, Any]] = {
    "FetchX509SVID": (pb.X509SVIDRequest, pb.X509SVIDResponse),
    "FetchX509Bundles": (pb.X509BundlesRequest, pb.X509BundlesResponse),
    "FetchJWTBundles": (pb.JWTBundlesRequest, pb.JWTBundlesResponse),
}
UNARY: dict[str, tuple[Any, Any]] = {
    "FetchJWTSVID": (pb.JWTSVIDRequest, pb.JWTSVIDResponse),
    "ValidateJWTSVID": (pb.ValidateJWTSVIDRequest, pb.ValidateJWTSVIDResponse),
}


def stream_of(channel: Channel, name: str, metadata: Sequence[tuple[str, str]] = HEADER) -> Any:
    """Return a stream to be entered with ``async with``."""
    request, reply = STREAMS[name]
    return UnaryStreamMethod(channel, pb.SERVICE + name, request, reply).open(metadata=list(metadata), timeout=5)


async def opened(stream: Any, request: Any) -> Any:
    """Send the request and wait for the first message."""
    await stream.send_message(request, end=True)
    return await stream.recv_message()


async def first(path: Path, name: str, metadata: Sequence[tuple[str, str]] = HEADER) -> Any:
    """Return the first message of a stream on its own connection."""
    async with Channel(path=str(path)) as channel, stream_of(channel, name, metadata) as stream:
        message = await opened(stream, STREAMS[name][0]())
        if message is not None:
            await stream.cancel()
    return message


async def call(path: Path, name: str, metadata: Sequence[tuple[str, str]] = HEADER, /, **fields: object) -> Any:
    """Return the answer of a unary call."""
    request, reply = UNARY[name]
    async with Channel(path=str(path)) as channel:
        method = UnaryUnaryMethod[Any, Any](channel, pb.SERVICE + name, request, reply)
        return await method(request(**fields), metadata=list(metadata), timeout=5)


async def refusal(waiting: Any) -> tuple[Status, str | None]:
    """Return the status and message of a refused call."""
    with pytest.raises(GRPCError) as caught:
        await waiting
    return caught.value.status, caught.value.message
