"""The contexts on real sockets: stock asyncio and uvloop, streams and aiohttp, both sides."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

import aiohttp
import pytest
import uvloop
from aiohttp import web

from delegation_core.errors import Denied, Reason
from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.generation import bare_context, present
from sidecar.identity.handshake import HandshakeRefused, VerifyingSSLObject
from sidecar.identity.peer_address import peer_address
from sidecar.identity.tls import client_context, guard_of, peer_of, server_context
from tests.identity.fixed_source import FixedSource, identity_of
from tests.identity.shapes import authority, leaf

pytestmark = pytest.mark.integration

ROOT_A = authority("root a")
ROOT_B = authority("root b")
SERVER, CLIENT = "spiffe://a.test/server", "spiffe://a.test/client"
Loop = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Loop:
    """Run a coroutine on one of the two event loops."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as loop:
            loop.run(asyncio.wait_for(main, 20))

    return runner


def source(spiffe_id: str, *, issuer: Any = ROOT_A, trusted: Any = ROOT_A) -> FixedSource:
    own = spiffe_id.split("/")[2]
    bundles = {"a.test": [ROOT_A], "b.test": [ROOT_B]} | {own: [trusted]}
    return FixedSource(identity_of([leaf(issuer, spiffe_id)], spiffe_id, bundles))


