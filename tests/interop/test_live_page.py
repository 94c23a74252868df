"""``sidecar status --web`` in a real Chromium: the link opens it once, it reloads itself, no other page reads it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from aiohttp import web

from tests.interop.browser import beyond, shoot, stops, tree, violations, visit, walk
from tests.status.documents import NOW, status
from tests.status.socket import serving

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [pytest.mark.interop, pytest.mark.asyncio(loop_scope="session")]

AGENT: Final = "spiffe://acme.example/agent/"
ELSEWHERE: Final = ("network_namespace", "another-boot net:[1]")  # the agent cannot reach this process
PATIENCE_S: Final = 30

Answers = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture
def socket() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:  # short, as a socket's path has to be
        yield Path(folder) / "admin.sock"


@pytest.fixture
def answers(socket: Path) -> Iterator[Answers]:
    """Serve an admin socket; return its two documents, which a test may change."""
    row = {
        "request_id": "q1", "direction": "inbound", "since": NOW - 3, "verified": True, "peer": f"{AGENT}planner",
        "subject": "alice", "actor": f"{AGENT}planner", "chain": [f"{AGENT}planner", f"{AGENT}front"], "route": "draft",
    }  # fmt: skip
    document = status(ELSEWHERE, ("refused", {"no_token": 3}), ("agent.up", False))
    chains: dict[str, Any] = {"being_served": 1, "chains": [row]}
    with serving(socket, document, chains):
        yield document, chains


@asynccontextmanager
async def linked(socket: Path) -> AsyncIterator[str]:
    """Run the command; return the link that it prints."""
    command = (sys.executable, "-m", "sidecar", "status", "--web", "--socket", str(socket))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        words = (await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)).decode().split()
        assert words[:1] == ["open"]
        yield words[1]
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0


async def test_the_link_opens_the_page_once_and_the_cookie_keeps_it(
    browser: Browser, socket: Path, answers: Answers
) -> None:
    async with linked(socket) as link, visit(browser) as one:
        opened = await one.page.goto(link)
        assert opened is not None
        assert opened.status == 200
        assert "ticket" not in one.page.url
        assert f"Ready: {AGENT}writer" in await one.page.inner_text("h1")
        reloaded = await one.page.reload()
        assert reloaded is not None
        assert reloaded.status == 200
        async with visit(browser) as other:
            for url in (link, link.partition("?")[0]):
                refused = await other.page.goto(url)
                assert refused is not None
                assert refused.status == 403
        assert one.complaints == []


async def test_the_page_reloads_by_itself_until_it_is_paused(browser: Browser, socket: Path, answers: Answers) -> None:
    document, chains = answers
    async with linked(socket) as link, visit(browser, link) as one:
        chains |= {"being_served": 0, "chains": []}
        await one.page.get_by_text("No request is being served.").wait_for()
        await one.page.get_by_role("link", name="Pause").click()
        await one.page.get_by_role("link", name="Resume").wait_for()
        assert await one.page.locator("meta[http-equiv=refresh]").count() == 0
        document["ready"] = False
        assert (await one.page.inner_text("h1")).startswith("Ready")
        await one.page.get_by_role("link", name="Resume").click()
        await one.page.get_by_text("Not ready").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
async def test_a_paused_page_is_accessible(
    browser: Browser, socket: Path, answers: Answers, scheme: str, width: int
) -> None:
    size = {"width": width, "height": 800}
    async with linked(socket) as link, visit(browser, f"{link}&paused", color_scheme=scheme, viewport=size) as one:
        await shoot(one.page, f"live-{scheme}-{width}")
        assert await violations(one.page) == []
        assert await one.page.evaluate("document.documentElement.scrollWidth") == width
        assert await walk(one.page) == list(range(await stops(one.page)))
        names = [name for role, name in await tree(one.page) if role == "heading"]
        assert names == [f"Ready: {AGENT}writer", "Problems and fixes", "In flight: 1", "alice", "State",
                         "Refused since the start"]  # fmt: skip
        await one.page.emulate_media(media="print")
        await one.page.set_viewport_size({"width": 1032, "height": 700})
        assert await beyond(one.page) == []


ATTACK: Final = """async url => {
    const outcome = {}
    for (const mode of ['cors', 'no-cors'])
        outcome[mode] = await fetch(url, {mode, credentials: 'include'}).then(got => got.text(), () => 'refused')
    const frame = document.body.appendChild(document.createElement('iframe'))
    await new Promise(done => { frame.onload = done; frame.src = url })
    try { outcome.frame = frame.contentDocument.body.innerText } catch { outcome.frame = 'refused' }
    return outcome
}"""


@asynccontextmanager
async def another_server(seen: list[str | None]) -> AsyncIterator[int]:
    """Serve a page on another port of loopback; remember the cookies that it is sent."""

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(request.headers.get("Cookie"))
        return web.Response(text="<p>open to all</p>", content_type="text/html")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])  # the same site, and another one
async def test_another_page_on_loopback_neither_reads_nor_frames_it(
    browser: Browser, socket: Path, answers: Answers, host: str
) -> None:
    seen: list[str | None] = []
    async with another_server(seen) as port, linked(socket) as link, visit(browser, f"{link}&paused") as one:
        own, page = one.page.url, await one.context.new_page()
        await page.goto(f"http://{host}:{port}/")
        outcome = await page.evaluate(ATTACK, own)  # it knows even the path
        assert outcome == {"cors": "refused", "no-cors": "refused", "frame": "refused"}
        assert not [frame for frame in page.frames if "Ready" in await frame.inner_text("body")]
        assert set(seen) == {None}

        open_to_all = await page.evaluate(
            ATTACK, f"http://{host}:{port}/"
        )  # the attack works where nothing prevents it
        assert set(open_to_all.values()) == {"<p>open to all</p>", "open to all"}
        still = await one.page.reload()
        assert still is not None
        assert still.status == 200
