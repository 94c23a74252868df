"""A token service that is away for a moment while a user logs in: the login goes on, unless its code may have left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import pytest

from delegation_core.errors import Reason, SidecarError
from delegation_core.login import plan_login
from sidecar.exchange.cache import Issued
from sidecar.exchange.failover import Unsent
from tests.exchange.world import STS, World, running
from tests.fakes.login_counterparts import LyingUserServer, allowing
from tests.fakes.lying_sts import serving
from tests.integration.login_world import LoginWorld, in_browser, open_login_world
from tests.integration.test_exchange import sts_context
from tests.integration.world import free_port

pytestmark = pytest.mark.integration

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter
Serve: TypeAlias = Callable[[Reader, Writer], Any]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
async def logins(port: int) -> AsyncIterator[LoginWorld]:
    """Front whose token endpoint is at ``port``, where nobody listens yet."""
    async with open_login_world() as opened:
        settings = opened.settings()
        settings["exchange"] |= {
            "token_endpoint": f"http://127.0.0.1:{port}/token",
            "authorization_endpoint": f"{opened.server.issuer}/authorize",
        }
        await opened.start(settings)
        yield opened


@asynccontextmanager
async def listening(port: int, serve: Serve) -> AsyncIterator[None]:
    """Serve each connection, and cut all at the end."""
    serving: set[asyncio.Task[Any]] = set()

    async def accept(reader: Reader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await serve(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def passing_to(url: str) -> Serve:
    """Pass connections on."""

    async def pump(reader: Reader, writer: Writer) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def serve(reader: Reader, writer: Writer) -> None:
        there, away = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        try:
            await asyncio.gather(pump(reader, away), pump(there, writer))
        finally:
            away.transport.abort()

    return serve


async def read_and_cut(reader: Reader, writer: Writer) -> None:
    """Read the form, and end without an answer."""
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def say_nothing(_reader: Reader, _writer: Writer) -> None:
    """Accept the connection, and no more."""
    await asyncio.Event().wait()


async def test_a_login_goes_on_after_an_outage_before_its_code_has_left(logins: LoginWorld, port: int) -> None:
    begun = await logins.begin()
    callback = await in_browser(begun["url"])
    for _ in range(2):
        refused = await logins.go_on(begun["login"], callback)
        assert (refused.status, refused.reason) == (503, "sts_unavailable")
    async with listening(port, passing_to(logins.server.issuer)):
        assert (await logins.go_on(begun["login"], callback)).status == 200
        assert (await logins.go_on(begun["login"], callback)).reason == "login_used"
    assert logins.server.tokens_asked == 1


async def test_a_login_is_over_after_an_outage_if_its_code_has_left(logins: LoginWorld, port: int) -> None:
    begun = await logins.begin()
    callback = await in_browser(begun["url"])
    async with listening(port, read_and_cut):
        refused = await logins.go_on(begun["login"], callback)
        assert refused.status in (502, 503)
    async with listening(port, passing_to(logins.server.issuer)):
        again = await logins.go_on(begun["login"], callback)
        assert (again.status, again.reason) == (403, "login_used")
        assert logins.server.tokens_asked == 0
        assert await logins.handle()


async def completes(world: World) -> tuple[SidecarError | None, Any]:
    """Begin a login, and give its code. Return the failure, and a function that gives it again."""
    by = allowing()
    plan, talk = plan_login("crm", policy=by), world.exchange.logins
    begun = await talk.begin(plan, redirect_uri="https://app.example/back", reason="r")

    async def give() -> object:
        return await talk.complete(begun, "c0de", plan=plan, policy=by)

    try:
        await give()
    except SidecarError as error:
        return error, give
    return None, give


@pytest.mark.parametrize("further", [0, 1])
async def test_a_connection_that_hangs_in_its_handshake_has_taken_no_code_along(further: int) -> None:
    """The deadline would end the wait without telling if the code had left."""
    ports = [free_port() for _ in range(1 + further)]
    urls = [f"https://127.0.0.1:{port}/token" for port in ports]
    settings: dict[str, Any] = {
        "token_endpoint": urls[0],
        "further_token_endpoints": tuple(urls[1:]),
        "authorization_endpoint": "https://login.example/a",
        "adapter": "obo-draft-02",
        "timeout_s": 0.6,
        "peer": STS,
    }
    async with serving(LyingUserServer(), sts_context()) as server, running(World(server=server, **settings)) as world:
        async with AsyncExitStack() as silent:
            for port in ports:
                await silent.enter_async_context(listening(port, say_nothing))
            failure, give = await completes(world)
        assert isinstance(failure, Unsent)
        assert failure.reason is Reason.STS_TIMEOUT
        async with listening(ports[0], passing_to(server.url)):
            assert isinstance(await give(), Issued)
    assert len(server.sts.forms) == 1


async def test_a_token_service_that_says_nothing_may_have_the_code() -> None:
    settings: dict[str, Any] = {
        "authorization_endpoint": "https://login.example/a",
        "adapter": "obo-draft-02",
        "timeout_s": 0.6,
        "peer": STS,
    }
    async with serving(LyingUserServer(), sts_context()) as server, running(World(server=server, **settings)) as world:
        server.sts.hold()
        failure, _ = await completes(world)
        assert failure is not None
        assert (failure.reason, isinstance(failure, Unsent)) == (Reason.STS_TIMEOUT, False)
        assert len(server.sts.forms) == 1
        server.sts.release()
