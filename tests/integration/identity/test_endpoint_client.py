from __future__ import annotations

import asyncio
import gzip
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sidecar.identity.endpoint import Endpoint, EndpointAnswer, EndpointError, Trouble
from sidecar.identity.endpoint_client import EndpointClient
from sidecar.identity.source import Identity
from sidecar.identity.tls import server_context
from sidecar.wire import resolver
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.conversations import listening
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import TRUST_DOMAIN, WRITER
from tests.identity.test_endpoint import AUTHORITY, STS, ca_file

pytestmark = pytest.mark.integration


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """Keeps its connections open, and answers every request with the same bytes."""

    def __init__(self) -> None:
        self.answer = ANSWER
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0
        self.resets = False
        self.asked = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                self.asked.set()
                writer.write(self.answer)
                await writer.drain()
                if self.resets:
                    connection: socket.socket = writer.get_extra_info("socket")
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()
    async with listening(server.serve, ssl=tls) as server.port:
        yield server


async def get(endpoint: Endpoint, source: OwnIdentity, *, max_bytes: int = 1000) -> EndpointAnswer:
    client = EndpointClient(endpoint, source, timeout_s=2.0, max_bytes=max_bytes)
    try:
        return await client.get()
    finally:
        await client.close()


async def trouble_of(endpoint: Endpoint, source: OwnIdentity, *, max_bytes: int = 1000) -> Trouble:
    with pytest.raises(EndpointError) as caught:
        await get(endpoint, source, max_bytes=max_bytes)
    return caught.value.trouble


@pytest.fixture
def source() -> OwnIdentity:
    return OwnIdentity(AUTHORITY, WRITER)


