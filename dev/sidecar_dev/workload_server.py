"""Serves a `Registry` as the SPIFFE Workload API on a Unix socket: on its own, or inside the process of a test.

A connection is attested once, when it is made: the kernel names the process that opened it, and that process is held by
a descriptor until the connection ends. Every call of an unidentified peer is denied.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Final, Self, cast

from grpclib.protocol import H2Protocol
from grpclib.server import Handler, Server

from sidecar_dev.attestation import AttestationError, Peer, attest
from sidecar_dev.registry import Registry
from sidecar_dev.workload_service import PeerService

_BACKLOG: Final = 128


class DevWorkloadApi:
    """Serves a registry on a Unix socket from ``start`` (or ``async with``) to ``stop``.

    Raises from ``start``:
        OSError: the path is in use by a living server, or no socket can be made there.
    """

    def __init__(self, path: Path, registry: Registry, *, mode: int = 0o600) -> None:
        self.path = path
        self.registry = registry
        self._mode = mode
        self._connections: set[asyncio.Transport] = set()
        self._all_gone = asyncio.Event()
        self._server: Server | None = None

    @property
    def address(self) -> str:
        """Return the value for SPIFFE_ENDPOINT_SOCKET."""
        return f"unix://{self.path.absolute()}"

    def service(self, peer: Peer | None) -> PeerService:
        """Return the service for a new connection. A test may override it to answer wrongly."""
        return PeerService(self.registry, peer)

    async def start(self) -> None:
        """Listen."""
        listener = _listener(self.path, self._mode)
        self._server = _Server(self)
        await self._server.start(path=None, sock=listener, backlog=_BACKLOG)

    async def stop(self) -> None:
        """Abort all connections, as a killed server does, and remove the socket."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for transport in tuple(self._connections):
            transport.abort()
        if self._connections:
            self._all_gone.clear()
            await self._all_gone.wait()
        await server.wait_closed()
        self.path.unlink(missing_ok=True)

    def opened(self, transport: asyncio.Transport) -> None:
        """Remember a connection."""
        self._connections.add(transport)

    def closed(self, transport: asyncio.Transport) -> None:
        """Forget a connection."""
        self._connections.discard(transport)
        if not self._connections:
            self._all_gone.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class _Server(Server):
    """Gives each connection the service of its own peer."""

    def __init__(self, api: DevWorkloadApi) -> None:
        super().__init__([])
        self._api = api

    def _protocol_factory(self) -> H2Protocol:
        return _Connection(super()._protocol_factory(), self._api)


class _Connection(H2Protocol):
    """One client's connection: attested when it is made, and its process held until it is gone."""

    handler: Handler
    _transport: asyncio.Transport

    def __init__(self, plain: H2Protocol, api: DevWorkloadApi) -> None:
        super().__init__(plain.handler, plain.config, plain.h2_config)
        self._api = api
        self._peer: Peer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        with contextlib.suppress(AttestationError):  # without a peer every call is denied
            self._peer = attest(transport.get_extra_info("socket"), socket_path=self._api.path)
        self.handler.mapping = self._api.service(self._peer).__mapping__()
        self._transport = cast("asyncio.Transport", transport)
        self._api.opened(self._transport)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._api.closed(self._transport)
        if self._peer is not None:
            self._peer.close()


def _listener(path: Path, mode: int) -> socket.socket:
    """Bind the socket, with a private mode until ``mode`` is set. Removes the socket of a dead server."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        if path.is_socket() and not _answers(path):
            path.unlink()
        listener.bind(str(path))
        path.chmod(mode)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(umask)
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0
