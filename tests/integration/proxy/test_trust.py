from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType
from typing import Any

import pytest

from delegation_core.errors import Reason, SidecarError
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity.bundle import parse_bundle
from sidecar.identity.generation import new_identity
from sidecar.identity.tls import client_context, server_context
from sidecar.proxy.journeys.trust import TrustWatch
from sidecar.wire.connections import Connections
from sidecar.wire.h1_server import ServerConnection
from sidecar.wire.limits import ServerLimits
from sidecar.wire.stream import Stream
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import TRUST_DOMAIN, WRITER

pytestmark = pytest.mark.integration

PARTNER = TrustDomain("partner.example")
HELPER = SpiffeId("spiffe://partner.example/agent/helper")
PLANNER = SpiffeId("spiffe://acme.example/agent/planner")


class Federated(OwnIdentity):
    """Trusts the partner too, until changed."""

    def __init__(self, own: TrustDomainAuthority, partner: TrustDomainAuthority, spiffe_id: SpiffeId) -> None:
        self._partner = parse_bundle(partner.trust_domain, partner.bundle_der())
        super().__init__(own, spiffe_id)

    def _issue(self, spiffe_id: SpiffeId) -> Any:
        identity = super()._issue(spiffe_id)
        bundles = MappingProxyType({**identity.bundles, self._partner.trust_domain: self._partner})
        return new_identity(identity.number, identity.svid, bundles, now=int(time.time()))

    def distrust(self) -> None:
        identity = self._current
        assert identity is not None
        own = {
            domain: bundle for domain, bundle in identity.bundles.items() if domain == identity.spiffe_id.trust_domain
        }
        self._current = new_identity(identity.number + 1, identity.svid, own, now=int(time.time()))


class Waiting:
    """Keeps requests, and the reasons why they were stopped."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.stopped: list[Reason] = []
        self._exchange: Stream | None = None

    def answer(self) -> None:
        assert self._exchange is not None
        self._exchange.answer(200, [], b"")

    def on_request(self, exchange: Stream) -> None:
        self._exchange = exchange
        exchange.owner = self
        self.arrived.set()

    def on_refused(self, exchange: Stream, error: SidecarError) -> None:
        exchange.abort()

    def gone(self) -> None:
        pass

    def stop(self, error: SidecarError) -> None:
        self.stopped.append(error.reason)


class Bench:
    def __init__(self) -> None:
        self.acme = TrustDomainAuthority(TRUST_DOMAIN)
        self.partner = TrustDomainAuthority(PARTNER)
        self.own = Federated(self.acme, self.partner, WRITER)
        self.handler = Waiting()
        self.connections: Connections[ServerConnection] = Connections()
        self.now = time.time()
        self.watch = TrustWatch(wall=lambda: self.now)

    async def end_distrusted(self) -> None:
        await self.watch.look(self.connections)

    @asynccontextmanager
    async def connected(self, spiffe_id: SpiffeId | None) -> AsyncIterator[asyncio.StreamReader]:
        """Open a connection of a peer, by TLS except without a peer."""
        loop = asyncio.get_running_loop()
        context = server_context(self.own) if spiffe_id else None
        server = await loop.create_server(
            lambda: ServerConnection(self.handler, ServerLimits(), self.connections), "127.0.0.1", 0, ssl=context
        )
        tls = None
        if spiffe_id is not None:
            own, other = (
                (self.acme, self.partner) if spiffe_id.trust_domain == TRUST_DOMAIN else (self.partner, self.acme)
            )
            tls = client_context(Federated(own, other, spiffe_id), expected=WRITER)
        port = server.sockets[0].getsockname()[1]
        host = "writer" if tls else None
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=host)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.wait_for(self.handler.arrived.wait(), 5)
        try:
            yield reader
        finally:
            writer.transport.abort()
            with suppress(ConnectionError, OSError):
                await writer.wait_closed()
            server.close()
            await server.wait_closed()
            await asyncio.wait_for(self.connections.wait_for_empty(), 5)


def is_cut(bench: Bench) -> bool:
    return all(connection.transport.is_closing() for connection in bench.connections)


async def test_a_peer_that_is_trusted_stays() -> None:
    bench = Bench()
    async with bench.connected(HELPER):
        await bench.end_distrusted()
        assert not is_cut(bench)
    assert bench.handler.stopped == []


async def test_a_connection_of_a_peer_that_is_trusted_no_more_ends_after_the_exchange_in_progress() -> None:
    bench = Bench()
    async with bench.connected(HELPER) as reader:
        bench.own.distrust()
        await bench.end_distrusted()
        assert not is_cut(bench)
        assert bench.handler.stopped == []  # that is the watch's task
        bench.handler.answer()
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200 OK")  # to the end


async def test_an_idle_one_ends_at_once() -> None:
    bench = Bench()
    async with bench.connected(HELPER) as reader:
        bench.handler.answer()
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        bench.own.distrust()
        await bench.end_distrusted()
        assert is_cut(bench)
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_peers_of_other_trust_domains_stay() -> None:
    bench = Bench()
    async with bench.connected(PLANNER):
        bench.own.distrust()
        await bench.end_distrusted()
        assert not is_cut(bench)


async def test_a_connection_ends_with_its_peers_certificate_and_no_exchange_does() -> None:
    bench = Bench()
    async with bench.connected(HELPER) as reader:
        bench.now += 7200
        await bench.end_distrusted()
        assert not is_cut(bench)
        bench.handler.answer()
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200 OK")
    assert bench.handler.stopped == []


async def test_when_our_own_identity_is_gone_nobody_is_cut() -> None:
    bench = Bench()
    async with bench.connected(HELPER):
        bench.own.become(None)
        await bench.end_distrusted()
        assert not is_cut(bench)


async def test_a_connection_without_tls_has_no_peer_to_distrust() -> None:
    bench = Bench()
    async with bench.connected(None):
        bench.own.distrust()
        await bench.end_distrusted()
        assert not is_cut(bench)