def host_context(directory: Path, *, name: str = "localhost", tls12: bool = False) -> ssl.SSLContext:
    """Return a server context certified by name, as in the web PKI."""
    issued = AUTHORITY.issue_x509(STS, dns_names=[name])
    file = directory / "server.pem"
    file.write_bytes(issued.chain_pem + issued.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


async def test_an_answer_comes_whole(source: OwnIdentity) -> None:
    async with serving() as server:
        server.answer = ANSWER.replace(b"\r\n\r\n", b"\r\nCache-Control: max-age=60\r\n\r\n")
        answer = await get(Endpoint(url=f"http://127.0.0.1:{server.port}/a?b=%2F"), source)
        assert answer == EndpointAnswer(200, "application/json", "max-age=60", b"{}")
        (request,) = server.requests
        assert request.startswith(b"GET /a?b=%2F HTTP/1.1\r\n")
        assert b"\r\naccept-encoding: identity\r\n" in request
        assert b"\r\nconnection: close\r\n" in request
        assert b"content-length" not in request


@pytest.mark.parametrize(("max_bytes", "trouble"), [(2, None), (1, Trouble.TOO_LARGE)])
async def test_the_size_of_an_answer_is_bounded(max_bytes: int, trouble: Trouble | None, source: OwnIdentity) -> None:
    async with serving() as server:
        endpoint = Endpoint(url=f"http://127.0.0.1:{server.port}/")
        if trouble is None:
            assert (await get(endpoint, source, max_bytes=max_bytes)).body == b"{}"
        else:
            assert await trouble_of(endpoint, source, max_bytes=max_bytes) is trouble


@pytest.mark.parametrize("coding", [b"gzip", b"identity", b"br, gzip"])
async def test_an_encoded_answer_is_refused(coding: bytes, source: OwnIdentity) -> None:
    async with serving() as server:
        endpoint = Endpoint(url=f"http://127.0.0.1:{server.port}/")
        assert (await get(endpoint, source)).body == b"{}"
        server.answer = ANSWER.replace(b"\r\n\r\n", b"\r\nContent-Encoding: %b\r\n\r\n" % coding)
        assert await trouble_of(endpoint, source) is Trouble.ENCODED


async def test_redirects_are_not_followed_and_cookies_not_kept(source: OwnIdentity) -> None:
    async with serving() as server:
        server.answer = (
            b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n"
        )
        client = EndpointClient(Endpoint(url=f"http://localhost:{server.port}/"), source, timeout_s=2.0, max_bytes=1000)
        assert (await client.get()).status == 302
        assert (await client.get()).status == 302
        await client.close()
        assert len(server.requests) == 2
        assert all(b"GET / " in request and b"ookie" not in request for request in server.requests)


async def test_a_spiffe_peer_is_pinned(source: OwnIdentity) -> None:
    async with serving(server_context(OwnIdentity(AUTHORITY, STS))) as server:
        url = f"https://127.0.0.1:{server.port}/"
        assert (await get(Endpoint(url=url, peer=STS), source)).status == 200
        assert await trouble_of(Endpoint(url=url, peer=WRITER), source) is Trouble.IDENTITY
        assert len(server.requests) == 1


async def test_without_an_identity_a_spiffe_peer_is_not_called(source: OwnIdentity) -> None:
    async with serving(server_context(OwnIdentity(AUTHORITY, STS))) as server:
        endpoint = Endpoint(url=f"https://127.0.0.1:{server.port}/", peer=STS)
    source.become(None)
    assert await trouble_of(endpoint, source) is Trouble.NOT_READY  # the server is gone: no attempt was made


class Fleeting(OwnIdentity):
    """Has an identity at the first call, and none after that."""

    @property
    def current(self) -> Identity | None:
        current = super().current
        self._current = None
        return current


async def test_an_identity_lost_before_the_handshake_is_no_fault_of_the_other_end() -> None:
    async with serving(server_context(OwnIdentity(AUTHORITY, STS))) as server:
        endpoint = Endpoint(url=f"https://127.0.0.1:{server.port}/", peer=STS)
        assert await trouble_of(endpoint, Fleeting(AUTHORITY, WRITER)) is Trouble.NOT_READY


async def test_a_renewed_identity_is_used_by_the_next_call(source: OwnIdentity) -> None:
    async with serving(server_context(OwnIdentity(AUTHORITY, STS))) as server:
        client = EndpointClient(
            Endpoint(url=f"https://127.0.0.1:{server.port}/", peer=STS), source, timeout_s=2.0, max_bytes=1000
        )
        await client.get()
        source.become(None)
        with pytest.raises(EndpointError):
            await client.get()
        source.become(WRITER)
        await client.get()
        await client.close()
        assert len(server.requests) == 2


@pytest.mark.parametrize("tls12", [False, True], ids=["TLS 1.3", "TLS 1.2"])
async def test_a_host_is_proven_by_a_ca_file(tls12: bool, source: OwnIdentity, tmp_path: Path) -> None:
    async with serving(host_context(tmp_path, tls12=tls12)) as server:
        endpoint = Endpoint(url=f"https://localhost:{server.port}/", ca_file=ca_file(tmp_path))
        assert (await get(endpoint, source)).status == 200


async def test_a_name_that_ends_in_a_dot_is_looked_up_with_it_and_proven_without(
    source: OwnIdentity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dot keeps the search domains of a cluster out of the lookup. SNI has none (RFC 6066 section 3)."""
    monkeypatch.setattr(resolver, "look_up", {"localhost.": ["127.0.0.1"]}.__getitem__)
    context = host_context(tmp_path)
    named: list[str | None] = []
    context.sni_callback = lambda _tls, name, _context: named.append(name)
    async with serving(context) as server:
        endpoint = Endpoint(url=f"https://localhost.:{server.port}/", ca_file=ca_file(tmp_path))
        assert (await get(endpoint, source)).status == 200
        assert f"\r\nhost: localhost:{server.port}\r\n".encode() in server.requests[0]
    assert named == ["localhost"]
    async with serving(host_context(tmp_path, name="sts.example")) as server:
        endpoint = Endpoint(url=f"https://localhost.:{server.port}/", ca_file=ca_file(tmp_path))
        assert await trouble_of(endpoint, source) is Trouble.IDENTITY


async def test_a_host_of_another_name_is_refused(source: OwnIdentity, tmp_path: Path) -> None:
    async with serving(host_context(tmp_path, name="sts.example")) as server:
        endpoint = Endpoint(url=f"https://localhost:{server.port}/", ca_file=ca_file(tmp_path))
        with pytest.raises(EndpointError, match=r"expected identity: Hostname mismatch.*localhost") as refused:
            await get(endpoint, source)
        assert refused.value.trouble is Trouble.IDENTITY
        assert server.requests == []


async def test_a_host_certified_by_somebody_else_is_refused(source: OwnIdentity, tmp_path: Path) -> None:
    async with serving(host_context(tmp_path)) as server:
        stranger = TrustDomainAuthority(TRUST_DOMAIN)
        endpoint = Endpoint(url=f"https://localhost:{server.port}/", ca_file=ca_file(tmp_path, stranger))
        with pytest.raises(EndpointError, match=r"expected identity: (self|unable to get|certificate)") as refused:
            await get(endpoint, source)
        assert refused.value.trouble is Trouble.IDENTITY


async def test_a_ca_file_is_read_again_when_it_changes(source: OwnIdentity, tmp_path: Path) -> None:
    async with serving(host_context(tmp_path)) as server:
        path = str(tmp_path / "ca.pem")
        client = EndpointClient(
            Endpoint(url=f"https://localhost:{server.port}/", ca_file=path), source, timeout_s=2.0, max_bytes=1000
        )
        with pytest.raises(EndpointError) as missing:
            await client.get()
        assert missing.value.trouble is Trouble.IDENTITY
        assert str(missing.value).endswith("the CA file cannot be used (No such file or directory)")
        ca_file(tmp_path, TrustDomainAuthority(TRUST_DOMAIN))
        with pytest.raises(EndpointError):
            await client.get()
        ca_file(tmp_path)
        os.utime(path, ns=(1, 1))  # whatever the resolution of the file system's clock
        assert (await client.get()).status == 200
        (tmp_path / "ca.pem").write_text("no certificate")
        with pytest.raises(EndpointError):
            await client.get()
        await client.close()


async def test_a_closed_client_may_be_used_again(source: OwnIdentity) -> None:
    async with serving() as server:
        client = EndpointClient(Endpoint(url=f"http://127.0.0.1:{server.port}/"), source, timeout_s=2.0, max_bytes=1000)
        await client.get()
        await client.close()
        assert (await client.get()).status == 200
        await client.close()


async def test_each_call_has_a_connection_of_its_own(source: OwnIdentity) -> None:
    async with serving() as server:
        client = EndpointClient(Endpoint(url=f"http://127.0.0.1:{server.port}/"), source, timeout_s=2.0, max_bytes=1000)
        await client.get()
        await client.get()
        await client.close()
        assert server.connections == 2


async def test_an_answer_is_never_unpacked(source: OwnIdentity) -> None:
    packed = gzip.compress(b"{}")
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    async with serving() as server:
        server.answer = head + packed
        assert await trouble_of(Endpoint(url=f"http://127.0.0.1:{server.port}/"), source) is Trouble.ENCODED


@pytest.mark.parametrize(
    ("said", "trouble", "may_retry"),
    [
        pytest.param(b"", Trouble.UNREACHABLE, True, id="before the answer"),
        pytest.param(ANSWER[:-1], Trouble.BROKEN, False, id="within it"),
    ],
)
async def test_a_reset_may_be_retried_only_before_the_answer(
    said: bytes, trouble: Trouble, may_retry: bool, source: OwnIdentity
) -> None:
    async with serving() as server:
        server.answer, server.resets = said, True
        with pytest.raises(EndpointError) as caught:
            await get(Endpoint(url=f"http://127.0.0.1:{server.port}/"), source)
        assert (caught.value.trouble, caught.value.may_retry) == (trouble, may_retry)


async def test_what_is_no_http_is_no_answer_and_is_not_quoted(source: OwnIdentity) -> None:
    async with serving() as server:
        server.answer = b"secret\r\n\r\n"
        with pytest.raises(EndpointError) as caught:
            await get(Endpoint(url=f"http://127.0.0.1:{server.port}/"), source)
        assert (caught.value.trouble, caught.value.may_retry) == (Trouble.BROKEN, False)
        assert "secret" not in str(caught.value)


async def test_a_call_without_a_connection_may_be_retried(source: OwnIdentity) -> None:
    async with serving() as server:
        endpoint = Endpoint(url=f"http://127.0.0.1:{server.port}/")
    with pytest.raises(EndpointError) as caught:
        await get(endpoint, source)
    assert (caught.value.trouble, caught.value.may_retry) == (Trouble.UNREACHABLE, True)


async def test_a_server_that_speaks_no_tls_has_not_proven_itself(source: OwnIdentity) -> None:
    async with listening(_say_junk) as port:
        assert await trouble_of(Endpoint(url=f"https://127.0.0.1:{port}/", peer=STS), source) is Trouble.IDENTITY


async def _say_junk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"secret" * 20)
    await writer.drain()


async def test_a_host_certified_by_a_file_is_shown_no_identity(source: OwnIdentity, tmp_path: Path) -> None:
    source.become(None)
    async with serving(host_context(tmp_path)) as server:
        endpoint = Endpoint(url=f"https://localhost:{server.port}/", ca_file=ca_file(tmp_path))
        assert (await get(endpoint, source)).status == 200


async def test_proxies_of_the_environment_are_not_used(source: OwnIdentity, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    monkeypatch.delenv("no_proxy", raising=False)
    async with serving() as server:
        assert (await get(Endpoint(url=f"http://127.0.0.1:{server.port}/"), source)).status == 200


async def test_a_repeated_field_counts_as_none(source: OwnIdentity) -> None:
    async with serving() as server:
        server.answer = ANSWER.replace(b"\r\n\r\n", b"\r\nContent-Type: text/html\r\n\r\n")
        assert (await get(Endpoint(url=f"http://127.0.0.1:{server.port}/"), source)).content_type is None


async def test_a_document_is_sent_whole(source: OwnIdentity) -> None:
    async with serving() as server:
        endpoint = Endpoint(url=f"http://127.0.0.1:{server.port}/")
        client = EndpointClient(endpoint, source, timeout_s=2.0, max_bytes=1000)
        assert (await client.post(b"", "text/plain", {"X-Name": "value"})).status == 200
        (request,) = server.requests
        assert request.startswith(b"POST / HTTP/1.1\r\n")
        for line in (b"content-type: text/plain", b"x-name: value", b"content-length: 0"):
            assert b"\r\n%b\r\n" % line in request


async def test_a_closed_client_ends_its_calls(source: OwnIdentity) -> None:
    async with serving() as server:
        server.answer = b""
        client = EndpointClient(Endpoint(url=f"http://127.0.0.1:{server.port}/"), source, timeout_s=9.0, max_bytes=1000)
        asking = asyncio.ensure_future(client.get())
        await server.asked.wait()
        await client.close()
        with pytest.raises(EndpointError):
            await asyncio.wait_for(asking, 5)


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\n", ANSWER[:-1]], ids=["nothing", "half a head", "half a body"]
)
async def test_a_call_has_a_total_deadline(said: bytes, source: OwnIdentity) -> None:
    async with serving() as server, asyncio.timeout(1):
        server.answer = said
        client = EndpointClient(
            Endpoint(url=f"http://127.0.0.1:{server.port}/"), source, timeout_s=0.05, max_bytes=1000
        )
        with pytest.raises(EndpointError) as caught:
            await client.get()
        await client.close()
        assert (caught.value.trouble, caught.value.may_retry) == (Trouble.TIMEOUT, False)


async def test_an_answer_that_drips_has_the_same_deadline(source: OwnIdentity) -> None:
    """No silence of it is long."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await asyncio.sleep(0.02)

    async with listening(drip) as port, asyncio.timeout(5):
        client = EndpointClient(Endpoint(url=f"http://127.0.0.1:{port}/"), source, timeout_s=0.2, max_bytes=1000)
        with pytest.raises(EndpointError) as caught:
            await client.get()
        await client.close()
        assert caught.value.trouble is Trouble.TIMEOUT
