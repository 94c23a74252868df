from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from sidecar.doctor.case import Server
from sidecar.doctor.discovery import DiscoveryError, discover, keys_of, places_of, server_of, usable

ISSUER = "https://login.example/realms/lab"
METADATA: dict[str, Any] = {
    "issuer": ISSUER,
    "token_endpoint": f"{ISSUER}/token",
    "introspection_endpoint": f"{ISSUER}/introspect",
    "jwks_uri": f"{ISSUER}/keys",
    "scopes_supported": ["openid", 7, "crm.read"],
}


class Documents:
    def __init__(self, documents: dict[str, bytes]) -> None:
        self.documents = documents
        self.asked: list[str] = []

    async def __call__(self, url: str) -> bytes | None:
        self.asked.append(url)
        return self.documents.get(url)


def test_metadata_is_looked_for_where_the_standards_say() -> None:
    assert places_of(ISSUER) == (
        "https://login.example/.well-known/oauth-authorization-server/realms/lab",
        "https://login.example/realms/lab/.well-known/openid-configuration",
        "https://login.example/realms/lab/.well-known/oauth-authorization-server",
    )
    assert places_of("http://localhost:9/") == (
        "http://localhost:9/.well-known/oauth-authorization-server",
        "http://localhost:9/.well-known/openid-configuration",
    )


async def test_endpoints_come_from_the_first_metadata() -> None:
    fetch = Documents({places_of(ISSUER)[0]: b"<html>", places_of(ISSUER)[1]: json.dumps(METADATA).encode()})
    server = await discover(ISSUER, fetch)
    assert server == Server(
        token=f"{ISSUER}/token",
        issuer=ISSUER,
        introspection=f"{ISSUER}/introspect",
        jwks=f"{ISSUER}/keys",
        supported=("openid", "crm.read"),
    )


async def test_without_metadata_the_fix_is_told() -> None:
    with pytest.raises(DiscoveryError, match="--token-endpoint"):
        await discover(ISSUER, Documents({}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"issuer": "https://evil.example"}, "another issuer"),
        ({"issuer": None}, "another issuer"),
        ({"token_endpoint": None}, "no token_endpoint"),
        ({"token_endpoint": "http://login.example/token"}, "token_endpoint: plain http is for loopback only"),
        ({"introspection_endpoint": "http://login.example/x"}, "introspection_endpoint: plain http"),
        ({"token_endpoint": "https://user@login.example/token"}, "token_endpoint: it has user info"),
        ({"token_endpoint": "http://127.0.0.1:9/token"}, "token_endpoint: plain http in an https issuer's metadata"),
        ({"introspection_endpoint": "http://127.0.0.1:9/x"}, "introspection_endpoint: plain http in an https"),
        ({"revocation_endpoint": "http://localhost/x"}, "revocation_endpoint: plain http in an https"),
        ({"jwks_uri": "http://127.0.0.1:8001/api"}, "jwks_uri: plain http in an https"),
    ],
)
def test_metadata_that_would_send_secrets_elsewhere_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(DiscoveryError, match=told):
        server_of({**METADATA, **changes}, ISSUER)


def test_metadata_of_an_issuer_on_loopback_may_be_plain() -> None:
    issuer = "http://127.0.0.1:9"
    metadata = {name: str(value).replace(ISSUER, issuer) for name, value in METADATA.items()}
    assert server_of(metadata, issuer).introspection == f"{issuer}/introspect"


@pytest.mark.parametrize(
    "url", ["https://evil.example/x", "https://login.example:8443/x", "https://sub.login.example/x"]
)
@pytest.mark.parametrize("name", ["introspection", "revocation"])
def test_an_endpoint_of_another_origin_is_told_and_not_taken(name: str, url: str) -> None:
    server = server_of({**METADATA, f"{name}_endpoint": url}, ISSUER)
    assert getattr(server, name) is None
    assert server.elsewhere == ((name, url),)


@pytest.mark.parametrize("url", ["https://login.example/x", "https://LOGIN.example:443/x"])
def test_an_endpoint_of_the_same_origin_is_taken(url: str) -> None:
    server = server_of({**METADATA, "revocation_endpoint": url}, ISSUER)
    assert (server.revocation, server.elsewhere) == (url, ())


def test_keys_may_be_elsewhere_for_they_are_fetched_without_a_credential() -> None:
    assert server_of({**METADATA, "jwks_uri": "https://keys.example/k"}, ISSUER).jwks == "https://keys.example/k"


def test_a_slash_at_the_end_makes_no_other_issuer() -> None:
    assert server_of({**METADATA, "issuer": f"{ISSUER}/"}, ISSUER).issuer == f"{ISSUER}/"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/token", "http://localhost/x", "https://login.example"])
def test_https_and_loopback_are_usable(url: str) -> None:
    assert usable(url, "URL") == url


@pytest.mark.parametrize("url", ["http://login.example", "ftp://login.example", "login.example", "https://a b"])
def test_other_urls_are_not_usable(url: str) -> None:
    with pytest.raises(ValueError, match="URL: "):
        usable(url, "URL")


async def test_keys_are_none_unless_they_can_be_read() -> None:
    server = Server(token="https://x/token", jwks="https://x/keys")
    assert await keys_of(server, Documents({})) is None
    assert await keys_of(server, Documents({"https://x/keys": b"[]"})) is None
    assert await keys_of(server, Documents({"https://x/keys": orjson.dumps({"keys": []})})) is not None
    assert await keys_of(Server(token="https://x/token"), Documents({})) is None
