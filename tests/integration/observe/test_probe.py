from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from sidecar.observe.metrics import Metrics
from sidecar.observe.probe import OneProcess, Scrapes, probe_app
from sidecar.serving.probe import Probe

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
