"""The documentation as a site, opened as files: its search finds the answers people look for, and nothing is loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.interop.browser import shoot, violations, visit
from tests.interop.engine import require

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = [pytest.mark.interop, pytest.mark.asyncio(loop_scope="session")]

SITE: Final = Path(__file__).parents[2] / "build" / "site"
FIRST: Final = 5  # results that a reader sees without scrolling
# What people type, and the pages of which one must be among the first results.
QUESTIONS: Final = {
    "okta": {"docs/idp/okta"},
    "token service down": {"docs/runbook", "docs/questions"},
    "actor_mismatch": {"docs/questions", "docs/reasons", "docs/runbook"},
    "retire api key": {"docs/from-api-keys", "docs/credentials", "docs/questions"},
    "no_request_context": {"docs/reasons", "docs/questions", "docs/your-agent"},
    "observe": {"docs/observe"},
    "observe_until": {"docs/observe", "docs/questions"},
    "revoke": {"docs/runbook", "docs/questions"},
    "stolen token": {"docs/runbook", "docs/questions"},
    "fastapi": {"docs/your-agent", "examples/README"},
    "openai key": {"docs/outside", "docs/questions"},
    "memory": {"docs/sizing", "docs/questions"},
    "post-mortem": {"docs/post-mortem"},
    "handle": {"docs/concepts", "docs/agents", "docs/your-agent", "docs/own-authority"},
}


@pytest.fixture(autouse=True)
def built() -> None:
    require(None if (SITE / "searchindex.js").is_file() else "build/site is not there: make site")


def address(page: str, query: str = "") -> str:
    return f"{(SITE / page).as_uri()}.html{query}"


async def results(page: Page) -> list[str]:
    """Return the pages that a search found, best first."""
    await page.wait_for_function("document.querySelector('#search-results .search-summary')?.textContent.length > 0")
    await page.wait_for_function("!document.querySelector('#search-progress')?.textContent.includes('...')")
    links = await page.locator("#search-results ul.search > li > a").evaluate_all("all => all.map(one => one.href)")
    pages = [re.sub(r"\.html.*", "", link.removeprefix(f"{SITE.as_uri()}/")) for link in links]
    return list(dict.fromkeys(pages))


@pytest.mark.parametrize("words", QUESTIONS)
async def test_a_search_finds_the_page_with_the_answer_first(browser: Browser, words: str) -> None:
    async with visit(browser, address("search", f"?q={words.replace(' ', '+')}"), offline=True) as one:
        found = await results(one.page)
        assert QUESTIONS[words] & set(found[:FIRST]), found[:FIRST]
        assert [url for url in one.requests if not url.startswith(SITE.as_uri())] == []


async def test_a_search_for_what_is_nowhere_finds_nothing(browser: Browser) -> None:
    async with visit(browser, address("search", "?q=xylophone"), offline=True) as one:
        assert await results(one.page) == []


@pytest.mark.parametrize("page", ["docs/README", "README", "docs/concepts", "docs/benchmark"])
async def test_a_page_loads_its_own_files_alone_and_all_of_them(browser: Browser, page: str) -> None:
    async with visit(browser, address(page), offline=True) as one:
        await one.page.wait_for_load_state("networkidle")
        await shoot(one.page, f"site-{page.replace('/', '-')}")
        assert [url for url in one.requests if not url.startswith(SITE.as_uri())] == []
        assert one.complaints == []


async def test_the_first_page_leads_to_the_map_with_every_section_in_the_sidebar(browser: Browser) -> None:
    async with visit(browser, address("index"), offline=True) as one:
        await one.page.wait_for_url("**/docs/README.html")
        captions = await one.page.locator(".sidebar-tree .caption-text").all_text_contents()
        assert captions == re.findall(
            r"^## (.+)$", (SITE.parents[1] / "docs" / "README.md").read_text(encoding="utf-8"), re.MULTILINE
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
async def test_axe_finds_nothing_on_a_page_of_text_tables_and_a_picture(
    browser: Browser, scheme: str, width: int
) -> None:
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}, "offline": True}
    async with visit(browser, address("docs/concepts"), **options) as one:
        assert await violations(one.page) == []
        assert await one.page.evaluate("document.documentElement.scrollWidth") == width
