"""The channel over real connections: which are kept, which are never reused, and the reason of each failure."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import Reason, SidecarError
from delegation_core.spiffe_id import SpiffeId
from sidecar.exchange.channel import MAX_KEPT, StsChannel
from sidecar.exchange.failover import Unsent
from sidecar.identity.endpoint import Endpoint
from sidecar.identity.source import Identity
from sidecar.identity.tls import server_context
from sidecar_dev.pki import TrustDomainAuthority
from tests.exchange.world import STS, authority
from tests.fakes.conversations import listening
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import PLANNER, TRUST_DOMAIN, WRITER

pytestmark = pytest.mark.integration

Respond = Callable[["Server", bytes, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes, *fields: bytes) -> bytes:
    lines = b"".join(field + b"\r\n" for field in (*fields, b"Content-Length: %d" % len(body)))
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + lines + b"\r\n" + body


async def echo(_server: Server, form: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(form))


class Server:
    """Answers each form with a copy of it, on any number of connections; ``respond`` can replace that."""

    def __init__(self) -> None:
        self.port = 0
        self.respond: Respond = echo
        self.heads: list[bytes] = []
        self.forms: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.ended = 0
        self.changed = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                form = await reader.readexactly(length)
                self.heads.append(head)
                self.forms.append(form)
                await self._tell()
                await self.respond(self, form, writer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.ended += 1
            writer.close()
            await self._tell()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(condition)

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    @property
    def connections(self) -> int:
        return len(self.writers)


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()
    async with listening(server.serve, ssl=tls) as server.port:
        yield server


class Clock:
    """The wall clock, moved by ``ahead_s``."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@asynccontextmanager
async def calling(server: Server, source: OwnIdentity | None = None, **settings: Any) -> AsyncIterator[StsChannel]:
    """Open a channel to the server: mutual TLS with ``peer`` or ``ca_file``."""
    who = {name: settings.pop(name) for name in ("peer", "ca_file") if name in settings}
    host = "localhost" if "ca_file" in who else "127.0.0.1"
    endpoint = Endpoint(url=f"{'https' if who else 'http'}://{host}:{server.port}/token", **who)
    lawful: dict[str, Any] = {"timeout_s": 5.0, "max_bytes": 1000}
    channel = StsChannel(endpoint, source or own(), **{**lawful, **settings})
    try:
        async with asyncio.timeout(10):
            yield channel
    finally:
        await channel.close()


def own() -> OwnIdentity:
    return OwnIdentity(authority(), WRITER)


def sts_tls(spiffe_id: SpiffeId = STS) -> ssl.SSLContext:
    return server_context(OwnIdentity(authority(), spiffe_id))


async def reason_of(channel: StsChannel, form: bytes = b"a=b") -> Reason:
    with pytest.raises(SidecarError) as caught:
        await channel.post_form(form)
    return caught.value.reason


async def test_calls_one_after_another_share_one_connection() -> None:
    async with serving(sts_tls()) as server, calling(server, peer=STS) as channel:
        for form in (b"a=1", b"a=2", b"a=3"):
            assert (await channel.post_form(form)).body == form
        assert server.connections == 1
        assert all(head.startswith(b"POST /token HTTP/1.1\r\nhost: 127.0.0.1:") for head in server.heads)
        assert all(b"\r\naccept-encoding: identity\r\n" in head for head in server.heads)


async def test_calls_at_once_get_each_their_own_answer_and_few_connections_stay() -> None:
    async with serving(sts_tls()) as server, calling(server, peer=STS) as channel:
        forms = [b"a=%d" % number for number in range(40)]
        answers = await asyncio.gather(*map(channel.post_form, forms))
        assert [one.body for one in answers] == forms
        await server.until(lambda: server.connections - server.ended <= MAX_KEPT)
        opened = server.connections
        await asyncio.gather(*map(channel.post_form, forms[:MAX_KEPT]))
        assert server.connections <= opened + MAX_KEPT


