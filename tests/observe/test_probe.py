from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from sidecar.observe.metrics import Metrics
from sidecar.observe.probe import MAX_CONNECTIONS, OneProcess, Probe, Scrapes, probe_app

pytestmark = pytest.mark.integration


class Watched:
    def __init__(self) -> None:
        self.missing: list[str] = []
        self.probe = Probe(probe_app(OneProcess(Metrics(), lambda: self.missing)), "127.0.0.1", 0)

    async def get(self, path: str) -> tuple[int, str]:
        host, port = self.probe.address
        async with (
            aiohttp.ClientSession(trust_env=False) as session,
            session.get(f"http://{host}:{port}{path}") as answer,
        ):
            return answer.status, await answer.text()


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    watched = Watched()
    await watched.probe.open()
    yield watched
    await watched.probe.close()


async def test_readiness_says_what_is_missing_and_liveness_does_not_care(watched: Watched) -> None:
    watched.missing = ["identity: starting", "keys of https://sts.acme.example"]
    assert await watched.get("/readyz") == (503, "identity: starting\nkeys of https://sts.acme.example\n")
    assert await watched.get("/livez") == (200, "live\n")
    watched.missing = []
    assert await watched.get("/readyz") == (200, "ready\n")


async def test_metrics_are_served_and_nothing_else_is(watched: Watched) -> None:
    status, text = await watched.get("/metrics")
    assert status == 200
    assert "sidecar_requests_in_flight 0.0" in text
    assert (await watched.get("/status"))[0] == 404
    assert (await watched.get("/"))[0] == 404


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET /livez HTTP/1.1\r\nHost: x\r\nX: ", id="half-a-head"),
    ],
)
async def test_however_many_connect_a_few_are_kept_and_an_honest_one_is_answered(sent: bytes, watched: Watched) -> None:
    connections = []
    for _ in range(2 * MAX_CONNECTIONS):
        reader, writer = await asyncio.open_connection(*watched.probe.address, limit=1)
        writer.write(sent)
        connections.append((reader, writer))
    assert await watched.get("/readyz") == (200, "ready\n")
    cut = [asyncio.create_task(_is_cut(reader)) for reader, _ in connections[:MAX_CONNECTIONS]]
    assert all(await asyncio.gather(*cut))
    for _, writer in connections:
        writer.close()


async def test_below_the_limit_nobody_is_cut(watched: Watched) -> None:
    connections = [await asyncio.open_connection(*watched.probe.address) for _ in range(MAX_CONNECTIONS)]
    for reader, writer in connections:
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await reader.readuntil(b"\r\n") == b"HTTP/1.1 200 OK\r\n"
    for _, writer in connections:
        writer.close()


async def _is_cut(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(5):
            while await reader.read(65536):
                pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


async def test_whoever_reads_no_answer_keeps_nobody_from_ending(watched: Watched) -> None:
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(deaf, watched.probe.address)
        await loop.sock_sendall(deaf, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 400)
        await watched.get("/readyz")
        async with asyncio.timeout(5):
            await watched.probe.close()


async def test_however_often_metrics_are_asked_for_they_are_rendered_a_tenth_of_the_time() -> None:
    busy_s = 0.0

    async def render() -> bytes:
        nonlocal busy_s
        until = time.perf_counter() + 0.005
        while time.perf_counter() < until:
            pass
        busy_s += 0.005
        return b"%f" % busy_s

    scrapes = Scrapes(render)
    began_at = time.perf_counter()
    for _ in range(5):
        first, *others = await asyncio.gather(*(scrapes.text() for _ in range(50)))
        assert {first} == set(others)
        assert float(first) == pytest.approx(busy_s)  # nobody is told what was so before
    assert busy_s <= 0.15 * (time.perf_counter() - began_at) + 0.005


async def test_metrics_that_cannot_be_rendered_once_are_rendered_again() -> None:
    outcomes: list[bytes | Exception] = [ValueError("a bug"), b"fine"]

    async def render() -> bytes:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    scrapes = Scrapes(render)
    with pytest.raises(ValueError, match="a bug"):
        await scrapes.text()
    assert await scrapes.text() == b"fine"
