"""The report in a real Chromium: accessible, by keyboard and on paper, silent on the network, deaf to its records."""

from __future__ import annotations

import asyncio
import re
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from delegation_audit.report.build import names_in, stories_of
from delegation_audit.report.page import page
from delegation_audit.report.story import Evidence
from tests.audit.report.evidence import AGENT, document, finding, hop, report
from tests.audit.report.test_page import HOSTILE
from tests.interop.browser import LANDSCAPE, SHOTS, beyond, shoot, stops, tree, violations, visit, walk

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [pytest.mark.interop, pytest.mark.asyncio(loop_scope="session")]

NOTHING: Final = {"caller": None, "token_service": None, "callee": None}


def told() -> dict[str, Any]:
    """Return a chain with all that a report tells: done, refused, unknown, missing, impersonated, narrowed."""
    unseen = {"decision": None, "reason": None, "status": None, "method": None, "path": None, "ts": None}
    hops = [
        hop(0, "front", "planner", scope=["crm.read", "crm.write", "docs.write"]),
        hop(1, "planner", "writer", scope=["crm.read", "docs.write"]),
        hop(2, "writer", "crm", scope=["crm.read"], decision="deny", reason="insufficient_scope", status=403),
        hop(
            2,
            "writer",
            "mailer",
            **unseen,
            witnesses={**NOTHING, "token_service": "s1/9"},
            missing_witnesses=["callee"],
        ),
        hop(3, "mailer", "erp", **unseen, scope=None, witnesses=NOTHING, missing_witnesses=["caller", "callee"]),
    ]
    findings = [
        finding("impersonation", "planner presented alice's own token to https://crm.acme.example", "t1", "r1/3"),
        finding("missing_hop", "mailer to erp: neither side has a record", "t1", "s1/9"),
        finding("refused_hop", "crm refused writer: insufficient_scope", "t1", "r2/3"),
        finding("unreadable", "line 7 is no record", None),
    ]
    return document(*findings, hops=hops)


def written(folder: Path, told: dict[str, Any], **changes: Any) -> str:
    """Write the report; return its address."""
    line = '{"run":"r1","seq":1,"event":"request","path":"/crm","decision":"deny","prev":"%s"}' % ("ab" * 32)
    evidence = [
        Evidence(
            name=name, place=f"records.jsonl:{number}", hash=sha256(name.encode()).hexdigest(), line=f"{line}{name}"
        )
        for number, name in enumerate(names_in(*stories_of(told)), 1)
    ]
    return kept(folder, page(report(told, *evidence, **changes)))


def kept(folder: Path, text: str) -> str:
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
async def test_axe_finds_nothing(browser: Browser, tmp_path: Path, scheme: str, width: int) -> None:
    url = written(tmp_path, told())
    async with visit(browser, url, color_scheme=scheme, viewport={"width": width, "height": 800}) as one:
        await shoot(one.page, f"report-{scheme}-{width}")
        assert await violations(one.page) == []
        assert await one.page.evaluate("document.documentElement.scrollWidth") == width
        for summary in await one.page.locator("summary").all():
            await summary.click()
        assert await violations(one.page) == []  # with the evidence open, too


async def test_axe_notices_a_page_that_fails_it(browser: Browser, tmp_path: Path) -> None:
    text = page(report(told())).replace('<html lang="en">', "<html>")
    async with visit(browser, kept(tmp_path, text)) as one:
        assert [found.partition(":")[0] for found in await violations(one.page)] == ["html-has-lang"]


@pytest.mark.parametrize("width", [1280, 320])
async def test_the_keyboard_reaches_everything_in_the_order_of_the_page(
    browser: Browser, tmp_path: Path, width: int
) -> None:
    async with visit(browser, written(tmp_path, told()), viewport={"width": width, "height": 800}) as one:
        assert await walk(one.page) == list(range(await stops(one.page)))


async def test_evidence_opens_and_closes_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    async with visit(browser, written(tmp_path, told())) as one:
        first = one.page.locator("details").first
        await first.locator("summary").focus()
        for key, visible in (("Enter", True), ("Enter", False), ("Space", True), ("Space", False)):
            await one.page.keyboard.press(key)
            assert await first.locator("pre").is_visible() is visible


async def test_a_reference_opens_its_evidence(browser: Browser, tmp_path: Path) -> None:
    async with visit(browser, written(tmp_path, told())) as one:
        evidence = one.page.locator("details", has_text="r2/3").locator("pre")
        assert not await evidence.is_visible()
        await one.page.locator("ul.problems a", has_text="r2/3").focus()
        await one.page.keyboard.press("Enter")
        await evidence.wait_for(state="visible")
        assert await evidence.evaluate("one => one.getBoundingClientRect().top < innerHeight")


async def test_a_scrollable_region_scrolls_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    async with visit(browser, written(tmp_path, told()), viewport={"width": 320, "height": 800}) as one:
        region = one.page.get_by_role("group", name="Timeline of chain 1")
        await region.focus()
        await one.page.keyboard.press("ArrowRight")
        await one.page.wait_for_function("one => one.scrollLeft > 0", arg=await region.element_handle())


