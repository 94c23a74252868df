"""MCP Inspector's web page in a real Chromium, at an entry's door: its user logs in there, and calls a tool.

The page's own server speaks MCP with the door; the browser is sent to the issuer's login page and back.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import pytest

from tests.integration.door_world import IDE, DoorWorld
from tests.integration.world import free_port
from tests.interop import agents, browser
from tests.interop.engine import require
from tests.interop.test_door_clients import PATIENCE_S, serving

if TYPE_CHECKING:
    from playwright.async_api import Page, Route

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

ADDRESS: Final = re.compile(r"http://127\.0\.0\.1:\d+\S*MCP_INSPECTOR_API_TOKEN=\w+")
QUIET: Final = {"MCP_INSPECTOR_SECRET_STORE": "file", "MCP_AUTO_OPEN_ENABLED": "false"}  # no keychain, no other browser
WAIT_MS: Final = 30_000


@pytest.fixture(autouse=True)
def _programs() -> None:
    require(agents.missing() or browser.missing())


@asynccontextmanager
async def inspecting(door: DoorWorld, **servers: dict[str, Any]) -> AsyncIterator[Page]:
    """Open the Inspector's page with these servers, each a path of the door and what a client shows there."""
    home = Path(door.world.folder)
    listed = {
        name: {"type": "streamable-http", "url": door.resource + one["path"], **shown(one)}
        for name, one in servers.items()
    }
    (home / "servers.json").write_text(json.dumps({"mcpServers": listed}))
    ports = {name: str(free_port()) for name in ("CLIENT_PORT", "MCP_SANDBOX_PORT", "MCP_APP_ORIGIN_PORT")}
    environ = {**os.environ, **QUIET, **ports, "HOST": "127.0.0.1", "HOME": str(home)}
    environ["NODE_EXTRA_CA_CERTS"] = str(door.certificates.ca)
    words = [agents.node(), agents.inspector(), "--web", "--config", home / "servers.json"]
    inspector = await asyncio.create_subprocess_exec(
        *map(str, words), env=environ, stdout=PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    )
    try:
        address = await _address(inspector)
        async with browser.started() as chromium, browser.visit(chromium) as one:
            await one.context.route("**/*", _loopback_alone)
            one.page.set_default_timeout(WAIT_MS)
            await one.page.goto(address)
            yield one.page
    finally:
        if inspector.returncode is None:
            inspector.kill()
        await inspector.wait()


def shown(server: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in server.items() if name != "path"}


async def _address(inspector: Process) -> str:
    assert inspector.stdout is not None
    said = ""
    async with asyncio.timeout(PATIENCE_S):
        while (found := ADDRESS.search(said)) is None:
            read = await inspector.stdout.read(65536)
            assert read, said
            said += read.decode()
    return found[0]


async def _loopback_alone(route: Route) -> None:
    """Let the page ask this machine, and nobody else: it wants fonts of the web."""
    if urlsplit(route.request.url).hostname in ("127.0.0.1", "localhost"):
        await route.continue_()
    else:
        await route.abort()


async def connect(page: Page, server: str) -> None:
    await page.get_by_role("switch", name=f'Connect or disconnect "{server}"').click(force=True)


async def call(page: Page, number: str) -> None:
    """Open the one tool, and call it."""
    await page.get_by_text("Tools", exact=True).first.click()
    await page.get_by_text("Tools (1)").wait_for()  # the door lists no tool that the user may not call
    await page.get_by_role("button", name="customer", exact=True).click()
    await page.get_by_label("Number").first.fill(number)
    await page.get_by_role("button", name="Execute Tool").click()


async def test_a_user_logs_in_by_the_page_and_calls_a_tool() -> None:
    async with serving() as door, inspecting(door, crm={"path": "/tools/mcp", "oauth": {"clientId": IDE}}) as page:
        await connect(page, "crm")
        await page.wait_for_url(re.compile(r"/authorize\?"))
        await page.locator("input[name=username]").fill("alice")
        await page.get_by_role("button", name="Log in").click()
        await page.get_by_text("Authentication succeeded.").wait_for()
        await call(page, "42")
        await page.get_by_text("Globex of people:alice").first.wait_for()
        # What the Inspector asks for besides is not listed, and the page shows the reason.
        await page.get_by_role("button", name="Expand all").click()
        await page.get_by_text("operation_refused").first.wait_for()
        await browser.shoot(page, "inspector")
        records = {record["op"]: record for record in door.front.records() if record["op"]}
        called = records["tools/call:customer"]
        assert (called["decision"], called["reason"], called["subject"]) == ("allow", "ok", "people:alice")
        assert (records["resources/list"]["decision"], records["resources/list"]["reason"]) == (
            "deny", "operation_refused"
        )  # fmt: skip


async def test_the_page_shows_why_the_door_refuses_and_connects_where_one_fact_differs() -> None:
    async with serving() as door:
        mine, other = (
            {"Authorization": f"Bearer {door.token_of('search', aud)}"} for aud in (None, "https://x.example")
        )
        async with inspecting(
            door,
            hidden={"path": "/hidden/mcp", "headers": mine},
            foreign={"path": "/tools/mcp", "headers": other},
            mine={"path": "/tools/mcp", "headers": mine},
        ) as page:
            await connect(page, "hidden")
            await page.get_by_text('"reason":"no_route"').first.wait_for()
            await connect(page, "foreign")
            await page.get_by_text('Failed to connect to "foreign"').wait_for()
            await page.get_by_text("401 UNAUTHORIZED").first.wait_for()
            await connect(page, "mine")
            await call(page, "42")
            await page.get_by_text("Globex of people:alice").first.wait_for()
        reasons = [record["reason"] for record in door.front.records() if record["decision"] == "deny"]
        assert reasons[:2] == ["no_route", "wrong_audience"]
