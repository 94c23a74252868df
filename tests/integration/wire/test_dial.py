"""New connections over real sockets. 127.0.0.x are as many hosts as needed; nothing answers in 198.51.100.0/24."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.wire.dialer import Dialer, Origin
from sidecar.wire.resolver import Resolver, ResolverSettings
from sidecar_dev.pki import TrustDomainAuthority
from tests.wire.bench import Clock
from tests.wire.loopback import WAIT_S, Raw, Upstream

pytestmark = pytest.mark.integration

NAME = "crm.mesh"
ONE, TWO, THREE = "127.0.0.2", "127.0.0.3", "127.0.0.4"


class End(asyncio.Protocol):
    """Our end of a connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    @property
    def address(self) -> object:
        return self.transport.get_extra_info("peername")[0]


class Bench:
    """Hosts that listen on one port, and a name with addresses that the test chooses."""

    def __init__(self, port: int, hosts: dict[str, Upstream], **options: Any) -> None:
        self.hosts = hosts
        self.port = port
        self.clock = Clock()
        self.names: dict[str, Sequence[str]] = {}
        settings = ResolverSettings(cache_s=options.pop("cache_s", 0.001))
        resolver = Resolver(settings, lookup=lambda host: self.names[host], clock=self.clock)
        self.dialer = Dialer(resolver, **{"timeout_s": WAIT_S, "clock": self.clock, **options})
        self.made: list[End] = []

    async def dial(self, *addresses: str, tls: ssl.SSLContext | None = None) -> End:
        self.names[NAME] = addresses
        self.clock.now += 1
        async with asyncio.timeout(2 * WAIT_S):
            end = await self.dialer.dial(Origin(NAME, self.port, key="k", tls=tls), End)
        self.made.append(end)
        return end

    async def reason(self, *addresses: str, tls: ssl.SSLContext | None = None) -> Reason:
        with pytest.raises(SidecarError) as refused:
            await self.dial(*addresses, tls=tls)
        return refused.value.reason


@asynccontextmanager
async def running(*hosts: str, tls: dict[str, ssl.SSLContext] | None = None, **options: Any) -> AsyncIterator[Bench]:
    upstreams: dict[str, Upstream] = {}
    port = 0
    for host in hosts:
        upstreams[host] = Upstream()
        await upstreams[host].listen(host=host, port=port, ssl=(tls or {}).get(host))
        port = upstreams[host].port
    bench = Bench(port, upstreams, **options)
    try:
        yield bench
    finally:  # a loop with a server left open never closes
        for end in bench.made:
            end.transport.abort()  # type: ignore[attr-defined]
        for upstream in upstreams.values():
            await upstream.close()


async def test_the_first_address_is_connected_and_no_other_is_troubled() -> None:
    async with running(ONE, TWO) as bench:
        assert (await bench.dial(ONE, TWO)).address == ONE
        await bench.hosts[ONE].accept()
        assert bench.hosts[TWO].count == 0


async def test_a_name_with_one_address_is_connected() -> None:
    async with running(ONE) as bench:
        assert (await bench.dial(ONE)).address == ONE


async def test_after_a_failure_the_name_is_looked_up_again_before_its_addresses_are_old() -> None:
    async with running(ONE, cache_s=30) as bench:
        assert await bench.reason(TWO) is Reason.UPSTREAM_UNREACHABLE
        assert (await bench.dial(ONE)).address == ONE


async def test_after_a_call_that_went_well_it_is_not() -> None:
    async with running(ONE, cache_s=30) as bench:
        assert (await bench.dial(ONE)).address == ONE
        assert (await bench.dial(TWO)).address == ONE


async def test_a_first_address_that_refuses_does_not_fail_the_call() -> None:
    async with running(TWO, delay_s=3600) as bench:
        assert (await bench.dial(ONE, TWO)).address == TWO


async def test_a_first_address_that_is_silent_does_not_fail_the_call() -> None:
    async with running(TWO) as bench, silent(bench.port):
        assert (await bench.dial(ONE, TWO)).address == TWO


async def test_an_address_that_was_beaten_is_tried_last_for_half_a_minute() -> None:
    async with running(ONE, TWO, delay_s=3600) as bench:
        await bench.dial(THREE, TWO)
        assert (await bench.dial(THREE, ONE)).address == ONE
        assert bench.dialer._in_order([THREE, ONE], bench.port) == [ONE, THREE]
        assert bench.dialer._in_order([THREE, ONE], bench.port + 1) == [THREE, ONE]
        bench.clock.now += 30
        assert bench.dialer._in_order([THREE, ONE], bench.port) == [THREE, ONE]


async def test_of_many_addresses_the_first_eight_are_tried() -> None:
    async with running(ONE) as bench:
        many = [f"127.0.0.{number}" for number in range(10, 30)]
        assert bench.dialer._in_order(many, 1) == many[:8]


