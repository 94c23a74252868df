"""A real Chromium, driven by Playwright, and what its pages are asked: requests, keyboard, axe, accessibility tree."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page, Request

SHOTS: Final = Path(__file__).parents[2] / "build" / "browser"
LANDSCAPE: Final = {"width": 1032, "height": 700}  # A4 without the margins of the style, in CSS pixels
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_FLAGS: Final = (  # a profile of its own comes from Playwright; nothing may call home
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
_AXE: Final = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}
_STOPS: Final = "a[href], summary, [tabindex='0']"
# Of the element that has the focus: its number among all stops, and if people see it and that it has the focus.
_FOCUSED: Final = """stops => {
    const one = document.activeElement, box = one.getBoundingClientRect(), style = getComputedStyle(one)
    return one === document.body ? null : {
        number: [...document.querySelectorAll(stops)].indexOf(one),
        seen: box.width > 0 && box.left >= 0 && box.top < innerHeight && box.bottom > 0
            && style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
    }
}"""


def chromium() -> str | None:
    """Return the path of the Chromium of this machine."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def missing() -> str | None:
    """Return the reason why no browser can be started."""
    if chromium() is None:
        return f"not on PATH: {' or '.join(_NAMES)}"
    if find_spec("playwright") is None or find_spec("axe_playwright_python") is None:
        return "requirements/browser.txt is not installed: make interop-browser"
    return None


@asynccontextmanager
async def started() -> AsyncIterator[Browser]:
    """Start the browser with an empty profile, without a window."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium(), args=[*_FLAGS], chromium_sandbox=False, timeout=60_000
        )
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Visit:
    """One page in a context of its own, and everything that it asked the network for and complained of."""

    context: BrowserContext
    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    async def fetch(self, request: Request) -> None:
        self.requests.append(request.url)


@asynccontextmanager
async def visit(browser: Browser, url: str | None = None, **options: Any) -> AsyncIterator[Visit]:
    """Open a page in a new context: no cookie and no cache of another one."""
    context = await browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    try:
        page = await context.new_page()
        one = Visit(context, page)
        context.on("request", one.fetch)
        page.on("console", lambda message: one.complaints.append(message.text))
        page.on("pageerror", lambda error: one.complaints.append(str(error)))
        page.on("dialog", lambda dialog: one.complaints.append(dialog.message))
        if url is not None:
            await page.goto(url)
        yield one
    finally:
        await context.close()


async def violations(page: Page) -> list[str]:
    """Return the violations of WCAG 2.1 AA that axe finds, each with its places."""
    from axe_playwright_python.async_playwright import Axe

    found = (await Axe().run(page, options=_AXE)).response["violations"]
    return [f"{one['id']}: {[node['target'] for node in one['nodes']]}" for one in found]


async def walk(page: Page) -> list[int]:
    """Press Tab until the focus leaves the page; return the number of each stop. Fails if a focus cannot be seen."""
    count = await page.locator(_STOPS).count()
    stops = []
    for _ in range(count + 1):
        await page.keyboard.press("Tab")
        focused = await page.evaluate(_FOCUSED, _STOPS)
        if focused is None:
            break
        assert focused["seen"], f"the focus on stop {focused['number']} cannot be seen"
        stops.append(focused["number"])
    return stops


async def stops(page: Page) -> int:
    """Return the number of links, summaries and scrollable regions."""
    return int(await page.locator(_STOPS).count())


async def tree(page: Page) -> list[tuple[str, str]]:
    """Return role and name of each node of the accessibility tree, in reading order."""
    session = await page.context.new_cdp_session(page)
    nodes = {node["nodeId"]: node for node in (await session.send("Accessibility.getFullAXTree"))["nodes"]}
    found = []

    def read(node: dict[str, Any]) -> None:
        if not node["ignored"]:
            found.append((node["role"]["value"], node.get("name", {}).get("value", "")))
        for child in node.get("childIds", ()):
            if child in nodes:
                read(nodes[child])

    read(next(node for node in nodes.values() if "parentId" not in node))
    return found


async def beyond(page: Page) -> list[str]:
    """Return what is beyond the right edge of the page, where neither paper nor a phone shows it."""
    found: list[str] = await page.evaluate(
        """() => [...document.querySelectorAll('main *, header *')]
            .filter(one => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
            .map(one => one.tagName + ' ' + one.textContent.slice(0, 40))"""
    )
    return found


async def shoot(page: Page, name: str) -> None:
    """Write a picture for people: nothing compares pixels."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
