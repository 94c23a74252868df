from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from delegation_core.errors import Reason
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.wire.dialer import Origin
from sidecar.wire.limits import ClientLimits
from sidecar.wire.pool import UpstreamPool
from sidecar_dev.pki import TrustDomainAuthority
from tests.wire.bench import Clock
from tests.wire.loopback import Upstream
from tests.wire.test_h1_client import Sink
from tests.wire.test_pool import connect, reason_of

pytestmark = pytest.mark.integration


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


async def test_a_trusted_upstream_is_connected_over_tls(
    pool: UpstreamPool, authority: TrustDomainAuthority, tmp_path: Path
) -> None:
    upstream = Upstream()
    await upstream.listen(ssl=server_side(authority, tmp_path))
    origin = Origin("127.0.0.1", upstream.port, key="b", tls=client_side(authority))
    connection = await connect(pool, origin)
    connection.ask("GET", b"/", b"host: b\r\n", Sink())
    connection.flush()
    assert await (await upstream.accept()).read_until(b"\r\n\r\n") == b"GET / HTTP/1.1\r\nhost: b\r\n\r\n"
    await pool.close()
    await upstream.close()


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


async def test_an_upstream_that_speaks_no_tls_fails_by_its_identity(
    pool: UpstreamPool, authority: TrustDomainAuthority, upstream: Upstream
) -> None:
    origin = Origin("127.0.0.1", upstream.port, key="b", tls=client_side(authority))
    reason = asyncio.ensure_future(reason_of(pool, origin))
    raw = await upstream.accept()
    await raw.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert await reason == Reason.UPSTREAM_IDENTITY


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


async def test_a_handshake_nobody_answers_times_out(authority: TrustDomainAuthority, upstream: Upstream) -> None:
    pool = UpstreamPool(ClientLimits(connect_timeout_s=0.05))
    origin = Origin("127.0.0.1", upstream.port, key="b", tls=client_side(authority))
    assert await reason_of(pool, origin) == Reason.UPSTREAM_TIMEOUT
    await pool.close()
