"""A Workload API that follows the test's script, right or wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol
from grpclib.server import Server, Stream

from sidecar.identity import workload_pb
from tests.identity.shapes import Issued, der_of


def x509_message(
    *svids: tuple[str, list[Issued]],
    bundle: list[Issued],
    federated: dict[str, bytes] | None = None,
    hints: tuple[str, ...] = (),
) -> Any:
    """Build a FetchX509SVID answer, from SPIFFE IDs with their chains, leaf first."""
    hints = hints or ("",) * len(svids)
    return workload_pb.X509SVIDResponse(
        svids=[
            workload_pb.X509SVID(
                spiffe_id=spiffe_id,
                x509_svid=b"".join(der_of(*chain)),
                x509_svid_key=chain[0].key_der,
                bundle=b"".join(der_of(*bundle)),
                hint=hint,
            )
            for (spiffe_id, chain), hint in zip(svids, hints, strict=True)
        ],
        federated_bundles=federated or {},
    )


class ScriptedApi:
    """New streams get the latest message at once; ``say`` reaches open streams too. None in a queue ends the stream."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.x509: Any = None  # a message, a gRPC status, or None for silence
        self.jwt_bundles: Any = None
        self.jwt_svid: Callable[[Any], Any] = lambda _: workload_pb.JWTSVIDResponse()
        self.calls: list[tuple[str, str | None]] = []  # method and security header
        self.requests: list[Any] = []  # of JWT-SVIDs
        self.hold = asyncio.Event()  # JWT-SVIDs are answered once this is set
        self.hold.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._streams: dict[str, set[asyncio.Queue[Any]]] = {"FetchX509SVID": set(), "FetchJWTBundles": set()}

    @property
    def address(self) -> str:
        return f"unix://{self.path}"

    def say(self, answer: Any) -> None:
        self.x509 = answer
        for queue in self._streams["FetchX509SVID"]:
            queue.put_nowait(answer)

    def say_jwt(self, answer: Any) -> None:
        self.jwt_bundles = answer
        for queue in self._streams["FetchJWTBundles"]:
            queue.put_nowait(answer)

    def end(self) -> None:
        for queue in self._streams["FetchX509SVID"]:
            queue.put_nowait(None)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[ScriptedApi]:
        server = _Server([self])
        await server.start(path=str(self.path))
        try:
            yield self
        finally:
            for queues in self._streams.values():
                for queue in queues:
                    queue.put_nowait(None)
            await self._idle.wait()  # closing alone leaves a client's stream hanging
            server.close()
            await server.hang_up()  # it waits only for streams, and some clients keep the connection a little longer
            await server.wait_closed()
            self.path.unlink(missing_ok=True)

    async def _stream(self, stream: Stream[Any, Any], method: str, first: Callable[[], Any]) -> None:
        self.calls.append((method, str(dict(stream.metadata or {}).get("workload.spiffe.io"))))
        await stream.recv_message()
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._streams[method].add(queue)
        self._idle.clear()
        if first() is not None:
            queue.put_nowait(first())
        try:
            while (answer := await queue.get()) is not None:
                if isinstance(answer, Status):
                    raise GRPCError(answer, "as the test says")
                await stream.send_message(answer)
        finally:
            self._streams[method].discard(queue)
            if not any(self._streams.values()):
                self._idle.set()

    async def _x509(self, stream: Stream[Any, Any]) -> None:
        await self._stream(stream, "FetchX509SVID", lambda: self.x509)

    async def _jwt_bundles(self, stream: Stream[Any, Any]) -> None:
        await self._stream(stream, "FetchJWTBundles", lambda: self.jwt_bundles)

    async def _jwt_svid(self, stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        self.requests.append(request)
        await self.hold.wait()
        answer = self.jwt_svid(request)
        if isinstance(answer, Status):
            raise GRPCError(answer, "as the test says")
        await stream.send_message(answer)

    def __mapping__(self) -> dict[str, Handler]:
        pb = workload_pb
        return {
            "/SpiffeWorkloadAPI/FetchX509SVID": Handler(
                self._x509, Cardinality.UNARY_STREAM, pb.X509SVIDRequest, pb.X509SVIDResponse
            ),
            "/SpiffeWorkloadAPI/FetchJWTBundles": Handler(
                self._jwt_bundles, Cardinality.UNARY_STREAM, pb.JWTBundlesRequest, pb.JWTBundlesResponse
            ),
            "/SpiffeWorkloadAPI/FetchJWTSVID": Handler(
                self._jwt_svid, Cardinality.UNARY_UNARY, pb.JWTSVIDRequest, pb.JWTSVIDResponse
            ),
        }


class _Server(Server):
    """Tracks its connections, so that none outlives it."""

    def __init__(self, handlers: Any) -> None:
        super().__init__(handlers)
        self.connections: dict[asyncio.Transport, asyncio.Event] = {}

    def _protocol_factory(self) -> H2Protocol:
        plain = super()._protocol_factory()
        return _Connection(self, plain.handler, plain.config, plain.h2_config)

    async def hang_up(self) -> None:
        while self.connections:
            transport, gone = next(iter(self.connections.items()))
            transport.abort()
            await gone.wait()


class _Connection(H2Protocol):
    _transport: asyncio.Transport

    def __init__(self, server: _Server, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections[self._transport] = asyncio.Event()
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._server.connections.pop(self._transport).set()
