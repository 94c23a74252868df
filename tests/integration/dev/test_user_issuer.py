from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import jwt
import pytest

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar_dev.entries import Entry, Selectors
from sidecar_dev.login import LoginSettings, UserIssuer
from sidecar_dev.pki import TrustDomainAuthority
from sidecar_dev.registry import Registry
from sidecar_dev.user_issuer import loopback_listener, serving
from sidecar_dev.workload_server import DevWorkloadApi
from tests.dev.commands import ended, line_with, running
from tests.integration.world import free_port

pytestmark = pytest.mark.integration


ALICE = {"grant_type": "password", "username": "alice", "client_id": "front"}


SETTINGS = LoginSettings(users={"alice": None}, clients=frozenset({"front"}))


@pytest.fixture
async def issuer() -> AsyncIterator[UserIssuer]:
    async with serving(SETTINGS, loopback_listener("127.0.0.1:0")) as running_issuer:
        yield running_issuer


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def asked(session: aiohttp.ClientSession, method: str, url: str, **options: Any) -> tuple[int, Any]:
    async with session.request(method, url, **options) as response:
        is_json = response.content_type == "application/json"
        return response.status, await response.json() if is_json else await response.text()


async def test_a_client_finds_keys_and_tokens_by_the_discovery_document(
    issuer: UserIssuer, session: aiohttp.ClientSession
) -> None:
    _, metadata = await asked(session, "GET", f"{issuer.issuer}/.well-known/openid-configuration")
    assert metadata["issuer"] == issuer.issuer
    status, answer = await asked(session, "POST", metadata["token_endpoint"], data=ALICE)
    assert status == 200
    _, jwks = await asked(session, "GET", metadata["jwks_uri"])
    (key,) = jwt.PyJWKSet.from_dict(jwks).keys
    assert jwt.decode(answer["id_token"], key, algorithms=["ES256"], audience="front")["sub"] == "alice"


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [({"username": "bob"}, 400, "invalid_grant"), ({"client_id": "x"}, 401, "invalid_client")],
)
async def test_a_refusal_names_its_code(
    issuer: UserIssuer, session: aiohttp.ClientSession, fields: dict[str, str], status: int, code: str
) -> None:
    assert await asked(session, "POST", f"{issuer.issuer}/token", data=ALICE | fields) == (status, {"error": code})


async def test_tokens_and_refusals_are_not_to_be_cached(issuer: UserIssuer, session: aiohttp.ClientSession) -> None:
    for fields in (ALICE, {}):
        async with session.post(f"{issuer.issuer}/token", data=fields) as response:
            assert response.headers["Cache-Control"] == "no-store"


async def test_another_content_type_is_no_login(issuer: UserIssuer, session: aiohttp.ClientSession) -> None:
    options = {"data": urlencode(ALICE).encode(), "headers": {"Content-Type": "text/plain"}}
    refused = (400, {"error": "invalid_request"})
    assert await asked(session, "POST", f"{issuer.issuer}/token", **options) == refused


async def test_too_large_a_form_is_no_login(issuer: UserIssuer, session: aiohttp.ClientSession) -> None:
    status, _ = await asked(session, "POST", f"{issuer.issuer}/token", data=ALICE | {"x": "y" * 9000})
    assert status == 413


@pytest.mark.parametrize("host", ["attacker.example", "127.0.0.1", "localhost:1"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_for_another_host_name_is_refused(
    issuer: UserIssuer, session: aiohttp.ClientSession, host: str, method: str
) -> None:
    url = f"{issuer.issuer}/{'jwks' if method == 'GET' else 'token'}"
    data = ALICE if method == "POST" else None
    assert await asked(session, method, url, data=data, headers={"Host": host}) == (400, {"error": "invalid_request"})


async def test_the_command_warns_serves_rotates_and_ends(session: aiohttp.ClientSession) -> None:
    options = ["--listen", "127.0.0.1:0", "--user", "alice", "--user", "bob:x", "--client", "front"]
    async with running("sidecar_dev.user_issuer", *options) as process:
        await line_with(process, "WARNING: DEVELOPMENT ONLY")
        url = (await line_with(process, "issuer http://")).split()[-1]
        bob = {"username": "bob", "password": "x"}
        assert (await asked(session, "POST", f"{url}/token", data=ALICE | bob))[0] == 200
        process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(5):
            while len((await asked(session, "GET", f"{url}/jwks"))[1]["keys"]) < 2:
                pass
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == (0, "")


async def test_with_an_identity_it_serves_https_under_its_own_name_to_callers_without_one(tmp_path: Path) -> None:
    """Clients that fetch its keys state the expected server: a SPIFFE ID, or a CA file and the host's name."""
    acme = TrustDomain("acme.example")
    login = SpiffeId(f"spiffe://{acme}/login")
    path = tmp_path / "api.sock"
    entry = Entry(spiffe_id=login, selectors=Selectors(socket=path), dns_names=("localhost",))
    authority = TrustDomainAuthority(acme)
    registry = Registry([authority], [entry])
    port = free_port()
    url = f"https://localhost:{port}"
    options = ["--listen", f"0.0.0.0:{port}", "--user", "alice", "--client", "front"]
    async with DevWorkloadApi(path, registry) as api:
        options += ["--workload-api", api.address, "--issuer", url]
        async with running("sidecar_dev.user_issuer", *options) as process:
            await line_with(process, f"issuer {url}")
            for _ in ("as certified first", "after a rotation"):
                trusting = ssl.create_default_context(cadata=authority.bundle_pem().decode())
                async with aiohttp.ClientSession() as session:
                    status, answer = await asked(session, "POST", f"{url}/token", data=ALICE, ssl=trusting)
                    assert (status, "access_token" in answer) == (200, True)
                    _, metadata = await asked(session, "GET", f"{url}/.well-known/openid-configuration", ssl=trusting)
                    assert metadata["issuer"] == url
                    with pytest.raises(aiohttp.ClientConnectorCertificateError):
                        await asked(session, "GET", f"{url}/jwks", ssl=ssl.create_default_context())
                registry.rotate()
            process.send_signal(signal.SIGTERM)
            assert await ended(process) == (0, "")
