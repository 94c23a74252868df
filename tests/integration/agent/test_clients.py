"""Every client sends the handle to the sidecar and nowhere else: one table of behaviour, for each of them."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import httpx
import httpx2
import pytest
import requests

import delegation_agent.aiohttp
import delegation_agent.httpx
import delegation_agent.httpx2
import delegation_agent.requests
import delegation_agent.urllib
from delegation_agent import ConfigurationError, serving
from delegation_agent.outbound import VARIABLE
from tests.integration.agent.recorder import Recorder, recording

pytestmark = pytest.mark.integration

Call = Callable[..., Awaitable[None]]
USERS: Final = 200


@asynccontextmanager
async def by_urllib() -> AsyncIterator[Call]:
    opener = urllib.request.build_opener(delegation_agent.urllib.Handler())

    def get(url: str, fields: Mapping[str, str]) -> None:
        opener.open(urllib.request.Request(url, headers=dict(fields))).close()

    yield lambda url, **fields: asyncio.to_thread(get, url, fields)


@asynccontextmanager
async def by_requests() -> AsyncIterator[Call]:
    with requests.Session() as session:
        session.mount("http://", delegation_agent.requests.Adapter(pool_maxsize=32))
        yield lambda url, **fields: asyncio.to_thread(lambda: session.get(url, headers=fields).close())


@asynccontextmanager
async def by_httpx(library: Any = httpx, ours: Any = delegation_agent.httpx) -> AsyncIterator[Call]:
    with library.Client(mounts=ours.mounts(), follow_redirects=True, timeout=30) as client:
        yield lambda url, **fields: asyncio.to_thread(client.get, url, headers=fields)


@asynccontextmanager
async def by_async_httpx(library: Any = httpx, ours: Any = delegation_agent.httpx) -> AsyncIterator[Call]:
    async with library.AsyncClient(mounts=ours.async_mounts(), follow_redirects=True, timeout=30) as client:
        yield lambda url, **fields: client.get(url, headers=fields)


@asynccontextmanager
async def by_aiohttp() -> AsyncIterator[Call]:
    middleware = delegation_agent.aiohttp.client_middleware()
    async with aiohttp.ClientSession(middlewares=[middleware], trust_env=True) as session:

        async def get(url: str, **fields: str) -> None:
            async with session.get(url, headers=fields):
                pass

        yield get


CLIENTS: Final[dict[str, Callable[[], Any]]] = {
    "urllib": by_urllib,
    "requests": by_requests,
    "httpx": by_httpx,
    "httpx-async": by_async_httpx,
    "httpx2": lambda: by_httpx(httpx2, delegation_agent.httpx2),
    "httpx2-async": lambda: by_async_httpx(httpx2, delegation_agent.httpx2),
    "aiohttp": by_aiohttp,
}


@pytest.fixture
def sidecar(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with recording() as recorder:
        monkeypatch.setenv(VARIABLE, recorder.origin)
        yield recorder


@pytest.fixture
def elsewhere() -> Iterator[Recorder]:
    with recording() as recorder:
        yield recorder


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Callable[[], Any]:
    return CLIENTS[request.param]


async def test_a_call_to_the_sidecar_has_the_handle_of_its_request_and_no_more(
    client: Callable[[], Any], sidecar: Recorder
) -> None:
    async with client() as call:
        with serving("alice"):
            await call(f"{sidecar.origin}/crm", **{"X-Own": "1"})
        with serving("bob"):
            await call(f"{sidecar.origin}/crm")
        await call(f"{sidecar.origin}/crm")
    assert sidecar.handles == [["alice"], ["bob"], None]
    assert [fields["authorization"] for _, fields in sidecar.requests] == [None, None, None]
    assert sidecar.requests[0][1]["x-own"] == "1"


async def test_a_call_to_another_origin_has_none(
    client: Callable[[], Any], sidecar: Recorder, elsewhere: Recorder
) -> None:
    async with client() as call:
        with serving("alice"):
            await call(f"{elsewhere.origin}/crm")
            await call(f"http://localhost:{sidecar.port}/crm")  # another name, which may lead anywhere
    assert (elsewhere.handles, sidecar.handles) == ([None], [None])


async def test_a_redirect_takes_the_handle_nowhere_else(
    client: Callable[[], Any], sidecar: Recorder, elsewhere: Recorder
) -> None:
    sidecar.redirects = {"/away": f"{elsewhere.origin}/back", "/within": "/done"}
    elsewhere.redirects = {"/back": f"{sidecar.origin}/done"}
    async with client() as call:
        with serving("alice"):
            await call(f"{sidecar.origin}/away")
            await call(f"{sidecar.origin}/within")
    assert elsewhere.handles == [None]
    assert [target for target, _ in sidecar.requests] == ["/away", "/done", "/within", "/done"]
    assert sidecar.handles == [["alice"]] * 4


async def test_fields_of_the_callers_own_are_left(
    client: Callable[[], Any], sidecar: Recorder, elsewhere: Recorder
) -> None:
    async with client() as call:
        with serving("alice"):
            await call(f"{sidecar.origin}/crm", **{"Delegation-Handle": "own", "Authorization": "Bearer key"})
        await call(f"{elsewhere.origin}/crm", **{"Delegation-Handle": "own"})
    assert (sidecar.handles, elsewhere.handles) == ([["own"]], [["own"]])
    assert sidecar.requests[0][1]["authorization"] == "Bearer key"


async def test_a_call_by_the_sidecar_as_proxy_has_the_handle(
    client: Callable[[], Any], sidecar: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", sidecar.origin)
    async with client() as call:
        with serving("alice"):
            await call("http://crm.mesh/customers")
    assert [target for target, _ in sidecar.requests] == ["http://crm.mesh/customers"]
    assert sidecar.handles == [["alice"]]


async def test_so_has_one_to_its_address_if_no_proxy_names_that(
    client: Callable[[], Any], sidecar: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    async with client() as call:
        with serving("alice"):
            await call(f"{sidecar.origin}/crm")
    assert sidecar.handles == [["alice"]]


async def test_a_call_by_another_proxy_or_past_the_sidecar_has_none(
    client: Callable[[], Any], sidecar: Recorder, elsewhere: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", elsewhere.origin)
    async with client() as call:
        with serving("alice"):
            await call("http://crm.mesh/customers")
    monkeypatch.setenv("http_proxy", sidecar.origin)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with client() as call:
        with serving("alice"):
            await call(f"{elsewhere.origin}/direct")
    assert [target for target, _ in elsewhere.requests] == ["http://crm.mesh/customers", "/direct"]
    assert (elsewhere.handles, sidecar.handles) == ([None, None], [])


async def test_200_users_of_one_client_never_mix(client: Callable[[], Any], sidecar: Recorder) -> None:
    """They share its connections. Every fifth request has no handle."""
    together = asyncio.Barrier(USERS)

    async def request(number: int) -> None:
        with serving(None if number % 5 == 0 else f"user-{number}"):
            await together.wait()
            for _ in range(2):
                await call(f"{sidecar.origin}/crm", **{"X-User": str(number)})

    async with client() as call:
        await asyncio.gather(*map(request, range(USERS)))
    shown = [(fields["x-user"], fields["delegation-handle"]) for _, fields in sidecar.requests]
    assert len(shown) == 2 * USERS
    assert set(shown) == {(str(one), None if one % 5 == 0 else f"user-{one}") for one in range(USERS)}


async def test_a_client_without_the_address_is_refused_with_the_fix(
    client: Callable[[], Any], sidecar: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ConfigurationError, match="SIDECAR_OUTBOUND_URL is not set"):
        async with client():
            pass


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_request_that_is_sent_again_for_another_user_has_that_users_handle(library: Any, sidecar: Recorder) -> None:
    ours = delegation_agent.httpx if library is httpx else delegation_agent.httpx2
    with library.Client(mounts=ours.mounts()) as client:
        request = client.build_request("GET", f"{sidecar.origin}/crm")
        for user in ("alice", "bob"):
            with serving(user):
                assert "delegation-handle" not in client.send(request).request.headers
    assert sidecar.handles == [["alice"], ["bob"]]


def test_so_has_one_of_requests_and_of_urllib(sidecar: Recorder) -> None:
    prepared = requests.Request("GET", f"{sidecar.origin}/crm").prepare()
    plain = urllib.request.Request(f"{sidecar.origin}/crm")
    opener = urllib.request.build_opener(delegation_agent.urllib.Handler())
    with requests.Session() as session:
        session.mount("http://", delegation_agent.requests.Adapter())
        for user in ("alice", "bob"):
            with serving(user):
                assert "delegation-handle" not in session.send(prepared).request.headers
                opener.open(plain).close()
    assert sidecar.handles == [["alice"], ["alice"], ["bob"], ["bob"]]


def test_a_transport_that_is_no_mount_heeds_no_proxy_itself(
    sidecar: Recorder, elsewhere: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", sidecar.origin)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving("alice"), httpx.Client(transport=delegation_agent.httpx.Transport()) as client:
        client.get(f"{elsewhere.origin}/direct")
    assert (elsewhere.handles, sidecar.handles) == ([None], [])


def test_https_by_the_sidecar_as_proxy_gets_no_handle_of_ours(sidecar: Recorder) -> None:
    """A tunnel takes its handle in Proxy-Authorization; what is inside is for the host."""
    assert not delegation_agent.requests.Adapter()._is_for_sidecar(
        requests.Request("GET", "https://api.example/").prepare(), {"https": sidecar.origin}
    )
    transport = delegation_agent.httpx.Transport()
    request = httpx.Request("GET", "https://api.example/")
    with serving("alice"):
        assert transport.chosen(request)[1] is request
    transport.close()
