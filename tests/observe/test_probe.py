from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from sidecar.observe.metrics import Metrics
from sidecar.observe.probe import OneProcess, Probe, probe_app

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
