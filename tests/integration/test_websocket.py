"""WebSockets through a sidecar, with real clients through mTLS and real servers behind it."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.integration.test_lifecycle import HELPER, distrust_partner, partners
from tests.integration.world import (
    PATIENCE_S,
    PLANNER,
    WRITER,
    Record,
    Sidecar,
    World,
    bearer,
    calling,
    mint,
    until,
)

pytestmark = [pytest.mark.integration, pytest.mark.both_loops]


class EchoServer:
    """An echo server; records the requests that opened its connections and their ends."""

    def __init__(self) -> None:
        self.port = 0
        self.headers: list[Any] = []
        self.closes: asyncio.Queue[tuple[int, str]] = asyncio.Queue()

    async def talk(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.headers.append(connection.request.headers)
        try:
            async for message in connection:
                await connection.send(message)
        except ConnectionClosed:
            pass
        assert connection.close_code is not None
        self.closes.put_nowait((connection.close_code, connection.close_reason or ""))

    async def closed(self) -> tuple[int, str]:
        async with asyncio.timeout(PATIENCE_S):
            return await self.closes.get()


@pytest.fixture
async def echo() -> AsyncIterator[EchoServer]:
    server = EchoServer()

    def choose(_connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return next((one for one in offered if one == "chat.v1"), None)

    async with serve(
        server.talk, "127.0.0.1", 0, select_subprotocol=choose, ping_interval=None, max_size=None
    ) as listening:
        server.port = next(iter(listening.sockets)).getsockname()[1]
        yield server


def settings(world: World, agent_port: int, **changes: Any) -> dict[str, Any]:
    world.agent.port = agent_port
    made = world.settings(**changes)
    route = made["inbound"]["routes"][0]
    route["match"] = {"path_prefix": "/", "methods": ["GET", "POST"]}
    return made


async def start(world: World, agent_port: int, **changes: Any) -> tuple[Sidecar, ssl.SSLContext]:
    sidecar = await world.sidecar(WRITER, settings(world, agent_port, **changes))
    return sidecar, calling(await world.source(PLANNER), WRITER)


def opening(
    sidecar: Sidecar, tls: ssl.SSLContext, token: str | None = None, *, path: str = "/chat", **options: Any
) -> connect:
    """Open a client of the ``websockets`` library."""
    headers = bearer(mint() if token is None else token) if token != "" else []
    return connect(
        f"wss://127.0.0.1:{sidecar.inbound}{path}",
        ssl=tls,
        server_hostname="sidecar",
        additional_headers=headers,
        proxy=None,
        ping_interval=None,
        max_size=None,
        **options,
    )


async def hear(client: ClientConnection) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return await client.recv()


async def close_of(client: ClientConnection) -> tuple[int | None, str | None]:
    async with asyncio.timeout(PATIENCE_S):
        await client.wait_closed()
    return client.close_code, client.close_reason


# --- real clients, real servers


async def test_messages_of_all_kinds_pass(world: World, echo: EchoServer) -> None:
    sidecar, tls = await start(world, echo.port)
    async with opening(sidecar, tls, subprotocols=[Subprotocol("chat.v0"), Subprotocol("chat.v1")]) as client:
        assert client.subprotocol == "chat.v1"
        assert client.response is not None
        assert "permessage-deflate" in client.response.headers["sec-websocket-extensions"]
        for message in ("héllo", b"\0\xff" * 3, "", bytes(range(256)) * 4096):
            await client.send(message)
            assert await hear(client) == message
        await client.send(["frag", "men", "ted"])
        assert await hear(client) == "fragmented"
        async with asyncio.timeout(PATIENCE_S):
            await (await client.ping(b"are you there"))
    assert (client.close_code, await echo.closed()) == (1000, (1000, ""))
    (record,) = await sidecar.wait_for_records(1)
    assert (record["decision"], record["reason"], record["status"], record["upstream_status"]) == (
        "allow",
        "ok",
        101,
        101,
    )
    assert record["bytes_in"] > 1000
    assert record["bytes_out"] > 1000
    assert sidecar.records("request.opened")[0]["request_id"] == record["request_id"]


async def test_the_agent_is_told_who_calls_and_gets_no_token(world: World, echo: EchoServer) -> None:
    sidecar, tls = await start(world, echo.port)
    token = mint()
    async with opening(sidecar, tls, token):
        (headers,) = echo.headers
        assert headers["delegation-subject"] == "alice"
        assert headers["delegation-actor"] == PLANNER
        assert headers["connection"] == "Upgrade"
        assert token not in str(headers)


async def test_aiohttp_talks_to_aiohttp(world: World) -> None:
    async def talk(request: web.Request) -> web.WebSocketResponse:
        answer = web.WebSocketResponse(compress=True)
        await answer.prepare(request)
        async for message in answer:
            await answer.send_str(message.data)
        return answer

    app = web.Application()
    app.router.add_get("/chat", talk)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        sidecar, tls = await start(world, runner.addresses[0][1])
        url = f"wss://127.0.0.1:{sidecar.inbound}/chat"
        headers = dict(bearer(mint()))
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, ssl=tls, server_hostname="sidecar", headers=headers, compress=15) as client,
        ):
            assert client.compress
            for message in ("hello", "x" * 100_000):
                await client.send_str(message)
                assert await client.receive_str(timeout=PATIENCE_S) == message
        assert client.close_code == 1000
        (record,) = await sidecar.wait_for_records(1)
        assert record["reason"] == "ok"
    finally:
        await runner.cleanup()


# --- authorised like any request, before the agent receives it


REFUSED: dict[str, tuple[dict[str, object] | None, int, str]] = {
    "no token": (None, 401, "no_token"),
    "another audience": ({"aud": "spiffe://acme.example/other"}, 401, "wrong_audience"),
    "no actor": ({"act": None}, 401, "act_missing"),
    "expired": ({"iat": 1, "exp": 2}, 401, "token_expired"),
    "too small a scope": ({"scope": "crm.read"}, 403, "insufficient_scope"),
}


@pytest.mark.parametrize(("changes", "status", "reason"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_handshake_is_refused_like_any_request(
    world: World, echo: EchoServer, changes: dict[str, object] | None, status: int, reason: str
) -> None:
    sidecar, tls = await start(world, echo.port)
    with pytest.raises(InvalidStatus) as refused:
        async with opening(sidecar, tls, "" if changes is None else mint(changes)):
            pass
    answer = refused.value.response
    assert (answer.status_code, answer.headers["delegation-reason"]) == (status, reason)
    assert echo.headers == []
    (record,) = await sidecar.wait_for_records(1)
    assert (record["decision"], record["reason"]) == ("deny", reason)


@pytest.mark.parametrize("place", ["subprotocol", "query", "cookie"])
async def test_a_token_in_another_place_counts_for_nothing(world: World, echo: EchoServer, place: str) -> None:
    sidecar, tls = await start(world, echo.port)
    token = mint()
    url = f"wss://127.0.0.1:{sidecar.inbound}/chat" + (f"?access_token={token}" if place == "query" else "")
    options: dict[str, Any] = {"subprotocols": ["bearer", token]} if place == "subprotocol" else {}
    if place == "cookie":
        options["additional_headers"] = [("cookie", f"token={token}")]
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, ssl=tls, server_hostname="sidecar", proxy=None, **options):
            pass
    assert refused.value.response.headers["delegation-reason"] == "no_token"
    assert echo.headers == []


async def test_an_invalid_handshake_is_refused_before_anything_else(world: World, echo: EchoServer) -> None:
    sidecar, tls = await start(world, echo.port)
    fields = [
        *bearer(mint()),
        ("connection", "upgrade, http2-settings"),
        ("upgrade", "h2c, websocket"),
        ("http2-settings", "AAMAAABk"),
    ]
    answer = await world.call(sidecar.inbound, tls, "/chat", method="GET", headers=fields)
    assert (answer.status, answer.reason) == (400, "upgrade_refused")
    assert echo.headers == []


async def test_the_agents_own_refusal_passes(world: World) -> None:
    async def reject(connection: ServerConnection, request: Any) -> Any:
        return connection.respond(403, "not today")

    async with serve(EchoServer().talk, "127.0.0.1", 0, process_request=reject) as listening:
        sidecar, tls = await start(world, next(iter(listening.sockets)).getsockname()[1])
        with pytest.raises(InvalidStatus) as refused:
            async with opening(sidecar, tls):
                pass
    assert (refused.value.response.status_code, refused.value.response.body) == (403, b"not today")
    (record,) = await sidecar.wait_for_records(1)
    assert (record["decision"], record["reason"], record["status"]) == ("allow", "ok", 403)


# --- ends


async def ended(sidecar: Sidecar) -> Record:
    (record,) = await sidecar.wait_for_records(1)
    return record


async def test_it_ends_with_its_token_and_both_ends_are_told(world: World, echo: EchoServer) -> None:
    sidecar, tls = await start(world, echo.port)
    expires_at = int(time.time()) + 2
    async with opening(sidecar, tls, mint({"exp": expires_at})) as client:
        await client.send("alive")
        assert await hear(client) == "alive"
        assert await close_of(client) == (1001, "token_expired")
        assert time.time() >= expires_at
    assert await echo.closed() == (1001, "token_expired")
    record = await ended(sidecar)
    assert (record["decision"], record["reason"], record["status"]) == ("allow", "token_expired", 101)


async def test_it_ends_with_its_peers_certificate(world: World, echo: EchoServer) -> None:
    sidecar, _ = await start(world, echo.port)
    short_lived = calling(await world.source(PLANNER, ttl_s=3), WRITER)
    async with opening(sidecar, short_lived) as client:
        assert await close_of(client) == (1001, "svid_expired")
    assert (await ended(sidecar))["reason"] == "svid_expired"


async def reload(sidecar: Sidecar, change: Callable[[dict[str, Any]], None], *, platform: Path | None = None) -> None:
    from sidecar.assembly.setup import make_setup
    from sidecar.config import load_sidecar
    from sidecar.reload import prepare

    document = yaml.safe_load(sidecar.settings_path.read_text())
    change(document)
    sidecar.settings_path.write_text(yaml.safe_dump(document))
    fresh = load_sidecar(sidecar.settings_path, {}, platform)
    parts = sidecar.server.parts
    before = parts.snapshots.setup
    (await prepare(sidecar.server, make_setup(fresh, before.keys, before.exchanges, parts.log.metrics))).commit()


def deny(subject: str, document: dict[str, Any]) -> None:
    document["deny"] = [{"subject": subject}]


DENIED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "its subject is denied": (partial(deny, "alice"), "policy_denied"),
    "its route is gone": (
        lambda d: d["inbound"]["routes"][0].update(match={"path": "/x", "methods": ["GET"]}),
        "no_route",
    ),
    "its peer may no longer call": (lambda d: d["inbound"]["routes"][0].update(peers=[]), "policy_denied"),
    "more is needed": (
        lambda d: d["inbound"]["routes"][0].update(scopes=["docs.write", "crm.read"]),
        "insufficient_scope",
    ),
}


@pytest.mark.parametrize(("change", "reason"), DENIED.values(), ids=DENIED.keys())
async def test_it_ends_when_it_would_no_longer_be_permitted(
    world: World, echo: EchoServer, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    sidecar, tls = await start(world, echo.port)
    async with opening(sidecar, tls, mint({"scope": "docs.write"})) as client:
        await reload(sidecar, change)
        assert await close_of(client) == (1001, reason)
    assert (await ended(sidecar))["reason"] == reason


async def test_it_ends_when_its_tokens_key_is_gone(world: World, echo: EchoServer) -> None:
    from tests.fakes.tokens import private_key, public_jwk

    made = settings(world, echo.port)
    made["issuers"][0]["refresh_s"] = 1
    sidecar = await world.sidecar(WRITER, made)
    tls = calling(await world.source(PLANNER), WRITER)
    async with opening(sidecar, tls) as client:
        world.keys["keys"] = [public_jwk(private_key("ES256", 1), kid="k1", use="sig", alg="ES256")]
        assert await close_of(client) == (1001, "unknown_key")
    assert (await ended(sidecar))["reason"] == "unknown_key"


async def test_it_ends_at_once_when_the_trust_in_its_peer_does(world: World, echo: EchoServer) -> None:
    world.agent.port = echo.port
    sidecar = await partners(world)
    planner, helper = [calling(await world.source(who), WRITER) for who in (PLANNER, HELPER)]
    by_helper = mint({"act": {"sub": HELPER}})
    async with (
        opening(sidecar, helper, by_helper, path="/draft") as client,
        opening(sidecar, planner, path="/draft") as other,
    ):
        distrust_partner(sidecar)
        assert await close_of(client) == (1001, "unknown_trust_domain")
        await other.send("still here")
        assert await hear(other) == "still here"
    reasons = {record["peer"]: record["reason"] for record in await sidecar.wait_for_records(2)}
    assert reasons == {HELPER: "unknown_trust_domain", PLANNER: "ok"}


async def test_reloads_and_renewals_do_not_touch_it(world: World, echo: EchoServer) -> None:
    sidecar, tls = await start(world, echo.port)
    rotated: asyncio.Queue[object] = asyncio.Queue()
    sidecar.server.parts.source.subscribe(rotated.put_nowait)
    async with opening(sidecar, tls) as client:
        for number in range(5):
            await reload(sidecar, partial(deny, f"mallory-{number}"))
            sidecar.api.registry.rotate()
            async with asyncio.timeout(PATIENCE_S):
                await rotated.get()
            list(sidecar.server.parts.watch.steps(1))
            await client.send(f"still {number}")
            assert await hear(client) == f"still {number}"
    assert (await ended(sidecar))["reason"] == "ok"


async def test_a_stopping_sidecar_tells_it_and_ends_in_time(world: World, echo: EchoServer) -> None:
    sidecar, tls = await start(world, echo.port, drain_s=8.0)
    async with opening(sidecar, tls) as client:
        began = time.monotonic()
        sidecar.stop.set()
        assert await close_of(client) == (1001, "draining")
        assert await asyncio.wait_for(sidecar.running, PATIENCE_S) is True
        assert time.monotonic() - began < 4.0  # there was nothing else to wait for
    assert await echo.closed() == (1001, "draining")
    assert (await ended(sidecar))["reason"] == "draining"


async def test_a_caller_that_vanishes_ends_the_agents_end(world: World, echo: EchoServer) -> None:
    sidecar, tls = await start(world, echo.port)
    client = await opening(sidecar, tls)
    client.transport.abort()
    assert (await echo.closed())[0] == 1006
    assert (await ended(sidecar))["reason"] == "peer_gone"
    await until(lambda: not sidecar.server.parts.pools[0].connections)
    assert len(sidecar.server.parts.watch) == 0