async def test_a_failure_says_if_nothing_was_sent() -> None:
    async def close(_server: Server, _form: bytes, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with serving() as server, calling(server) as channel:
        server.respond = close
        with pytest.raises(SidecarError) as sent:
            await channel.post_form(b"a=1", once=True)
        assert (sent.value.reason, isinstance(sent.value, Unsent)) == (Reason.STS_UNAVAILABLE, False)
    async with calling(server) as channel:
        with pytest.raises(Unsent) as unsent:
            await channel.post_form(b"a=1", once=True)
        assert unsent.value.reason is Reason.STS_UNAVAILABLE


async def test_a_handshake_that_hangs_has_a_time_of_its_own() -> None:
    async def accept(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with listening(accept) as port:
        server = Server()
        server.port = port
        async with calling(server, peer=STS, connect_timeout_s=0.1) as channel, asyncio.timeout(2):
            with pytest.raises(Unsent) as caught:
                await channel.post_form(b"a=1", once=True)
        assert caught.value.reason is Reason.STS_TIMEOUT


async def twice(_server: Server, form: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(form) + answer(b"for the next one"))


async def says_close(_server: Server, form: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(form, b"Connection: close"))


async def old_http(_server: Server, form: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(form).replace(b"HTTP/1.1", b"HTTP/1.0"))


@pytest.mark.parametrize("respond", [twice, says_close, old_http])
async def test_after_anything_odd_a_connection_is_never_used_again(respond: Respond) -> None:
    async with serving() as server, calling(server) as channel:
        server.respond = respond
        for form in (b"a=1", b"a=2"):
            assert (await channel.post_form(form)).body == form
        assert server.connections == 2


async def test_bytes_that_come_while_nobody_asks_end_the_connection() -> None:
    async with serving() as server, calling(server) as channel:
        await channel.post_form(b"a=1")
        server.writers[0].write(answer(b"unasked"))
        await server.until(lambda: server.ended == 1)
        assert (await channel.post_form(b"a=2")).body == b"a=2"
        assert server.connections == 2


async def test_an_answer_after_its_caller_went_is_nobodys() -> None:
    held = asyncio.Event()

    async def late(_server: Server, form: bytes, writer: asyncio.StreamWriter) -> None:
        await held.wait()
        writer.write(answer(form))

    async with serving() as server, calling(server) as channel:
        server.respond = late
        caller = asyncio.ensure_future(channel.post_form(b"a=1"))
        await server.until(lambda: server.forms == [b"a=1"])
        caller.cancel()
        with suppress(asyncio.CancelledError):
            await caller
        held.set()
        assert (await channel.post_form(b"a=2")).body == b"a=2"
        assert server.connections == 2


async def test_when_a_kept_connection_stays_silent_the_others_are_not_trusted_either() -> None:
    async def dead(_server: Server, _form: bytes, _writer: asyncio.StreamWriter) -> None:
        pass

    async with serving() as server, calling(server) as channel:
        await asyncio.gather(*(channel.post_form(b"a=%d" % number) for number in range(4)))
        server.respond = dead
        asked = len(server.forms)
        caller = asyncio.ensure_future(channel.post_form(b"a=5"))
        await server.until(lambda: len(server.forms) > asked)
        caller.cancel()
        with suppress(asyncio.CancelledError):
            await caller
        await server.until(lambda: server.ended == server.connections)


@pytest.mark.parametrize("resets", [False, True], ids=["closed", "reset"])
async def test_a_kept_connection_found_closed_is_replaced_once(resets: bool) -> None:
    async def gone(server: Server, form: bytes, writer: asyncio.StreamWriter) -> None:
        if len(server.forms) == 2:  # like a server that closes just when the next request is on its way
            if resets:
                connection: socket.socket = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise ConnectionError
        writer.write(answer(form))

    async with serving() as server, calling(server) as channel:
        server.respond = gone
        await channel.post_form(b"a=1")
        assert (await channel.post_form(b"a=2")).body == b"a=2"
        assert server.forms == [b"a=1", b"a=2", b"a=2"]
        assert server.connections == 2


async def test_a_form_is_sent_again_on_a_new_connection_only_and_once() -> None:
    async def gone(server: Server, form: bytes, writer: asyncio.StreamWriter) -> None:
        if len(server.forms) > 4:
            raise ConnectionError
        if len(server.forms) == 4:
            together.set()
        await together.wait()
        writer.write(answer(form))

    together = asyncio.Event()
    async with serving() as server, calling(server) as channel:
        server.respond = gone
        await asyncio.gather(*(channel.post_form(b"a=%d" % number) for number in range(4)))
        assert server.connections == 4
        assert await reason_of(channel) is Reason.STS_UNAVAILABLE
        assert server.forms[4:] == [b"a=b", b"a=b"]
        assert server.connections == 5


@pytest.mark.parametrize(
    "said",
    [b"HTTP/1.1 200 OK\r\n", answer(b"{}")[:-1]],
    ids=["half a head", "half a body"],
)
async def test_after_one_byte_of_an_answer_nothing_is_sent_again(said: bytes) -> None:
    async def cut(server: Server, form: bytes, writer: asyncio.StreamWriter) -> None:
        if len(server.forms) > 1:
            writer.write(said)
            raise ConnectionError
        writer.write(answer(form))

    async with serving() as server, calling(server) as channel:
        server.respond = cut
        await channel.post_form(b"a=1")
        assert await reason_of(channel) is Reason.STS_BAD_RESPONSE
        assert len(server.forms) == 2


async def test_a_new_connection_that_ends_before_an_answer_may_be_retried() -> None:
    async def gone(_server: Server, _form: bytes, _writer: asyncio.StreamWriter) -> None:
        raise ConnectionError

    async with serving() as server, calling(server) as channel:
        server.respond = gone
        assert await reason_of(channel) is Reason.STS_UNAVAILABLE
        assert len(server.forms) == 1


async def test_nobody_listening_may_be_retried() -> None:
    async with serving() as server:
        pass
    async with calling(server) as channel:
        assert await reason_of(channel) is Reason.STS_UNAVAILABLE


async def test_redirects_are_not_followed_and_cookies_not_kept() -> None:
    async def elsewhere(_server: Server, _form: bytes, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 307 There\r\nLocation: /elsewhere\r\nSet-Cookie: a=b\r\n"
        writer.write(head + b"Content-Length: 2\r\n\r\n{}")

    async with serving() as server, calling(server) as channel:
        server.respond = elsewhere
        for _ in range(2):
            found = await channel.post_form(b"a=b")
            assert (found.status, found.body) == (307, b"{}")
        assert len(server.heads) == 2
        assert all(head.startswith(b"POST /token ") and b"ookie" not in head for head in server.heads)


async def test_nothing_is_unpacked_and_a_packed_answer_is_refused() -> None:
    packed = gzip.compress(b"{}")

    async def pack(_server: Server, _form: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)

    async with serving() as server, calling(server) as channel:
        server.respond = pack
        assert await reason_of(channel) is Reason.STS_BAD_RESPONSE


async def test_the_size_of_an_answer_is_bounded() -> None:
    async with serving() as server, calling(server, max_bytes=3) as channel:
        assert (await channel.post_form(b"a=b")).body == b"a=b"
        assert await reason_of(channel, b"a=bc") is Reason.STS_TOO_LARGE
        assert (await channel.post_form(b"a=b")).body == b"a=b"
        assert server.connections == 2


async def test_only_the_pinned_workload_is_shown_the_form() -> None:
    async with serving(sts_tls()) as server:
        async with calling(server, peer=STS) as channel:
            await channel.post_form(b"a=b")
        async with calling(server, peer=PLANNER) as channel:
            assert await reason_of(channel) is Reason.STS_IDENTITY
        assert server.forms == [b"a=b"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda source: source.become(WRITER), id="our SVID was renewed"),
        pytest.param(lambda source: source.become(PLANNER), id="we are somebody else"),
        pytest.param(lambda source: source.renew_bundles(), id="there are new bundles"),
    ],
)
async def test_with_a_new_generation_old_connections_close_and_calls_go_out_on_new_ones(
    change: Callable[[OwnIdentity], None],
) -> None:
    source = own()
    async with serving(sts_tls()) as server, calling(server, source, peer=STS) as channel:
        await channel.post_form(b"a=1")
        change(source)
        await server.until(lambda: server.ended == 1)
        await channel.post_form(b"a=2")
        assert server.connections == 2


async def test_new_bundles_that_do_not_vouch_for_the_service_any_more_end_it_before_its_next_call() -> None:
    source = own()
    async with serving(sts_tls()) as server, calling(server, source, peer=STS) as channel:
        await channel.post_form(b"a=1")
        source.renew_bundles(by=TrustDomainAuthority(TRUST_DOMAIN))
        assert await reason_of(channel) in {Reason.STS_IDENTITY, Reason.STS_UNAVAILABLE}
        assert server.forms == [b"a=1"]


async def test_without_an_identity_connections_close_and_nobody_is_called() -> None:
    source = own()
    async with serving(sts_tls()) as server, calling(server, source, peer=STS) as channel:
        await channel.post_form(b"a=1")
        source.become(None)
        await server.until(lambda: server.ended == 1)
        assert await reason_of(channel) is Reason.NOT_READY
        assert server.connections == 1


async def test_a_service_that_is_trusted_no_more_is_not_asked_on_a_kept_connection() -> None:
    source = own()
    async with serving(sts_tls()) as server, calling(server, source, peer=STS) as channel:
        await channel.post_form(b"a=1")
        source.authority = TrustDomainAuthority(TRUST_DOMAIN)
        source.become(WRITER)
        assert await reason_of(channel) in {Reason.STS_IDENTITY, Reason.STS_UNAVAILABLE}
        assert server.forms == [b"a=1"]


async def test_a_kept_connection_is_not_used_after_its_peers_certificate_has_ended() -> None:
    clock = Clock()
    async with serving(sts_tls()) as server, calling(server, peer=STS, clock=clock) as channel:
        await channel.post_form(b"a=1")
        await channel.post_form(b"a=2")
        assert server.connections == 1
        clock.ahead_s = 366 * 86400
        assert await reason_of(channel) is Reason.STS_IDENTITY  # the handshake uses its own clock
        assert server.connections == 2
        assert server.forms == [b"a=1", b"a=2"]


class Fleeting(OwnIdentity):
    """Has an identity at the first call, and none after that."""

    @property
    def current(self) -> Identity | None:
        current = super().current
        self._current = None
        return current


async def test_an_identity_lost_before_the_handshake_is_no_fault_of_the_other_end() -> None:
    async with serving(sts_tls()) as server, calling(server, Fleeting(authority(), WRITER), peer=STS) as channel:
        assert await reason_of(channel) is Reason.NOT_READY


def host_tls(directory: Path, name: str) -> ssl.SSLContext:
    """Return a server context certified by name, as in the web PKI."""
    issued = authority().issue_x509(STS, dns_names=[name])
    file = directory / "server.pem"
    file.write_bytes(issued.chain_pem + issued.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@pytest.mark.parametrize(
    ("name", "by", "reason"),
    [
        pytest.param("localhost", authority(), None, id="certified"),
        pytest.param("sts.example", authority(), Reason.STS_IDENTITY, id="another name"),
        pytest.param("localhost", TrustDomainAuthority(TRUST_DOMAIN), Reason.STS_IDENTITY, id="by somebody else"),
    ],
)
async def test_a_host_is_proven_by_a_ca_file(
    name: str, by: TrustDomainAuthority, reason: Reason | None, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(by.bundle_pem())
    async with serving(host_tls(tmp_path, name)) as server, calling(server, ca_file=str(file)) as channel:
        if reason is not None:
            assert await reason_of(channel) is reason
            assert server.forms == []
            return
        await channel.post_form(b"a=1")
        await channel.post_form(b"a=2")
        assert server.connections == 1
        file.write_bytes(TrustDomainAuthority(TRUST_DOMAIN).bundle_pem())
        assert await reason_of(channel) is Reason.STS_IDENTITY
        assert server.forms == [b"a=1", b"a=2"]


async def test_a_closed_channel_has_no_connection_and_opens_none() -> None:
    async with serving() as server, calling(server) as channel:
        await channel.post_form(b"a=1")
        await channel.close()
        await server.until(lambda: server.ended == 1)
        assert await reason_of(channel) is Reason.STS_UNAVAILABLE
        assert server.connections == 1


@pytest.mark.parametrize("shows", [True, False])
async def test_a_host_by_its_authority_sees_our_svid_only_where_it_authenticates_us(
    shows: bool, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority().bundle_pem())
    seen: list[object] = []
    context = host_tls(tmp_path, "localhost")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cafile=ca)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        certificate = writer.get_extra_info("peercert")
        seen.append(dict(certificate or {}).get("subjectAltName"))
        writer.write(answer(b"{}"))

    async with listening(serve, ssl=context) as port:
        endpoint = Endpoint(url=f"https://localhost:{port}/token", ca_file=str(ca))
        source = OwnIdentity(authority(), WRITER)
        channel = StsChannel(endpoint, source, timeout_s=5, max_bytes=1000, shows_svid=shows)
        await channel.post_form(b"")
        await channel.close()
    assert seen == [(("URI", str(WRITER)),) if shows else None]
