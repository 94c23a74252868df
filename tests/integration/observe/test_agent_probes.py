"""The agent's own probes through the probe listener: the same status, and nothing else of the agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from sidecar.observe.agent_probes import AgentProbes
from sidecar.observe.metrics import Metrics
from sidecar.observe.probe import OneProcess, probe_pages
from sidecar.serving.page_site import PageSite
from sidecar.serving.probe import Probe
from tests.fakes.conversations import listening

pytestmark = pytest.mark.integration


class Beside:
    """An agent on loopback and the probe listener beside it."""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[str] = []
        self.was_asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def open(self, *, timeout_s: float = 5.0) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        port = self._runner.addresses[0][1]
        agent = AgentProbes("127.0.0.1", port, ["/healthz"], timeout_s=timeout_s)
        self.probe = Probe(PageSite(probe_pages(OneProcess(Metrics(), list), agent)), "127.0.0.1", 0)
        await self.probe.open()

    async def close(self) -> None:
        self.may_answer.set()
        await self.probe.close()
        await self.stop_agent()

    async def stop_agent(self) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.Response:
        self.asked.append(
            f"{request.method} {request.raw_path} {sorted(set(request.headers) & {'Authorization', 'X'})}"
        )
        self.was_asked.set()
        await self.may_answer.wait()
        return web.Response(status=self.status, text="secret", headers={"X": "secret", "Location": "http://192.0.2.1/"})

    async def ask(self, path: str, method: str = "GET") -> tuple[int, str, bool]:
        host, port = self.probe.address
        async with (
            aiohttp.ClientSession(trust_env=False) as session,
            session.request(
                method,
                URL(f"http://{host}:{port}{path}", encoded=True),
                headers={"Authorization": "Bearer x", "X": "y"},
                allow_redirects=False,
            ) as answer,
        ):
            return answer.status, await answer.text(), "X" in answer.headers


@pytest.fixture
async def beside() -> AsyncIterator[Beside]:
    beside = Beside()
    await beside.open()
    yield beside
    await beside.close()


@pytest.mark.parametrize("status", [200, 204, 302, 404, 500, 503])
async def test_the_agents_status_comes_back_and_nothing_else(beside: Beside, status: int) -> None:
    beside.status = status
    assert await beside.ask("/healthz") == (status, "", False)
    assert beside.asked == ["GET /healthz []"]


@pytest.mark.parametrize(
    "path", ["/healthz?x=1", "/healthz/", "/other", "/", "//healthz", "/%68ealthz", "/healthz/../admin", "/HEALTHZ"]
)
async def test_another_path_or_spelling_never_reaches_the_agent(beside: Beside, path: str) -> None:
    assert (await beside.ask(path))[0] == 404
    assert beside.asked == []


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
async def test_another_method_never_reaches_the_agent(beside: Beside, method: str) -> None:
    assert (await beside.ask("/healthz", method))[0] == 405
    assert beside.asked == []


async def test_the_sidecars_own_paths_are_not_the_agents(beside: Beside) -> None:
    assert await beside.ask("/livez") == (200, "live\n", False)
    assert beside.asked == []


async def test_an_agent_that_is_gone_is_503(beside: Beside) -> None:
    await beside.stop_agent()
    assert (await beside.ask("/healthz"))[0] == 503


async def test_an_agent_that_does_not_answer_in_time_is_503() -> None:
    beside = Beside()
    await beside.open(timeout_s=0.05)
    beside.may_answer.clear()
    try:
        assert (await beside.ask("/healthz"))[0] == 503
    finally:
        await beside.close()


async def test_an_agent_whose_head_drips_is_503_in_the_same_time() -> None:
    """No silence of it is long."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.02)

    async with listening(drip) as port, asyncio.timeout(5):
        assert await AgentProbes("127.0.0.1", port, ["/healthz"], timeout_s=0.2).status("/healthz") == 503


async def test_who_asks_at_one_time_shares_one_answer(beside: Beside) -> None:
    beside.may_answer.clear()
    asking = [asyncio.ensure_future(beside.ask("/healthz")) for _ in range(20)]
    await beside.was_asked.wait()
    beside.may_answer.set()
    assert {status for status, _, _ in await asyncio.gather(*asking)} == {200}
    assert len(beside.asked) < 20
