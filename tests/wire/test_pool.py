from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from sidecar.delegation.spiffe_id import SpiffeId, TrustDomain
from sidecar.dev.pki import TrustDomainAuthority
from sidecar.errors import Reason, SidecarError
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.limits import ClientLimits
from sidecar.wire.pool import Origin, UpstreamPool, _Connecting
from tests.wire.bench import Clock
from tests.wire.loopback import WAIT_S, Upstream
from tests.wire.test_h1_client import OK, Calling, Sink


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    await upstream.listen()
    yield upstream
    await upstream.close()


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[UpstreamPool]:
    pool = UpstreamPool(ClientLimits(max_idle=2, idle_keep_s=10, max_age_s=100, connect_timeout_s=5), clock=Clock())
    yield pool
    await pool.close()


def to(upstream: Upstream, key: str = "b") -> Origin:
    return Origin("127.0.0.1", upstream.port, key=key)


async def connect(pool: UpstreamPool, origin: Origin) -> ClientConnection:
    found: asyncio.Future[ClientConnection] = asyncio.get_running_loop().create_future()
    pool.connect(origin, found.set_result, found.set_exception)
    async with asyncio.timeout(WAIT_S):
        return await found


async def reason_of(pool: UpstreamPool, origin: Origin) -> Reason:
    with pytest.raises(SidecarError) as refused:
        await connect(pool, origin)
    return refused.value.reason


async def kept(pool: UpstreamPool, upstream: Upstream, *, count: int, key: str = "b") -> list[ClientConnection]:
    """So many connections that have served a request each and were given back in this order."""
    connections = [await connect(pool, to(upstream, key)) for _ in range(count)]
    for connection in connections:
        sink = Sink()
        connection.start("GET", b"/", [], length=0, sink=sink)
        connection.data_received(OK)
        assert "end" in sink.events
    return connections


async def test_the_connection_given_back_last_is_taken_first(pool: UpstreamPool, upstream: Upstream) -> None:
    first, second = await kept(pool, upstream, count=2)
    assert [pool.take(to(upstream)) for _ in range(3)] == [second, first, None]


async def test_connections_are_never_shared_between_keys(pool: UpstreamPool, upstream: Upstream) -> None:
    await kept(pool, upstream, count=1, key="generation 1")
    assert pool.take(to(upstream, "generation 2")) is None
    assert pool.take(to(upstream, "generation 1")) is not None


async def test_no_more_than_the_limit_are_kept(pool: UpstreamPool, upstream: Upstream) -> None:
    connections = await kept(pool, upstream, count=3)
    assert [connection.usable for connection in connections] == [True, True, False]


async def test_a_connection_whose_other_end_is_no_longer_good_is_closed_and_not_taken(
    pool: UpstreamPool, upstream: Upstream
) -> None:
    (connection,) = await kept(pool, upstream, count=1)
    asked: list[object] = []

    def still_good(transport: asyncio.BaseTransport) -> bool:
        asked.append(transport)
        return False

    assert pool.take(replace(to(upstream), still_good=still_good)) is None
    assert asked == [connection.transport]
    assert not connection.usable


async def test_a_closed_connection_is_never_taken(pool: UpstreamPool, upstream: Upstream) -> None:
    first, second = await kept(pool, upstream, count=2)
    second.data_received(b"H")
    assert pool.take(to(upstream)) is first
    assert pool.take(to(upstream)) is None


async def test_a_connection_the_upstream_closed_is_forgotten(pool: UpstreamPool, upstream: Upstream) -> None:
    await kept(pool, upstream, count=1)
    await (await upstream.accept()).close()
    async with asyncio.timeout(WAIT_S):
        await pool.connections.wait_for_empty()
    assert pool.take(to(upstream)) is None


async def test_connections_end_at_a_random_age_below_the_limit(upstream: Upstream) -> None:
    clock = Clock()
    pool = UpstreamPool(ClientLimits(max_age_s=100, idle_keep_s=1000), clock=clock)
    await kept(pool, upstream, count=1)
    clock.now += 79
    pool.connections.sweep()
    young = len(pool.connections)
    clock.now += 22
    pool.connections.sweep()
    assert young == 1
    assert pool.take(to(upstream)) is None
    await pool.close()


async def test_idle_connections_of_chosen_keys_can_be_closed(pool: UpstreamPool, upstream: Upstream) -> None:
    await kept(pool, upstream, count=1, key="old")
    await kept(pool, upstream, count=1, key="new")
    pool.close_idle(lambda key: key == "old")
    assert pool.take(to(upstream, "old")) is None
    assert pool.take(to(upstream, "new")) is not None


async def test_closing_ends_what_is_kept_what_runs_and_what_is_being_opened(upstream: Upstream) -> None:
    pool = UpstreamPool(ClientLimits())
    running = await connect(pool, to(upstream))
    sink = Sink()
    running.start("GET", b"/", [], length=0, sink=sink)
    errors: list[SidecarError] = []
    pool.connect(to(upstream), lambda _: pytest.fail("closed"), errors.append)
    async with asyncio.timeout(WAIT_S):
        await pool.close()
    assert sink.reasons == [Reason.UPSTREAM_UNREACHABLE]
    assert [error.reason for error in errors] == [Reason.UPSTREAM_UNREACHABLE]
    assert len(pool.connections) == 0


async def test_a_cancelled_wait_is_never_told(pool: UpstreamPool, upstream: Upstream) -> None:
    waiting = pool.connect(to(upstream), lambda _: pytest.fail("cancelled"), lambda _: pytest.fail("cancelled"))
    waiting.cancel()
    assert (await connect(pool, to(upstream))).usable


