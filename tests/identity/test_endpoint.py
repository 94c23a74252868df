from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from multidict import CIMultiDict

from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Reason
from sidecar.identity.endpoint import Endpoint, EndpointAnswer, EndpointClient, EndpointError, Trouble
from sidecar.identity.handshake import HandshakeRefused
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import TRUST_DOMAIN, WRITER

STS = SpiffeId("spiffe://acme.example/sts")


AUTHORITY = TrustDomainAuthority(TRUST_DOMAIN)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/jwks",
        "http://127.8.9.1:8080/jwks?x=1",
        "http://[::1]:8080/jwks",
        "http://localhost/jwks",
    ],
)
def test_plain_http_is_for_loopback(url: str) -> None:
    assert Endpoint(url=url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://sts.example/jwks",
        "http://10.0.0.1/jwks",
        "http://0.0.0.0/jwks",
        "http://127.0.0.1.example/jwks",
        "http://localhost.example/jwks",
        "http://[::ffff:10.0.0.1]/jwks",
        "http://2130706433/jwks",
        "http://user@127.0.0.1/jwks",
        "http://127.0.0.1@sts.example/jwks",
        "http://127.0.0.1/jwks#fragment",
        "http://127.0.0.1/jwks#",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\tjwks",
        "http://127.0.0.1/\r\nX: y",
        "http://127.0.0.1\\.example/",
        "http://127.0.0.1/\x7f",
        'http://127.0.0.1/"',
        "http://127.0.0.1/<",
        "http://127.0.0.1/a\\b",
        "http://127.0.0.1/jw\u00e4ks",
        "http://127.0.0.1:0/jwks",
        "http://127.0.0.1:99999/jwks",
        "http:///jwks",
        "http://",
        "127.0.0.1/jwks",
        "ftp://127.0.0.1/jwks",
        "file:///etc/passwd",
        "unix:///run/sock",
        "",
    ],
)
def test_what_is_no_safe_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the texts vary
        Endpoint(url=url)


@pytest.mark.parametrize(
    ("peer", "ca_file", "lawful"),
    [(STS, None, True), (None, "ca.pem", True), (None, None, False), (STS, "ca.pem", False)],
)
def test_https_says_by_exactly_one_means_who_answers(peer: SpiffeId | None, ca_file: str | None, lawful: bool) -> None:
    if lawful:
        Endpoint(url="https://sts.example/jwks", peer=peer, ca_file=ca_file)
    else:
        with pytest.raises(ValueError, match="tls"):
            Endpoint(url="https://sts.example/jwks", peer=peer, ca_file=ca_file)


@pytest.mark.parametrize(
    "url", ["https:///jwks", "https://:443/jwks", "https://a@sts.example/", "https://sts.example/#a"]
)
def test_who_answers_does_not_make_a_url_out_of_what_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        Endpoint(url=url, peer=STS)


@pytest.mark.parametrize(("peer", "ca_file"), [(STS, None), (None, "ca.pem")])
def test_plain_http_cannot_promise_who_answers(peer: SpiffeId | None, ca_file: str | None) -> None:
    with pytest.raises(ValueError, match="tls"):
        Endpoint(url="http://127.0.0.1/jwks", peer=peer, ca_file=ca_file)


def ca_file(directory: Path, authority: TrustDomainAuthority = AUTHORITY) -> str:
    file = directory / "ca.pem"
    file.write_bytes(authority.bundle_pem())
    return str(file)


@pytest.mark.parametrize(
    ("url", "address", "authority", "target"),
    [
        ("https://sts.example/a/token", ("https", "sts.example", 443), b"sts.example", b"/a/token"),
        ("https://STS.example:8443/t?x=%2F", ("https", "sts.example", 8443), b"sts.example:8443", b"/t?x=%2F"),
        ("https://[::1]:7444/token", ("https", "::1", 7444), b"[::1]:7444", b"/token"),
        ("https://[::1]", ("https", "::1", 443), b"[::1]", b"/"),
        ("https://10.0.0.1/?", ("https", "10.0.0.1", 443), b"10.0.0.1", b"/"),
        ("http://127.0.0.1/token", ("http", "127.0.0.1", 80), b"127.0.0.1", b"/token"),
    ],
)
def test_the_url_gives_address_host_field_and_target(
    url: str, address: tuple[str, str, int], authority: bytes, target: bytes
) -> None:
    endpoint = Endpoint(url=url, peer=STS if url.startswith("https") else None)
    assert (endpoint.address, endpoint.authority, endpoint.target) == (address, authority, target)


# --- one call, without a socket


class Session:
    """The HTTP library's session: one answer, or ``error`` before it, or ``late`` after its head."""

    def __init__(self) -> None:
        self.fields: list[tuple[str, str]] = [("Content-Type", "application/json"), ("Cache-Control", "max-age=60")]
        self.body = [b"{", b"}"]
        self.error: Exception | None = None
        self.late: Exception | None = None
        self.hangs = False
        self.asked: list[dict[str, Any]] = []

    def request(self, method: str, url: Any, **options: Any) -> Session:
        self.asked.append({"method": method, "url": str(url), **options})
        return self

    async def __aenter__(self) -> Any:
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.error is not None:
            raise self.error
        content = SimpleNamespace(iter_chunked=self._chunks)
        return SimpleNamespace(status=200, headers=CIMultiDict(self.fields), content=content)

    async def __aexit__(self, *_: object) -> None:
        pass

    async def _chunks(self, _size: int) -> AsyncIterator[bytes]:
        for chunk in self.body:
            yield chunk
        if self.late is not None:
            raise self.late