async def test_when_no_address_answers_the_upstream_is_unreachable() -> None:
    async with running(ONE) as bench:
        assert await bench.reason(TWO, THREE) is Reason.UPSTREAM_UNREACHABLE


async def test_one_deadline_holds_for_all_addresses_together() -> None:
    async with running(THREE, timeout_s=0.1, delay_s=0.01) as bench, silent(bench.port):
        assert await bench.reason(ONE, ONE, ONE) is Reason.UPSTREAM_TIMEOUT


async def test_a_name_that_cannot_be_looked_up_is_unreachable() -> None:
    async with running(ONE) as bench:
        assert await bench.reason() is Reason.UPSTREAM_UNREACHABLE


# --- TLS

TD = TrustDomain("a.test")


@pytest.fixture(scope="module")
def authority() -> TrustDomainAuthority:
    return TrustDomainAuthority(TD)


def server_side(authority: TrustDomainAuthority, folder: Path) -> ssl.SSLContext:
    svid = authority.issue_x509(SpiffeId("spiffe://a.test/b"))
    pem = folder / "b.pem"
    pem.write_bytes(svid.chain_pem + svid.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def client_side(authority: TrustDomainAuthority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=authority.bundle_der())
    return context


async def test_the_address_that_wins_is_spoken_to_over_tls(authority: TrustDomainAuthority, tmp_path: Path) -> None:
    async with running(TWO, tls={TWO: server_side(authority, tmp_path)}) as bench:
        end = await bench.dial(ONE, TWO, tls=client_side(authority))
        assert end.address == TWO
        assert end.transport.get_extra_info("ssl_object") is not None


async def test_an_address_where_somebody_else_answers_is_told_and_not_passed_by(
    authority: TrustDomainAuthority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    impostor = server_side(TrustDomainAuthority(TD), tmp_path / "other")
    tls = {ONE: impostor, TWO: server_side(authority, tmp_path)}
    async with running(ONE, TWO, tls=tls) as bench:
        for _ in range(2):  # nor is it remembered as a loser
            assert await bench.reason(ONE, TWO, tls=client_side(authority)) is Reason.UPSTREAM_IDENTITY
        assert bench.hosts[TWO].count == 0
        assert (await bench.dial(TWO, ONE, tls=client_side(authority))).address == TWO


async def test_an_address_that_hangs_up_on_tls_does_not_fail_the_call(
    authority: TrustDomainAuthority, tmp_path: Path
) -> None:
    async with running(ONE, TWO, tls={TWO: server_side(authority, tmp_path)}) as bench:
        dialling = asyncio.ensure_future(bench.dial(ONE, TWO, tls=client_side(authority)))
        await (await bench.hosts[ONE].accept()).close()
        assert (await dialling).address == TWO


async def test_an_address_that_never_ends_its_handshake_leaves_half_of_the_time_to_the_others(
    authority: TrustDomainAuthority, tmp_path: Path
) -> None:
    tls = {TWO: server_side(authority, tmp_path)}
    async with running(ONE, TWO, tls=tls, timeout_s=4.0) as bench:
        assert (await bench.dial(ONE, TWO, tls=client_side(authority))).address == TWO
        frozen: Raw = await bench.hosts[ONE].accept()
        assert (await frozen.read_to_end())[:1] == b"\x16"  # our hello; and then we hung up


class Lacking(ssl.SSLObject):
    """Ends a handshake for lack of a resource of ours, or for ``cause``."""

    cause: Exception = Unavailable(Reason.OVERLOADED, "no descriptor")

    def do_handshake(self) -> None:
        raise ssl.SSLCertVerificationError from self.cause


async def test_what_we_lack_ourselves_is_not_taken_for_another_identity(authority: TrustDomainAuthority) -> None:
    tls = client_side(authority)
    tls.sslobject_class = Lacking
    async with running(ONE) as bench:
        assert await bench.reason(ONE, tls=tls) is Reason.OVERLOADED
        tls.sslobject_class = type("Denying", (Lacking,), {"cause": Denied(Reason.OVERLOADED)})
        assert await bench.reason(ONE, tls=tls) is Reason.UPSTREAM_IDENTITY


async def test_when_every_address_hangs_up_on_tls_the_upstream_is_unreachable(authority: TrustDomainAuthority) -> None:
    async with running(ONE, TWO) as bench:
        dialling = asyncio.ensure_future(bench.reason(ONE, TWO, tls=client_side(authority)))
        await (await bench.hosts[ONE].accept()).close()
        await (await bench.hosts[TWO].accept()).close()
        assert await dialling is Reason.UPSTREAM_UNREACHABLE


@asynccontextmanager
async def silent(port: int) -> AsyncIterator[None]:
    """Let ``ONE`` answer no connection attempt: its accept queue is full."""
    with socket.socket() as full:
        full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        full.bind((ONE, port))
        full.listen(0)
        queued = [socket.socket() for _ in range(3)]
        for one in queued:
            one.setblocking(False)
            one.connect_ex((ONE, port))
        try:
            yield
        finally:
            for one in queued:
                one.close()
