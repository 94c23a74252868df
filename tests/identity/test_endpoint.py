from __future__ import annotations

from pathlib import Path

import pytest

from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.endpoint import Endpoint
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.tokens import TRUST_DOMAIN

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
