"""Server-sent events and other long answers through a sidecar: aiohttp calls through mTLS, and answers behind it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from sidecar.observe.scrape import render
from tests.integration.test_websocket import deny, reload, settings, start
from tests.integration.world import PATIENCE_S, PLANNER, WRITER, Sidecar, World, bearer, calling, mint, until

pytestmark = pytest.mark.integration


class Feed:
    """A server whose events the test controls; None ends an answer. POSTs get ``posted``."""

    def __init__(self) -> None:
        self.port = 0
        self.said: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.posted: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.requests: list[web.Request] = []
        self.left: asyncio.Queue[str] = asyncio.Queue()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        kind = request.query.get("type", "text/event-stream")
        answer = web.StreamResponse(headers={"content-type": kind, "cache-control": "no-store", "x-of": "agent"})
        if request.query.get("gzip"):
            answer.headers["content-encoding"] = "gzip"
        await answer.prepare(request)
        try:
            said = self.posted if request.method == "POST" else self.said
            while (event := await said.get()) is not None:
                await answer.write(event)
        except (ConnectionError, asyncio.CancelledError):
            self.left.put_nowait("left")
            raise
        return answer


@pytest.fixture
async def feed() -> AsyncIterator[Feed]:
    made = Feed()
    app = web.Application()
    app.router.add_route("*", "/events", made.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    made.said.put_nowait(None)
    await runner.cleanup()


@asynccontextmanager
async def listening(
    sidecar: Sidecar,
    tls: ssl.SSLContext,
    *,
    token: str | None = None,
    method: str = "GET",
    query: str = "",
    **fields: str,
) -> AsyncIterator[aiohttp.ClientResponse]:
    headers = {**dict(bearer(token or mint())), **fields}
    url = f"https://127.0.0.1:{sidecar.inbound}/events{query}"
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.request(method, url, ssl=tls, server_hostname="sidecar", headers=headers) as answer,
    ):
        assert answer.status == 200
        yield answer


async def hear(answer: aiohttp.ClientResponse) -> bytes:
    """Return the next bytes; none at the well-formed end. Raises ClientPayloadError if the answer is truncated."""
    async with asyncio.timeout(PATIENCE_S):
        return await answer.content.readany()


async def reason(sidecar: Sidecar, decision: str = "allow") -> str:
    (record,) = await sidecar.wait_for_records(1)
    assert (record["decision"], record["status"]) == (decision, 200)
    text: str = record["reason"]
    return text


async def test_events_pass_one_by_one_byte_for_byte_and_are_on_record_at_once(world: World, feed: Feed) -> None:
    sidecar, tls = await start(world, feed.port)
    events = [b": hello\n\n", b"id: 7\r\nevent: a\r\ndata: \xc3\xa9\r\n\r\n", b"data: half", b" and half\n\n", b"\n"]
    async with listening(sidecar, tls, **{"last-event-id": "6", "cache-control": "no-cache"}) as answer:
        assert (answer.headers["content-type"], answer.headers["x-of"]) == ("text/event-stream", "agent")
        (asked,) = feed.requests
        assert (asked.headers["last-event-id"], asked.headers["cache-control"]) == ("6", "no-cache")
        for event in events:
            feed.said.put_nowait(event)
            assert await hear(answer) == event
        assert len(await sidecar.wait_for_records(1, "request.opened")) == 1
        assert sidecar.records() == []
        feed.said.put_nowait(None)
        assert await hear(answer) == b""
    assert await reason(sidecar) == "ok"


async def test_compressed_events_are_not_unpacked(world: World, feed: Feed) -> None:
    sidecar, tls = await start(world, feed.port)
    packed = gzip.compress(b"data: x\n\n")
    async with listening(sidecar, tls, query="?gzip=1", **{"accept-encoding": "gzip"}) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        assert feed.requests[0].headers["accept-encoding"] == "gzip"
        feed.said.put_nowait(packed)
        assert await hear(answer) == packed


# --- ends


def soon() -> str:
    return mint({"exp": int(time.time()) + 2})


async def test_a_get_of_events_ends_well_formed_with_its_token(world: World, feed: Feed) -> None:
    sidecar, tls = await start(world, feed.port)
    async with listening(sidecar, tls, token=soon()) as answer:
        feed.said.put_nowait(b"data: 1\n\n")
        assert await hear(answer) == b"data: 1\n\n"
        assert await hear(answer) == b""
    async with asyncio.timeout(PATIENCE_S):
        await feed.left.get()
    assert await reason(sidecar) == "token_expired"


@pytest.mark.parametrize(
    ("max_age_s", "ends"), [(4, "step_up_required"), (600, "token_expired")], ids=["too old", "young enough"]
)
async def test_a_get_of_events_ends_when_its_users_login_is_too_old(
    world: World, feed: Feed, max_age_s: int, ends: str
) -> None:
    made = settings(world, feed.port)
    made["inbound"]["routes"][0]["human"] = {"max_age_s": max_age_s}
    sidecar, tls = await world.sidecar(WRITER, made), calling(await world.source(PLANNER), WRITER)
    now = int(time.time())
    async with listening(sidecar, tls, token=mint({"auth_time": now - 2, "exp": now + 6})) as answer:
        assert await hear(answer) == b""
    assert await reason(sidecar) == ends


LONG = {
    "a POST answered by events": ("POST", "", "event"),
    "a GET answered by something else": ("GET", "?type=application/x-ndjson", "{}"),
}


@pytest.mark.parametrize(("method", "query", "piece"), LONG.values(), ids=LONG.keys())
async def test_another_answer_may_outlive_its_token(
    world: World, feed: Feed, method: str, query: str, piece: str
) -> None:
    sidecar, tls = await start(world, feed.port)
    expires_at = int(time.time()) + 1
    async with listening(sidecar, tls, token=mint({"exp": expires_at}), method=method, query=query) as answer:
        await until(lambda: time.time() > expires_at + 0.6)  # two checks at least
        said = feed.posted if method == "POST" else feed.said
        said.put_nowait(piece.encode())
        assert await hear(answer) == piece.encode()
        said.put_nowait(None)
        assert await hear(answer) == b""
    assert await reason(sidecar) == "ok"


async def test_but_not_for_longer_than_max_stream_s_and_then_it_is_truncated(world: World, feed: Feed) -> None:
    made = {**world.settings()["inbound"], "limits": {"max_stream_s": 1.5}}
    sidecar, tls = await start(world, feed.port, inbound={**made, "agent": f"http://127.0.0.1:{feed.port}"})
    async with listening(sidecar, tls, token=soon(), query="?type=text/plain") as answer:
        feed.said.put_nowait(b"1")
        assert await hear(answer) == b"1"
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, ConnectionError)):
            await hear(answer)
    assert await reason(sidecar) == "timeout"


async def test_a_bug_in_judging_a_stream_cuts_that_stream_and_the_sidecar_serves_on(
    world: World, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    sidecar, tls = await start(world, feed.port)
    async with listening(sidecar, tls) as answer:
        feed.said.put_nowait(b"data: 1\n\n")
        await hear(answer)
        assert sidecar.server.parts.watch.count() == {"inbound": 1, "outbound": 0}
        assert b'sidecar_streams{direction="inbound"} 1.0' in render(sidecar.server.metrics)
        monkeypatch.setattr("sidecar.proxy.journeys.forward.judge_request", broken)
        await reload(sidecar, lambda document: deny("mallory", document))
        with contextlib.suppress(aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, ConnectionError):
            assert await hear(answer) == b""
    assert await reason(sidecar) == "internal"
    monkeypatch.undo()
    assert b'sidecar_streams{direction="inbound"} 0.0' in render(sidecar.server.metrics)
    async with listening(sidecar, tls) as answer:
        feed.said.put_nowait(b"data: 2\n\n")
        assert await hear(answer) == b"data: 2\n\n"


async def test_a_get_of_events_ends_when_it_would_no_longer_be_permitted(world: World, feed: Feed) -> None:
    sidecar, tls = await start(world, feed.port)
    async with listening(sidecar, tls) as answer:
        feed.said.put_nowait(b"data: 1\n\n")
        await hear(answer)
        await reload(sidecar, lambda document: deny("mallory", document))
        list(sidecar.server.parts.watch.steps(1))
        feed.said.put_nowait(b"data: 2\n\n")
        assert await hear(answer) == b"data: 2\n\n"
        await reload(sidecar, lambda document: deny("alice", document))
        assert await hear(answer) == b""
    assert await reason(sidecar, "deny") == "policy_denied"


async def test_renewals_and_reloads_do_not_touch_it(world: World, feed: Feed) -> None:
    sidecar, tls = await start(world, feed.port)
    rotated: asyncio.Queue[object] = asyncio.Queue()
    sidecar.server.parts.source.subscribe(rotated.put_nowait)
    async with listening(sidecar, tls) as answer:
        for number in range(5):
            await reload(sidecar, lambda document: deny("mallory", document))
            sidecar.api.registry.rotate()
            async with asyncio.timeout(PATIENCE_S):
                await rotated.get()
            list(sidecar.server.parts.watch.steps(1))
            feed.said.put_nowait(b"data: %d\n\n" % number)
            assert await hear(answer) == b"data: %d\n\n" % number


async def test_a_stopping_sidecar_lets_ordinary_answers_finish_first(world: World, feed: Feed) -> None:
    sidecar, tls = await start(world, feed.port, drain_s=30.0)
    async with listening(sidecar, tls) as events, listening(sidecar, tls, method="POST") as ordinary:
        sidecar.stop.set()
        await until(lambda: sidecar.server.draining)
        list(sidecar.server.parts.watch.steps(sidecar.server.metrics.in_flight()))
        feed.said.put_nowait(b"data: 1\n\n")
        assert await hear(events) == b"data: 1\n\n"
        feed.posted.put_nowait(b"done")
        feed.posted.put_nowait(None)
        assert await hear(ordinary) == b"done"
        assert await hear(ordinary) == b""
        assert await hear(events) == b""
    assert await asyncio.wait_for(sidecar.running, PATIENCE_S) is True


async def test_a_stopping_sidecar_does_not_wait_for_ordinary_answers_longer_than_half_its_time(
    world: World, feed: Feed
) -> None:
    sidecar, tls = await start(world, feed.port, drain_s=3.0)
    async with listening(sidecar, tls, method="POST") as ordinary, listening(sidecar, tls) as events:
        began = time.monotonic()
        sidecar.stop.set()
        assert await hear(events) == b""
        assert time.monotonic() - began >= 1.5
        feed.posted.put_nowait(b"late")
        feed.posted.put_nowait(None)
        assert await hear(ordinary) == b"late"
        assert await hear(ordinary) == b""
        assert await asyncio.wait_for(sidecar.running, PATIENCE_S) is True
    reasons = {record["method"]: record["reason"] for record in sidecar.records()}
    assert reasons == {"GET": "draining", "POST": "ok"}