async def test_a_connection_that_stands_when_its_wait_is_cancelled_is_closed(
    pool: UpstreamPool, upstream: Upstream
) -> None:
    waiting = pool.connect(to(upstream), lambda _: pytest.fail("cancelled"), lambda _: pytest.fail("cancelled"))
    raw = await upstream.accept()
    waiting.cancel()
    assert await raw.read_to_end() == b""


async def test_a_connection_that_is_closed_before_it_is_handed_over_is_unreachable(
    pool: UpstreamPool, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ClientConnection.connection_made

    def greeted(self: ClientConnection, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        self.data_received(b"220 hello")

    monkeypatch.setattr(ClientConnection, "connection_made", greeted)
    assert await reason_of(pool, to(upstream)) == Reason.UPSTREAM_UNREACHABLE
    assert len(pool.connections) == 0


async def test_a_connection_that_stands_before_the_cancellation_is_known_is_closed() -> None:
    calling = Calling()
    connecting = _Connecting(lambda _: pytest.fail("cancelled"), lambda _: pytest.fail("cancelled"))
    made = asyncio.get_running_loop().create_task(_already(calling.connection))
    await made
    connecting.cancel()
    connecting.finished(made)
    assert calling.transport.closed


async def _already(connection: ClientConnection) -> ClientConnection:
    return connection


async def test_a_port_nobody_listens_on_is_unreachable(pool: UpstreamPool) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        origin = Origin("127.0.0.1", unused.getsockname()[1], key="b")
        assert await reason_of(pool, origin) == Reason.UPSTREAM_UNREACHABLE


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64, "a..b"])
async def test_a_host_that_has_no_address_is_unreachable(pool: UpstreamPool, host: str) -> None:
    assert await reason_of(pool, Origin(host, 1, key="b")) == Reason.UPSTREAM_UNREACHABLE


async def test_a_bug_while_connecting_ends_the_wait_and_stays_visible(upstream: Upstream) -> None:
    bugs: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: bugs.append(context.get("exception")))
    assert await reason_of(UpstreamPool("no limits"), to(upstream)) == Reason.INTERNAL  # type: ignore[arg-type]
    assert [type(bug) for bug in bugs] == [AttributeError]


# --- TLS


TD = TrustDomain("a.test")


@pytest.fixture(scope="module")
def authority() -> TrustDomainAuthority:
    return TrustDomainAuthority(TD)


def server_side(authority: TrustDomainAuthority, tmp_path: Path) -> ssl.SSLContext:
    svid = authority.issue_x509(SpiffeId("spiffe://a.test/b"))
    pem = tmp_path / "b.pem"
    pem.write_bytes(svid.chain_pem + svid.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def client_side(authority: TrustDomainAuthority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=authority.bundle_der())
    return context


@pytest.mark.integration
async def test_a_trusted_upstream_is_connected_over_tls(
    pool: UpstreamPool, authority: TrustDomainAuthority, tmp_path: Path
) -> None:
    upstream = Upstream()
    await upstream.listen(ssl=server_side(authority, tmp_path))
    origin = Origin("127.0.0.1", upstream.port, key="b", tls=client_side(authority))
    connection = await connect(pool, origin)
    connection.start("GET", b"/", [(b"host", b"b")], length=0, sink=Sink())
    connection.flush()
    assert await (await upstream.accept()).read_until(b"\r\n\r\n") == b"GET / HTTP/1.1\r\nhost: b\r\n\r\n"
    await pool.close()
    await upstream.close()


@pytest.mark.integration
async def test_an_upstream_of_another_authority_fails_by_its_identity(
    pool: UpstreamPool, authority: TrustDomainAuthority, tmp_path: Path
) -> None:
    upstream = Upstream()
    await upstream.listen(ssl=server_side(authority, tmp_path))
    stranger = client_side(TrustDomainAuthority(TD))
    origin = Origin("127.0.0.1", upstream.port, key="b", tls=stranger)
    assert await reason_of(pool, origin) == Reason.UPSTREAM_IDENTITY
    assert len(pool.connections) == 0
    await upstream.close()


@pytest.mark.integration
async def test_an_upstream_that_speaks_no_tls_fails_by_its_identity(
    pool: UpstreamPool, authority: TrustDomainAuthority, upstream: Upstream
) -> None:
    origin = Origin("127.0.0.1", upstream.port, key="b", tls=client_side(authority))
    reason = asyncio.ensure_future(reason_of(pool, origin))
    raw = await upstream.accept()
    await raw.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert await reason == Reason.UPSTREAM_IDENTITY


@pytest.mark.integration
@pytest.mark.parametrize("how", ["closed", "reset", "said goodbye"])
async def test_an_upstream_that_ends_the_handshake_is_unreachable(
    pool: UpstreamPool, authority: TrustDomainAuthority, upstream: Upstream, how: str
) -> None:
    origin = Origin("127.0.0.1", upstream.port, key="b", tls=client_side(authority))
    reason = asyncio.ensure_future(reason_of(pool, origin))
    raw = await upstream.accept()
    if how == "reset":
        raw.reset()
    elif how == "said goodbye":
        await raw.send(b"\x15\x03\x03\0\x02\x01\0")  # the alert close_notify
    await raw.close()
    assert await reason == Reason.UPSTREAM_UNREACHABLE


@pytest.mark.integration
async def test_a_handshake_nobody_answers_times_out(authority: TrustDomainAuthority, upstream: Upstream) -> None:
    pool = UpstreamPool(ClientLimits(connect_timeout_s=0.05))
    origin = Origin("127.0.0.1", upstream.port, key="b", tls=client_side(authority))
    assert await reason_of(pool, origin) == Reason.UPSTREAM_TIMEOUT
    await pool.close()
