from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from delegation_core.revocation import Kind
from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.endpoint import EndpointAnswer, addresses_of
from sidecar.sts.book import Book
from sidecar.sts.orders import Action, Order
from sidecar.sts.replicas import Replicas
from sidecar.sts.revocations import Register, RevocationSettings
from sidecar.sts.server import StsServer, StsSettings
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.sts import Mesh
from tests.fakes.sts_server import STS, StsIdentity
from tests.fakes.tokens import TRUST_DOMAIN
from tests.integration.world import free_port

pytestmark = pytest.mark.integration


@dataclass
class Replica:
    register: Register
    server: StsServer
    peers: Replicas


@asynccontextmanager
async def replica(
    authority: TrustDomainAuthority, *urls: str, port: int = 0, spiffe_id: SpiffeId = STS
) -> AsyncIterator[Replica]:
    mesh = Mesh(start=int(time.time()))
    mesh.log.workload = spiffe_id
    source = StsIdentity(authority, spiffe_id)
    source.bundles = {TRUST_DOMAIN: mesh.svids.keys}
    register = mesh.service.register = Register(RevocationSettings(replicas=urls), mesh.log)
    register.load()
    server = StsServer(StsSettings(port=port, probe_port=0), service=mesh.service, source=source)
    await server.start()
    assert server.revocations is not None
    try:
        yield Replica(register, server, Replicas(register, source, replica=server.revocations.replica))
    finally:
        await server.stop()


def order(value: str) -> Order:
    now = int(time.time())
    return Order(
        id=value,
        action=Action.REVOKE,
        operator="spiffe://acme.example/operator/ann",
        made_at=now,
        expires_at=now + 60,
        reason="INC-42",
        kind=Kind.TXN,
        value=value,
    )


async def test_replicas_learn_each_others_orders_and_are_ready_from_then_on() -> None:
    authority = TrustDomainAuthority(TRUST_DOMAIN)
    ports = free_port(), free_port()
    urls = [f"https://127.0.0.1:{port}" for port in ports]
    async with replica(authority, *urls, port=ports[0]) as one:
        await one.register.add(order("a"))
        await one.peers.ask_all()
        assert one.register.lacking(), "the other is not there, and our own answer is none"
        async with replica(authority, *urls, port=ports[1]) as two:
            await two.register.add(order("b"))
            await two.peers.ask_all()
            await one.peers.ask_all()
            for each in (one, two):
                assert each.register.lacking() is None
                assert each.register.book.orders.keys() == {"a", "b"}


async def test_orders_that_a_clock_ahead_removed_are_asked_for_again_once_it_fell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authority = TrustDomainAuthority(TRUST_DOMAIN)
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(replica(authority))
        host, port = other.server.address
        one = await stack.enter_async_context(replica(authority, f"https://{host}:{port}"))
        ahead_s = 0
        monkeypatch.setattr(one.register, "_clock", lambda: time.time() + ahead_s)
        await other.register.add(order("a"))
        await one.peers.ask_all()
        ahead_s = 3600
        await one.register.add(replace(order("b"), expires_at=int(time.time()) + 7200))
        assert one.register.book.orders.keys() == {"b"}
        await one.peers.ask_all()
        assert one.register.book.orders.keys() == {"b"}
        ahead_s = 0
        await one.register.expire()
        await one.peers.ask_all()
        assert one.register.book.orders.keys() == {"a", "b"}


async def test_orders_are_sent_again_only_once_they_have_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = TrustDomainAuthority(TRUST_DOMAIN)
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(replica(authority))
        host, port = other.server.address
        one = await stack.enter_async_context(replica(authority, f"https://{host}:{port}"))
        merged: list[int] = []
        merge = one.register.merge

        async def counted(book: Book) -> None:
            merged.append(len(book.orders))
            await merge(book)

        monkeypatch.setattr(one.register, "merge", counted)
        await other.register.add(order("a"))
        await one.peers.ask_all()
        await one.peers.ask_all()
        assert merged == [1]
        await other.register.add(order("b"))
        await one.peers.ask_all()
        await one.peers.ask_all()
        assert (merged, one.register.lacking()) == ([1, 2], None)


async def test_unchanged_is_no_answer_to_a_first_question(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = TrustDomainAuthority(TRUST_DOMAIN)

    async def unchanged(self: object, etag: str | None = None) -> EndpointAnswer:
        return EndpointAnswer(304, None, None, b"", '"a-1"')

    async with replica(authority, "https://127.0.0.1:1") as one:
        monkeypatch.setattr("sidecar.sts.replicas.EndpointClient.get", unchanged)
        await one.peers.ask_all()
        assert one.register.lacking()


async def test_a_replica_that_is_the_only_one_is_ready() -> None:
    authority, port = TrustDomainAuthority(TRUST_DOMAIN), free_port()
    async with replica(authority, f"https://127.0.0.1:{port}", port=port) as alone:
        assert alone.register.lacking()
        await alone.peers.ask_all()
        assert alone.register.lacking() is None


async def test_orders_are_taken_from_our_own_spiffe_id_alone() -> None:
    authority = TrustDomainAuthority(TRUST_DOMAIN)
    async with AsyncExitStack() as stack:
        forger = await stack.enter_async_context(replica(authority, spiffe_id=SpiffeId("spiffe://acme.example/x")))
        await forger.register.add(order("forged"))
        host, port = forger.server.address
        one = await stack.enter_async_context(replica(authority, f"https://{host}:{port}"))
        await one.peers.ask_all()
        assert not one.register.book.orders
        assert one.register.lacking()


async def test_a_replica_whose_number_jumps_is_refused_and_reported_and_stops_nobody() -> None:
    authority = TrustDomainAuthority(TRUST_DOMAIN)
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(replica(authority))
        host, port = liar.server.address
        one = await stack.enter_async_context(replica(authority, f"https://{host}:{port}"))
        await one.peers.ask_all()
        assert (one.register.lacking(), one.peers.failures) == (None, 0)
        liar.register._book = Book(seq=2**53 - 1, orders=liar.register.book.orders)
        liar.register.changes += 1
        await one.peers.ask_all()
        assert (one.peers.failures, one.register.book.seq) == (1, 0)
        assert one.register.lacking() is None
        await one.register.add(order("t1"))
        assert one.register.book.seq == 1


async def test_a_name_stands_for_all_its_addresses() -> None:
    assert await addresses_of(["https://127.0.0.1:7444/sts/"]) == ["https://127.0.0.1:7444/sts"]
    found = await addresses_of(["https://localhost:7444", "https://127.0.0.1:7444"])
    assert "https://127.0.0.1:7444" in found
    assert len(found) == len(set(found))
    with pytest.raises(OSError, match=r"."):
        await addresses_of(["https://nowhere.invalid"])