async def test_paper_shows_all_evidence_and_nothing_beyond_its_edge(browser: Browser, tmp_path: Path) -> None:
    url = written(tmp_path, told())
    async with visit(browser, url, viewport=LANDSCAPE, color_scheme="dark") as one:
        lines = one.page.locator("pre")
        assert not await lines.first.evaluate("one => one.checkVisibility({contentVisibilityAuto: true})")
        await one.page.emulate_media(media="print")
        await shoot(one.page, "report-print")
        await one.page.pdf(path=SHOTS / "report.pdf", prefer_css_page_size=True)
        assert await lines.count() > 5
        for line in await lines.all():
            assert await line.evaluate("one => one.checkVisibility() && one.getBoundingClientRect().height > 10")
        assert await beyond(one.page) == []
        assert await one.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


async def test_the_report_asks_the_network_for_nothing(browser: Browser, tmp_path: Path) -> None:
    url = written(tmp_path, told())
    async with visit(browser, url) as one:
        for summary in await one.page.locator("summary").all():
            await summary.click()
        assert one.requests == [url]
        assert one.complaints == []


async def test_a_hostile_record_runs_nothing_and_loads_nothing(browser: Browser, tmp_path: Path) -> None:
    texts = [*HOSTILE, "<svg onload=hit=1>", "</title><script>hit=1</script>", "<img src=http://127.0.0.1:9/x>"]
    async with visit(browser, written(tmp_path, told())) as lawful:
        names = await lawful.page.evaluate("Object.getOwnPropertyNames(window).sort()")
    for text in texts:
        hops = [{**hop(0, "a", "b"), "actor": text, "audience": text, "path": text, "reason": text, "scope": [text]}]
        hostile = document(
            finding("splice", text, text, text), hops=hops, chain=text, subjects=[{"iss": text, "sub": text}]
        )
        evidence = Evidence(name=text, place=text, hash="ab" * 32, line=text)
        url = kept(tmp_path, page(report(hostile, evidence, title=text, choice=text, integrity=[text])))
        async with visit(browser, url) as one:
            await one.page.locator("summary").click()
            assert await one.page.evaluate("Object.getOwnPropertyNames(window).sort()") == names
            assert (one.requests, one.complaints) == ([url], [])


INJECTED: Final = (
    "<script>window.hit = 1</script><img src=http://127.0.0.1:{0}/a onerror='window.hit = 1'>"
    "<style>body {{ background: url(http://127.0.0.1:{0}/b) }}</style><iframe src=http://127.0.0.1:{0}/c></iframe>"
    "<form action=http://127.0.0.1:{0}/d><button>x</button></form></main>"
)


async def test_the_policy_holds_if_the_escaping_does_not(browser: Browser, tmp_path: Path) -> None:
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if line := await reader.readline():  # Chromium connects in advance, and then says nothing
            await arrived.put(line)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        text = page(report(told())).replace("</main>", INJECTED.format(port))
        async with visit(browser, kept(tmp_path, text)) as one:
            async with one.page.expect_console_message(lambda message: "form-action" in message.text):
                await one.page.evaluate("document.querySelector('button').click()")
            refused = "\n".join(one.complaints)
            for directive in ("script-src", "style-src", "img-src", "frame-src"):
                assert directive in refused
            assert await one.page.evaluate("window.hit") is None
            assert arrived.empty()

        without = re.sub("<meta http-equiv[^>]*>", "", text)
        async with visit(browser, kept(tmp_path, without)) as one:  # the same text without the policy is an attack
            assert await one.page.evaluate("window.hit") == 1
            assert (await asyncio.wait_for(arrived.get(), 20)).startswith(b"GET /")


async def test_a_screen_reader_hears_the_answer_first_and_the_map_as_text(browser: Browser, tmp_path: Path) -> None:
    async with visit(browser, written(tmp_path, told())) as one:
        nodes = await tree(one.page)
        levels = await one.page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(one => +one.tagName[1])")
        rows = await one.page.locator("tbody tr").all_inner_texts()
    headings = [name for role, name in nodes if role == "heading"]
    assert headings == [
        "Delegation report", "The answer", "alice, 2026-11-24 21:04:00 UTC",
        "Chain t1", "Hop map", "Timeline", "Evidence",
    ]  # fmt: skip
    assert levels[0] == 1
    assert all(deeper - level <= 1 for level, deeper in pairwise(levels))
    assert [name for role, name in nodes if role == "columnheader"] == [
        "Time (UTC)", "Hop", "Call", "Scope", "Outcome", "Evidence"
    ]  # fmt: skip
    (drawn,) = [name for role, name in nodes if role in ("image", "img", "graphics-document")]
    assert drawn == "Calls of 6 workloads on behalf of alice; the text below says the same"
    for row, (actor, audience) in zip(
        rows, [("front", "planner"), ("planner", "writer"), ("writer", "crm"), ("writer", "mailer"), ("mailer", "erp")],
        strict=True,
    ):  # fmt: skip
        assert f"{AGENT}{actor} calls {AGENT}{audience}" in " ".join(row.split())
    assert [re.sub(r"\s+", " ", row) for row in rows][2].count("refused 403 insufficient_scope") == 1
