"""The front app of docs/front-apps.md: the page shows the program that runs here, unchanged for both adapters."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.integration.login_world import LoginWorld, in_browser, open_login_world
from tests.integration.world import START_S, free_port, ok

pytestmark = pytest.mark.integration

PROGRAM = Path(__file__).with_name("front_app.py")
PAGE = Path(__file__).parents[2] / "docs" / "front-apps.md"


def test_the_page_shows_the_program_that_is_tested() -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert shown == PROGRAM.read_text()


@asynccontextmanager
async def app_of(logins: LoginWorld) -> AsyncIterator[str]:
    """Run the app beside the front's sidecar, and return its address."""
    port = free_port()
    environ = {
        **os.environ,
        "PORT": str(port),
        "SIDECAR_OUTBOUND_URL": f"http://127.0.0.1:{logins.front.outbound}",
        "ROUTE": "planner",
        "TARGET": "/planner/plan",
    }
    logins.world.agent.script = lambda _head, _body: ok(b"42 customers")
    process = await asyncio.create_subprocess_exec(sys.executable, str(PROGRAM), env=environ)
    try:
        async with asyncio.timeout(START_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


class Browser:
    """A browser at the app: it keeps the cookie although the test has no TLS, and follows no redirect by itself."""

    def __init__(self, app: str, client: aiohttp.ClientSession) -> None:
        self.app = app
        self.client = client
        self.cookie = ""

    async def get(self, path: str) -> tuple[int, str, str]:
        headers = {"Cookie": self.cookie} if self.cookie else {}
        async with self.client.get(self.app + path, headers=headers, allow_redirects=False) as answer:
            if "set-cookie" in answer.headers:
                self.cookie = answer.headers["set-cookie"].partition(";")[0]
                assert answer.headers["set-cookie"].endswith("; Path=/; Secure; HttpOnly; SameSite=Lax")
            return answer.status, answer.headers.get("location", ""), await answer.text()


@pytest.fixture
async def logins() -> AsyncIterator[LoginWorld]:
    async with open_login_world() as opened:
        yield opened


async def test_a_user_logs_in_through_the_browser_and_sees_what_the_agent_found(logins: LoginWorld) -> None:
    await logins.start(logins.settings(redirect_uris=["https://app.acme.example/callback"]))
    async with app_of(logins) as app, aiohttp.ClientSession() as client:
        alice = Browser(app, client)
        assert await alice.get("/") == (302, "/login", "")
        _, url, _ = await alice.get("/login")
        before = alice.cookie
        callback = await in_browser(url)
        assert (await alice.get(f"/callback?{callback}"))[:2] == (302, "/")
        assert alice.cookie != before
        assert await alice.get("/") == (200, "", "42 customers")
        again = await alice.get(f"/callback?{callback}")
        assert again == (302, "/login", "")


async def test_a_link_that_somebody_else_sends_logs_nobody_in(logins: LoginWorld) -> None:
    await logins.start(logins.settings())
    async with app_of(logins) as app, aiohttp.ClientSession() as client:
        alice, mallory = Browser(app, client), Browser(app, client)
        _, hers, _ = await alice.get("/login")
        _, his, _ = await mallory.get("/login")
        forged = await in_browser(his, "mallory")
        assert await alice.get(f"/callback?{forged}") == (403, "", "Refused: login_state_mismatch")
        assert (await alice.get(f"/callback?{await in_browser(hers)}"))[:2] == (302, "/")


async def test_the_same_app_waits_for_a_user_who_is_asked_elsewhere(logins: LoginWorld) -> None:
    await logins.start(logins.settings(adapter="agent-grant-draft"))
    async with app_of(logins) as app, aiohttp.ClientSession() as client:
        alice = Browser(app, client)
        assert (await alice.get("/login"))[:2] == (302, "/wait")
        assert await alice.get("/wait") == (200, "", "Waiting for your answer")
        logins.server.answer("alice")
        async with asyncio.timeout(20):
            while (await alice.get("/wait"))[:2] != (302, "/"):  # noqa: ASYNC110 - as the page reloads itself
                await asyncio.sleep(0.3)
        assert await alice.get("/") == (200, "", "42 customers")
