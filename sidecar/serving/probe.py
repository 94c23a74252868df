"""The probe's listener: plain HTTP, open to every client in the pod's network."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections import OrderedDict
from typing import Final, Protocol, cast

from sidecar.admission import ADMIT, WAIT, Admit, Wait, at_limit
from sidecar.identity.acceptor import Acceptor
from sidecar.identity.first_bytes import first_of_http
from sidecar.identity.handshake_queue import EVICTED_PER_S, HandshakeQueue

MAX_CONNECTIONS: Final = 1024  # with a complete request head
_DESCRIPTORS_SHARE: Final = 8  # of the descriptors, and as many for connections without a request
_HEAD_TIMEOUT_S: Final = 10.0
_PATIENCE_S: Final = 0.5  # with a connection while others wait; an answer takes milliseconds


class Site(Protocol):
    """Makes the protocol of each connection, between ``open`` and ``close``."""

    async def open(self) -> None:
        """Prepare."""

    def __call__(self) -> asyncio.Protocol:
        """Make the protocol of one more connection."""

    async def close(self) -> None:
        """End every connection."""


class Probe:
    """Serves a site until closed. ``address`` has the bound port.

    A connection reaches the site when its request head is complete; until then it costs only a descriptor. At
    most ``limit`` connections of each kind are kept. At the limit the oldest is evicted once it is half a second
    old; new ones wait until then. An honest client gets its answer within milliseconds, or reconnects.
    """

    def __init__(self, site: Site, host: str, port: int) -> None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.limit = max(2, min(MAX_CONNECTIONS, descriptors // _DESCRIPTORS_SHARE))
        self._site = site
        self._connections: OrderedDict[_Counted, float] = OrderedDict()  # and when each was made
        self._waiting = HandshakeQueue(None, first=first_of_http, most=None, room=self.limit, timeout_s=_HEAD_TIMEOUT_S)
        self._acceptor = Acceptor(host, port, self._admit, before_accept=self._before_accept)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self._acceptor.address

    async def open(self) -> None:
        """Start to listen.

        Raises:
            OSError: the address is in use or not local.
        """
        await self._site.open()
        self._acceptor.open()

    async def close(self) -> None:
        """Stop."""
        self._acceptor.close()
        await self._waiting.close()
        await self._site.close()

    def _before_accept(self) -> Admit | Wait:
        if self._waiting.full:
            return WAIT
        decision = at_limit(len(self._connections), self.limit, self._first_to_evict, WAIT)
        return decision if isinstance(decision, Wait) else ADMIT

    def _admit(self, accepted: socket.socket, address: str) -> None:
        self._waiting.start(accepted, address, self._accept)

    def _first_to_evict(self) -> _Counted | None:
        oldest, since = next(iter(self._connections.items()))
        patience_s = max(_PATIENCE_S, len(self._connections) / EVICTED_PER_S)
        return oldest if asyncio.get_running_loop().time() - since >= patience_s else None

    def _accept(self) -> asyncio.Protocol:
        """Make the protocol of one more connection."""
        if len(self._connections) >= self.limit:
            oldest, _ = self._connections.popitem(last=False)
            oldest.cut()
        counted = _Counted(self._site(), self._connections)
        self._connections[counted] = asyncio.get_running_loop().time()
        return counted


class _Counted(asyncio.Protocol):
    """One counted connection of the site."""

    def __init__(self, inner: asyncio.Protocol, among: OrderedDict[_Counted, float]) -> None:
        self._inner = inner
        self._among = among
        self._transport: asyncio.Transport | None = None

    def cut(self) -> None:
        """Abort the connection; an orderly close would wait for a peer that reads nothing."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._among.pop(self, None)
        self._inner.connection_lost(error)
