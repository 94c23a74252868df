"""The page of ``sidecar sts policy --html`` in a real Chromium: accessible, by keyboard and on paper, and silent."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from sidecar.cli import main
from sidecar.explain.policy_command import page
from sidecar.explain.policy_rows import Row
from tests.audit.report.test_page import HOSTILE
from tests.explain.test_sts_command import ACME, settings
from tests.interop.browser import LANDSCAPE, SHOTS, beyond, shoot, stops, tree, violations, visit, walk

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [pytest.mark.interop, pytest.mark.asyncio(loop_scope="session")]

CRM: Final = f"{ACME}/tool/crm"
MANY: Final = 40  # rules: more than one sheet of paper
COLUMNS: Final = ["Who", "For whom", "Where", "With at most", "By what, and how long", "Rule"]


def written(folder: Path, *arguments: str, code: int = 0) -> str:
    """Write the page by the command; return its address.

    Its rules: a login's, one that never applies (the writer's), and a workload's own ones, over more than one sheet.
    """
    path = folder / "sts.yaml"
    document = json.loads(Path(settings(path)).read_text())
    document["self_rules"] = [
        {"workload": f"{ACME}/job/night-{number}", "audience": CRM, "scopes": ["crm.read", "crm.write"]}
        for number in range(MANY)
    ]
    path.write_text(json.dumps(document))
    target = folder / "policy.html"
    assert main(["sts", "policy", "--settings", str(path), "--html", str(target), *arguments]) == code
    return target.as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
async def test_axe_finds_nothing(browser: Browser, tmp_path: Path, scheme: str, width: int) -> None:
    url = written(tmp_path)
    async with visit(browser, url, color_scheme=scheme, viewport={"width": width, "height": 800}) as one:
        await shoot(one.page, f"policy-{scheme}-{width}")
        assert await violations(one.page) == []
        assert await one.page.evaluate("document.documentElement.scrollWidth") == width


async def test_axe_finds_nothing_where_nobody_may(browser: Browser, tmp_path: Path) -> None:
    async with visit(browser, written(tmp_path, "--actor", CRM, code=1)) as one:
        assert await one.page.locator("tbody tr").all_inner_texts() == ["Nobody may."]
        assert await violations(one.page) == []


async def test_axe_notices_a_page_that_fails_it(browser: Browser, tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "policy.html"
    path.write_text(path.read_text().replace('<html lang="en">', "<html>"))
    async with visit(browser, path.as_uri()) as one:
        assert [found.partition(":")[0] for found in await violations(one.page)] == ["html-has-lang"]


@pytest.mark.parametrize("width", [1280, 320])
async def test_the_keyboard_reaches_everything_in_the_order_of_the_page(
    browser: Browser, tmp_path: Path, width: int
) -> None:
    async with visit(browser, written(tmp_path), viewport={"width": width, "height": 800}) as one:
        assert await walk(one.page) == list(range(await stops(one.page)))


async def test_a_rule_that_never_applies_leads_to_its_row_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    async with visit(browser, written(tmp_path), viewport={"width": 1280, "height": 300}) as one:
        row = one.page.locator("tr", has_text="nothing: it never applies")
        assert not await row.evaluate("one => one.matches(':target')")
        await one.page.locator("ul.problems a", has_text="rules[1]").focus()
        await one.page.keyboard.press("Enter")
        await one.page.wait_for_function("one => one.matches(':target')", arg=await row.element_handle())
        assert await row.evaluate("one => one.getBoundingClientRect().top < innerHeight")
        marked = "one => getComputedStyle(one).outlineStyle"
        assert await row.evaluate(marked) == "solid"
        assert await one.page.locator("tbody tr").first.evaluate(marked) == "none"


async def test_the_skip_link_leads_to_the_rules(browser: Browser, tmp_path: Path) -> None:
    async with visit(browser, written(tmp_path)) as one:
        await one.page.keyboard.press("Tab")
        await one.page.keyboard.press("Enter")
        await one.page.keyboard.press("Tab")
        assert await one.page.evaluate("document.activeElement.getAttribute('aria-label')") == "Rules, scrollable"


async def test_the_rules_scroll_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    async with visit(browser, written(tmp_path), viewport={"width": 320, "height": 800}) as one:
        region = one.page.get_by_role("group", name="Rules, scrollable")
        await region.focus()
        await one.page.keyboard.press("ArrowRight")
        await one.page.wait_for_function("one => one.scrollLeft > 0", arg=await region.element_handle())


async def test_paper_shows_every_column_and_the_headings_on_each_sheet(browser: Browser, tmp_path: Path) -> None:
    url = written(tmp_path)
    async with visit(browser, url, viewport=LANDSCAPE, color_scheme="dark") as one:
        await one.page.emulate_media(media="print")
        await shoot(one.page, "policy-print")
        await one.page.pdf(path=SHOTS / "policy.pdf", prefer_css_page_size=True)
        assert await one.page.evaluate("document.documentElement.scrollHeight") > LANDSCAPE["height"]
        assert await one.page.locator("tbody tr").count() == MANY + 2
        assert await beyond(one.page) == []
        assert await one.page.locator("thead").evaluate("one => getComputedStyle(one).display") == "table-header-group"
        assert await one.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


async def test_the_page_asks_the_network_for_nothing(browser: Browser, tmp_path: Path) -> None:
    url = written(tmp_path)
    async with visit(browser, url) as one:
        await one.page.locator("ul.problems a").click()
        assert (one.requests, one.complaints) == ([url], [])


def hostile(text: str) -> Row:
    return Row(
        rule=text, actor=text, subjects=text, audience=text, workload="w", scopes=(text,), bound=True, ways=()
    )  # fmt: skip


async def test_hostile_settings_run_nothing_and_load_nothing(browser: Browser, tmp_path: Path) -> None:
    async with visit(browser, written(tmp_path)) as lawful:
        names = await lawful.page.evaluate("Object.getOwnPropertyNames(window).sort()")
    for text in [*HOSTILE, "<svg onload=hit=1>", "<img src=http://127.0.0.1:9/x>"]:
        path = tmp_path / "hostile.html"
        path.write_text(page(text, [hostile(text)], choice=text, now=0), encoding="utf-8")
        async with visit(browser, path.as_uri()) as one:
            await one.page.locator("ul.problems a").click()
            assert await one.page.evaluate("Object.getOwnPropertyNames(window).sort()") == names
            assert (one.requests, one.complaints) == ([path.as_uri()], [])


async def test_a_screen_reader_hears_what_never_applies_before_the_rules(browser: Browser, tmp_path: Path) -> None:
    async with visit(browser, written(tmp_path)) as one:
        nodes = await tree(one.page)
        levels = await one.page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(one => +one.tagName[1])")
    assert [name for role, name in nodes if role == "heading"] == [
        "Who may act for whom, where", "Rules that never apply", "Rules",
    ]  # fmt: skip
    assert levels[0] == 1
    assert all(deeper - level <= 1 for level, deeper in pairwise(levels))
    assert [name for role, name in nodes if role == "columnheader"] == COLUMNS
    heads = [name for role, name in nodes if role == "rowheader"]
    assert heads[:2] == [f"{ACME}/agent/front", f"{ACME}/agent/writer"]
    assert len(heads) == MANY + 2
