"""WebSockets that the agent opens to a next hop, over mTLS, with the ``websockets`` library at both ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import InvalidStatus

from sidecar.identity.tls import server_context
from tests.integration.hops import Headers, Hops
from tests.integration.test_websocket import EchoServer, close_of, deny, hear, reload
from tests.integration.world import CRM, until

pytestmark = pytest.mark.integration


@pytest.fixture
async def crm(hops: Hops) -> AsyncIterator[EchoServer]:
    """Run the next hop with WebSocket, and the identity that the route pins."""
    server = EchoServer()
    tls = server_context(await hops.world.source(CRM))
    async with serve(server.talk, "127.0.0.1", 0, ssl=tls, ping_interval=None) as listening:
        server.port = next(iter(listening.sockets)).getsockname()[1]
        hops.ports["crm"] = server.port
        await hops.start()
        yield server


def opening(hops: Hops, shown: Sequence[tuple[str, str]], target: str = "/crm/chat") -> connect:
    url = f"ws://127.0.0.1:{hops.writer.outbound}{target}"
    return connect(url, additional_headers=list(shown), proxy=None, ping_interval=None)


async def record_of(hops: Hops) -> dict[str, Any]:
    (record,) = await hops.outbound_records(1)
    return record


async def test_an_agent_talks_to_a_next_hop_with_a_token_issued_for_it(hops: Hops, crm: EchoServer) -> None:
    async with hops.serving() as held, opening(hops, held.shown) as client:
        for message in ("hello", b"x" * 100_000):
            await client.send(message)
            assert await hear(client) == message
        (headers,) = crm.headers
        assert headers["authorization"] != dict(held.shown)["authorization"]
        assert headers["authorization"].startswith("Bearer ey")
        assert len(headers["delegation-call"]) == 32
    record = await record_of(hops)
    assert (record["decision"], record["reason"], record["status"], record["peer"]) == ("allow", "ok", 101, CRM)
    assert record["call_out"] == headers["delegation-call"]


REFUSED: dict[str, tuple[Headers, str, int, str]] = {
    "no handle": ([], "/crm/chat", 403, "no_request_context"),
    "an unknown handle": ([("authorization", "Bearer " + "A" * 43)], "/crm/chat", 403, "no_request_context"),
    "a target without a route": ([], "/other/chat", 403, "target_denied"),
}


@pytest.mark.parametrize(("shown", "target", "status", "reason"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_handshake_is_refused_like_any_call(
    hops: Hops, crm: EchoServer, shown: Headers, target: str, status: int, reason: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with opening(hops, shown, target):
            pass
    answer = refused.value.response
    assert (answer.status_code, answer.headers["delegation-reason"]) == (status, reason)
    assert crm.headers == []


async def test_a_route_that_the_request_may_not_use_is_refused(hops: Hops, crm: EchoServer) -> None:
    async with hops.serving() as held:
        with pytest.raises(InvalidStatus) as refused:
            async with opening(hops, held.shown, "/mail/chat"):
                pass
    assert refused.value.response.headers["delegation-reason"] == "call_not_allowed"


async def test_a_call_in_flight_outlives_its_request_and_a_new_one_is_refused(hops: Hops, crm: EchoServer) -> None:
    async with hops.serving() as held:
        client = await opening(hops, held.shown)
    await client.send("still here")
    assert await hear(client) == "still here"
    with pytest.raises(InvalidStatus) as refused:
        async with opening(hops, held.shown):
            pass
    assert refused.value.response.headers["delegation-reason"] == "no_request_context"
    await client.close()


async def test_it_ends_with_its_token(hops: Hops, crm: EchoServer) -> None:
    async with (
        hops.serving({"exp": int(time.time()) + 3}) as held,
        opening(hops, held.shown) as client,
    ):
        assert await close_of(client) == (1001, "token_expired")
    assert await crm.closed() == (1001, "token_expired")
    assert (await record_of(hops))["reason"] == "token_expired"


async def test_it_ends_with_the_next_hops_certificate(hops: Hops) -> None:
    server = EchoServer()
    tls = server_context(await hops.world.source(CRM, ttl_s=4))
    async with serve(server.talk, "127.0.0.1", 0, ssl=tls, ping_interval=None) as listening:
        hops.ports["crm"] = next(iter(listening.sockets)).getsockname()[1]
        await hops.start()
        async with hops.serving() as held, opening(hops, held.shown) as client:
            assert await close_of(client) == (1001, "svid_expired")
    assert (await record_of(hops))["reason"] == "svid_expired"


async def test_it_ends_when_its_subject_is_denied_and_not_when_another_is(hops: Hops, crm: EchoServer) -> None:
    async with hops.serving() as held, opening(hops, held.shown) as client:
        await reload(hops.writer, lambda document: deny("mallory", document))
        list(hops.writer.server.parts.watch.steps(9))
        await client.send("still here")
        assert await hear(client) == "still here"
        await reload(hops.writer, lambda document: deny("alice", document))
        assert await close_of(client) == (1001, "policy_denied")
    assert (await record_of(hops))["reason"] == "policy_denied"


async def test_a_stopping_sidecar_tells_both_ends(hops: Hops) -> None:
    server = EchoServer()
    tls = server_context(await hops.world.source(CRM))
    async with serve(server.talk, "127.0.0.1", 0, ssl=tls, ping_interval=None) as listening:
        hops.ports["crm"] = next(iter(listening.sockets)).getsockname()[1]
        await hops.start(drain_s=6.0)
        async with hops.serving() as held:
            client = await opening(hops, held.shown)
        hops.writer.stop.set()
        assert await close_of(client) == (1001, "draining")
        assert await server.closed() == (1001, "draining")
        assert await asyncio.wait_for(hops.writer.running, 10) is True


async def test_its_upstream_connection_is_not_kept(hops: Hops, crm: EchoServer) -> None:
    async with hops.serving() as held, opening(hops, held.shown) as client:
        await client.send("x")
        await hear(client)
    assert client.close_code == 1000
    await until(lambda: len(hops.writer.server.parts.pools[1].connections) == 0)