class Call:
    """One call to the token service's keys, with 8 bytes at most."""

    def __init__(self, **pin: Any) -> None:
        self.own = OwnIdentity(AUTHORITY, WRITER)
        self.session = Session()
        endpoint = Endpoint(url="https://sts.example/jwks", **(pin or {"peer": STS}))
        self.client = EndpointClient(endpoint, self.own, timeout_s=0.02, max_bytes=8)
        session: Any = self.session
        self.client._session = session

    async def refusal(self) -> EndpointError:
        with pytest.raises(EndpointError) as refused:
            await self.client.get()
        return refused.value


async def test_an_answer_is_fetched_from_this_url_alone_and_from_the_peer_alone() -> None:
    call = Call()
    answer = await call.client.get()
    assert answer == EndpointAnswer(200, "application/json", "max-age=60", b"{}")
    (asked,) = call.session.asked
    assert asked.pop("ssl") is call.client._pinned
    assert asked == {
        "method": "GET",
        "url": "https://sts.example/jwks",
        "data": None,
        "headers": {},
        "allow_redirects": False,
    }
    call.session.fields += [("Content-Type", "text/html")]
    assert (await call.client.get()).content_type is None
    call.session.body = [b"x" * 8]
    assert len((await call.client.get()).body) == 8


def ssl_error(cause: Exception) -> aiohttp.ClientSSLError:
    key: Any = SimpleNamespace(host="sts.example", port=443, is_ssl=True, ssl=True)
    error = aiohttp.ClientConnectorSSLError(key, OSError(1, "secret"))
    error.__cause__ = cause
    return error


def broken_answer() -> aiohttp.ClientResponseError:
    info: Any = SimpleNamespace(real_url="https://sts.example/jwks")
    return aiohttp.ClientResponseError(info, (), message="secret")


FAILURES: dict[str, tuple[dict[str, Any], Trouble, bool]] = {
    "an encoded body": ({"fields": [("Content-Encoding", "gzip")]}, Trouble.ENCODED, False),
    "one byte too many": ({"body": [b"x" * 8, b"x"]}, Trouble.TOO_LARGE, False),
    "no answer in time": ({"hangs": True}, Trouble.TIMEOUT, False),
    "no HTTP": ({"error": broken_answer()}, Trouble.BROKEN, False),
    "no connection": ({"error": ConnectionRefusedError()}, Trouble.UNREACHABLE, True),
    "an end within the answer": ({"late": aiohttp.ClientPayloadError("secret")}, Trouble.BROKEN, False),
    "another peer": (
        {"error": ssl_error(HandshakeRefused(Reason.UPSTREAM_IDENTITY, "another peer"))},
        Trouble.IDENTITY,
        False,
    ),
    "our identity is lost meanwhile": (
        {"error": ssl_error(HandshakeRefused(Reason.NOT_READY, ""))},
        Trouble.NOT_READY,
        False,
    ),
    "TLS fails": ({"error": ssl_error(ssl.SSLError(1, "secret"))}, Trouble.IDENTITY, False),
}


@pytest.mark.parametrize(("changes", "trouble", "may_retry"), FAILURES.values(), ids=FAILURES.keys())
async def test_a_call_that_fails_says_why_and_quotes_nothing(
    changes: dict[str, Any], trouble: Trouble, may_retry: bool
) -> None:
    call = Call()
    vars(call.session).update(changes)
    refused = await call.refusal()
    assert (refused.trouble, refused.may_retry) == (trouble, may_retry)
    assert "secret" not in str(refused)


async def test_without_our_identity_no_pinned_peer_is_asked() -> None:
    call = Call()
    call.own.become(None)
    assert (await call.refusal()).trouble is Trouble.NOT_READY
    assert call.session.asked == []


async def test_a_host_is_certified_by_its_ca_file_or_not_asked(tmp_path: Path) -> None:
    call = Call(ca_file=ca_file(tmp_path))
    call.own.become(None)  # such a host is shown no identity
    assert (await call.client.get()).status == 200
    (asked,) = call.session.asked
    assert asked["ssl"] is not True
    assert asked["ssl"].verify_mode is ssl.CERT_REQUIRED
    (tmp_path / "ca.pem").write_text("nothing")
    assert (await call.refusal()).trouble is Trouble.IDENTITY


async def test_the_session_takes_nothing_from_the_environment_and_keeps_nothing() -> None:
    call = Call()
    call.client._session = None
    session = call.client._open()
    try:
        assert call.client._open() is session
        assert (session.trust_env, session.auto_decompress) == (False, False)
        assert isinstance(session.cookie_jar, aiohttp.DummyCookieJar)
        assert session.connector is not None
        assert session.connector.force_close
    finally:
        await call.client.close()
    assert session.closed


async def test_a_call_that_names_no_authority_trusts_nobody_rather_than_the_systems() -> None:
    """No call of ours is like that; the authorities of the system are not even held."""
    connector = aiohttp.TCPConnector()
    try:
        trusted = connector._get_ssl_context(cast(Any, SimpleNamespace(is_ssl=lambda: True, ssl=True)))
        assert trusted is not None
        assert (trusted.verify_mode, trusted.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert trusted.cert_store_stats() == {"x509": 0, "crl": 0, "x509_ca": 0}
    finally:
        await connector.close()
