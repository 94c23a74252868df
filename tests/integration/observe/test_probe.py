from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from sidecar.observe.metrics import Metrics
from sidecar.observe.pages import Page, Pages
from sidecar.observe.probe import OneProcess, Scrapes, probe_pages
from sidecar.serving.page_site import PageSite
from sidecar.serving.probe import Probe

pytestmark = pytest.mark.integration


class Watched:
    def __init__(self) -> None:
        self.missing: list[str] = []
        self.probe = Probe(PageSite(probe_pages(OneProcess(Metrics(), lambda: self.missing))), "127.0.0.1", 0)

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
    ("request_line", "status"),
    [
        (b"HEAD /livez HTTP/1.1", b"200"),
        (b"GET /livez?verbose HTTP/1.1", b"200"),
        (b"POST /livez HTTP/1.1", b"405"),
        (b"GET /livez/ HTTP/1.1", b"404"),
        (b"GET http://x/livez HTTP/1.1", b"400"),
        (b"CONNECT /livez HTTP/1.1", b"405"),
        (b"GET /livez HTTP/2.0", b"400"),
        (b"nonsense", b"400"),
    ],
)
async def test_only_reading_of_listed_paths_is_served(watched: Watched, request_line: bytes, status: bytes) -> None:
    reader, writer = await asyncio.open_connection(*watched.probe.address)
    writer.write(request_line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.split(b" ")[1] == status
    assert b"aiohttp" not in answer
    writer.close()


async def test_a_page_that_fails_is_500_and_the_next_one_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outcomes: list[Exception | None] = [ValueError("a bug"), None]

    async def make() -> Page:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return Page(b"fine")

    pages = Pages()
    pages.add("/page", make)
    probe = Probe(PageSite(pages), "127.0.0.1", 0)
    await probe.open()
    try:
        reader, writer = await asyncio.open_connection(*probe.address)
        writer.write(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        assert (await reader.readuntil(b"500: Internal Server Error")).startswith(b"HTTP/1.1 500 ")
        assert (await reader.readuntil(b"fine")).startswith(b"HTTP/1.1 200 ")
        writer.close()
    finally:
        await probe.close()
    assert "answering a request for a page failed" in caplog.text


@pytest.mark.budget
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
        assert float(first) == pytest.approx(busy_s)  # the answer is never stale
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
