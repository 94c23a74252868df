"""Refusals of the live page without a socket, each beside an answered request. On loopback: ``integration``."""

from __future__ import annotations

from http.cookies import SimpleCookie
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from sidecar.status.web import LiveServer, SharedNamespaceError, require_own_namespace


async def page(*, paused: bool) -> str:
    return "paused" if paused else "running"


class Browser:
    """Sends requests as a browser that holds the cookie that it was given."""

    def __init__(self) -> None:
        self.server = LiveServer(page)
        link = urlsplit(self.server.link)
        self.host, self.path, self.ticket = link.netloc, link.path, f"?{link.query}"
        self.cookie = ""

    async def ask(self, query: str = "", *, method: str = "GET", path: str = "", **fields: str) -> web.Response:
        sent = CIMultiDict({"Host": self.host, "Cookie": self.cookie, **fields})
        request = make_mocked_request(method, f"{path or self.path}{query}", headers=sent)
        answer = await self.server._answer(request)
        assert isinstance(answer, web.Response)
        assert answer.headers["Cache-Control"] == "no-store"
        for name, morsel in SimpleCookie(answer.cookies.output(header="")).items():
            self.cookie = f"{name}={morsel.value}"
        return answer


async def admitted() -> Browser:
    browser = Browser()
    answer = await browser.ask(browser.ticket)
    assert (answer.status, answer.headers["Location"]) == (303, browser.path)
    return browser


async def test_the_link_opens_the_page_for_its_first_browser_alone() -> None:
    browser = await admitted()
    assert (await browser.ask()).text == "running"
    assert (await browser.ask("?paused")).text == "paused"
    again = await browser.ask(browser.ticket, Cookie="")
    assert (again.status, len(again.cookies)) == (403, 0)


async def test_a_guess_at_the_link_ends_it() -> None:
    browser = Browser()
    assert (await browser.ask("?ticket=x")).status == 403
    assert (await browser.ask(browser.ticket)).status == 403
    assert browser.cookie == ""


@pytest.mark.parametrize("cookie", ["", "sidecar-status=", "sidecar-status=x", "other=x"])
async def test_a_browser_without_the_cookie_is_refused(cookie: str) -> None:
    browser = await admitted()
    assert (await browser.ask(Cookie=cookie)).status == 403
    assert (await browser.ask()).status == 200


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Host": "other.example"}, 421),
        ({"method": "POST"}, 404),
        ({"method": "HEAD"}, 404),
        ({"path": "/"}, 404),
        ({"path": "/x/"}, 404),
    ],
)
async def test_any_other_request_is_refused_with_the_cookie_too(changes: dict[str, str], status: int) -> None:
    browser = await admitted()
    assert (await browser.ask(**changes)).status == status
    assert (await browser.ask()).status == 200


async def test_a_request_for_two_hosts_is_refused() -> None:
    browser = await admitted()
    sent = CIMultiDict([("Host", browser.host), ("Host", browser.host), ("Cookie", browser.cookie)])
    assert (await browser.server._answer(make_mocked_request("GET", browser.path, headers=sent))).status == 421


async def test_a_page_that_was_never_opened_can_be_closed() -> None:
    await LiveServer(page).close()


def test_the_page_is_served_outside_the_network_namespace_of_the_agent_only() -> None:
    require_own_namespace({"network_namespace": "net:[1]"}, "net:[2]")
    with pytest.raises(SharedNamespaceError, match="shares this network namespace and could"):
        require_own_namespace({"network_namespace": "net:[1]"}, "net:[1]")
    for status, own in (({}, "net:[2]"), ({"network_namespace": None}, None), ({"network_namespace": "net:[1]"}, None)):
        with pytest.raises(SharedNamespaceError, match="cannot be told"):
            require_own_namespace(status, own)