@contextlib.asynccontextmanager
async def listening(context: ssl.SSLContext) -> AsyncIterator[int]:
    """Run a server with its own acceptor that reports the caller, and passes on the caller's address."""

    class Greeter(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            stream = cast(asyncio.Transport, transport)  # uvloop's class does not inherit from it
            stream.write(peer_of(stream).spiffe_id.encode())
            stream.close()

    loop = asyncio.get_running_loop()

    async def accept(sock: Any) -> None:
        while True:
            connection, (host, port) = await loop.sock_accept(sock)
            token = peer_address.set(f"{host}:{port}")
            try:
                await loop.connect_accepted_socket(Greeter, connection, ssl=context)
            except OSError:
                connection.close()
            finally:
                peer_address.reset(token)

    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        async with asyncio.TaskGroup() as group:
            accepting = group.create_task(accept(sock))
            yield sock.getsockname()[1]
            accepting.cancel()


async def greeting(port: int, context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


def test_both_ends_prove_themselves(run: Loop) -> None:
    async def main() -> None:
        async with listening(server_context(source(SERVER))) as port:
            context = client_context(source(CLIENT), expected=SpiffeId(SERVER))
            assert await greeting(port, context) == CLIENT.encode()

    run(main())


def test_a_client_of_a_federated_domain_is_told_by_its_own_bundle(run: Loop) -> None:
    async def main() -> None:
        async with listening(server_context(source(SERVER))) as port:
            guest = source("spiffe://b.test/guest", issuer=ROOT_B, trusted=ROOT_B)
            context = client_context(guest, expected=SpiffeId(SERVER))
            assert await greeting(port, context) == b"spiffe://b.test/guest"

    run(main())


def test_an_impostor_of_a_federated_domain_is_refused_once_with_its_address(run: Loop) -> None:
    refused: list[tuple[Reason, str, str | None]] = []

    async def main() -> None:
        context = server_context(source(SERVER), on_refused=lambda *heard: refused.append(heard))
        async with listening(context) as port:
            impostor = source(CLIENT, issuer=ROOT_B, trusted=ROOT_B)
            assert impostor.current is not None
            plain = bare_context(ssl.PROTOCOL_TLS_CLIENT)
            plain.sslobject_class = ssl.SSLObject
            plain.verify_mode = ssl.CERT_NONE  # trusts everybody
            present(plain, impostor.current.svid)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=plain)
            local = writer.get_extra_info("sockname")
            with contextlib.suppress(OSError):
                assert await reader.read() == b""
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()
            assert [(reason, address) for reason, _, address in refused] == [
                (Reason.WRONG_BUNDLE, f"{local[0]}:{local[1]}")
            ]

    run(main())


def test_a_client_sees_that_the_server_is_another(run: Loop) -> None:
    async def main() -> None:
        async with listening(server_context(source(SERVER))) as port:
            with pytest.raises(HandshakeRefused) as refused:
                await greeting(port, client_context(source(CLIENT), expected=SpiffeId(CLIENT)))
            assert refused.value.refusal is Reason.UPSTREAM_IDENTITY

    run(main())


def test_a_server_without_an_identity_serves_again_once_it_has_one(run: Loop) -> None:
    refused: list[Reason] = []

    async def main() -> None:
        following = FixedSource(None)
        context = server_context(following, on_refused=lambda reason, *_: refused.append(reason))
        async with listening(context) as port:
            calling = client_context(source(CLIENT), expected=SpiffeId(SERVER))
            with pytest.raises((OSError, ssl.SSLError)):
                await greeting(port, calling)
            following.current = source(SERVER).current
            assert await greeting(port, calling) == CLIENT.encode()
        assert refused == [Reason.NOT_READY]

    run(main())


def test_a_rotation_reaches_the_next_connection_of_both_ends(run: Loop) -> None:
    async def main() -> None:
        serving, calling = source(SERVER), source(CLIENT)
        next_root = authority("next root")
        async with listening(server_context(serving)) as port:
            context = client_context(calling, expected=SpiffeId(SERVER))
            assert await greeting(port, context) == CLIENT.encode()
            serving.current = source(SERVER, issuer=next_root, trusted=next_root).current
            with pytest.raises(HandshakeRefused):
                await greeting(port, context)
            calling.current = source(CLIENT, issuer=next_root, trusted=next_root).current
            assert await greeting(port, context) == CLIENT.encode()

    run(main())


def test_no_connection_is_lost_while_both_ends_rotate(run: Loop) -> None:
    async def main() -> None:
        serving, calling = source(SERVER), source(CLIENT)
        async with listening(server_context(serving)) as port:
            context = client_context(calling, expected=SpiffeId(SERVER))

            async def call() -> None:
                for _ in range(10):
                    assert await greeting(port, context) == CLIENT.encode()

            async def rotate() -> None:
                for _ in range(20):
                    serving.current, calling.current = source(SERVER).current, source(CLIENT).current
                    await asyncio.sleep(0)

            async with asyncio.TaskGroup() as group:
                for _ in range(4):
                    group.create_task(call())
                group.create_task(rotate())

    run(main())


async def served_by_aiohttp(context: ssl.SSLContext, calls: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    async def who(request: web.Request) -> web.Response:
        assert request.transport is not None
        return web.Response(text=guard_of(request.transport).peer.spiffe_id)

    app = web.Application()
    app.router.add_get("/", who)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        await calls(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def test_aiohttp_is_served_and_serves(run: Loop) -> None:
    async def calls(port: int) -> None:
        context = client_context(source(CLIENT), expected=SpiffeId(SERVER))
        async with aiohttp.ClientSession() as session, session.get(f"https://127.0.0.1:{port}/", ssl=context) as answer:
            assert await answer.text() == CLIENT

    run(served_by_aiohttp(server_context(source(SERVER)), calls))


def test_an_aiohttp_client_finds_our_error_in_its_own(run: Loop) -> None:
    async def calls(port: int) -> None:
        context = client_context(source(CLIENT), expected=SpiffeId(CLIENT))
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError) as refused:
                await session.get(f"https://127.0.0.1:{port}/", ssl=context)
        assert isinstance(refused.value.certificate_error, HandshakeRefused)

    run(served_by_aiohttp(server_context(source(SERVER)), calls))


def test_an_aiohttp_server_runs_no_handler_for_a_client_without_a_certificate(run: Loop) -> None:
    refused: list[Reason] = []

    async def calls(port: int) -> None:
        plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        plain.check_hostname = False
        plain.verify_mode = ssl.CERT_NONE
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"https://127.0.0.1:{port}/", ssl=plain)
        assert set(refused) == {Reason.NO_CLIENT_CERT}

    run(served_by_aiohttp(server_context(source(SERVER), on_refused=lambda reason, *_: refused.append(reason)), calls))


def test_a_transport_without_tls_has_no_peer(run: Loop) -> None:
    async def main() -> None:
        transport = asyncio.Transport()
        with pytest.raises(Denied) as denied:
            peer_of(transport)
        assert denied.value.reason is Reason.NO_CLIENT_CERT

    run(main())


def test_an_unfinished_handshake_has_no_peer() -> None:
    unfinished = server_context(source(SERVER)).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    assert isinstance(unfinished, VerifyingSSLObject)
    with pytest.raises(Denied):
        guard_of(asyncio.Transport({"ssl_object": unfinished}))
