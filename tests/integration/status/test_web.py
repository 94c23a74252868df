"""The live page is for the browser that opened the one-time link, and for nobody else who can reach loopback."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import pytest
from yarl import URL

from sidecar.observe.placement import network_namespace
from sidecar.status.web import LiveServer, SharedNamespaceError, require_own_namespace

pytestmark = pytest.mark.integration


async def page(*, paused: bool) -> str:
    return "<p>the state, paused</p>" if paused else "<p>the state</p>"


@pytest.fixture
async def server() -> AsyncIterator[LiveServer]:
    server = LiveServer(page)
    await server.open()
    yield server
    await server.close()


@pytest.fixture
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:  # an address has no domain
        yield session


async def got(browser: aiohttp.ClientSession, url: URL | str, **options: object) -> tuple[int, str]:
    async with browser.get(url, **options) as answer:  # type: ignore[arg-type]
        return answer.status, await answer.text()


def root(server: LiveServer) -> str:
    return server.link.partition("?")[0]


async def test_the_link_opens_the_page_and_works_once(server: LiveServer, browser: aiohttp.ClientSession) -> None:
    link = server.link
    assert await got(browser, link) == (200, "<p>the state</p>")
    assert await got(browser, root(server)) == (200, "<p>the state</p>")
    async with aiohttp.ClientSession() as other:
        assert (await got(other, link))[0] == 403
        assert (await got(other, root(server)))[0] == 403


async def test_a_wrong_ticket_ends_the_link(server: LiveServer, browser: aiohttp.ClientSession) -> None:
    link = server.link
    assert (await got(browser, f"{root(server)}?ticket=wrong"))[0] == 403
    assert (await got(browser, link))[0] == 403


async def test_the_cookie_is_for_no_script_and_no_other_site(
    server: LiveServer, browser: aiohttp.ClientSession
) -> None:
    async with browser.get(server.link, allow_redirects=False) as answer:
        path = URL(root(server)).path
        assert (answer.status, answer.headers["Location"]) == (303, path)
        cookie = answer.headers["Set-Cookie"]
    assert len(path) > 16
    assert {"HttpOnly", "SameSite=Strict", f"Path={path}"} <= {part.strip() for part in cookie.split(";")}
    assert "Domain" not in cookie


@pytest.mark.parametrize(("path", "status"), [(".", 200), ("/", 404), (".?ticket=wrong", 403)])
async def test_no_other_site_reads_or_frames_an_answer_not_even_a_refusal(
    server: LiveServer, browser: aiohttp.ClientSession, path: str, status: int
) -> None:
    await got(browser, server.link)
    async with browser.get(URL(root(server)).join(URL(path))) as answer:
        assert answer.status == status
        policy = answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("host", ["evil.example", "localhost:{port}", "127.0.0.1", ""])
async def test_another_host_name_is_refused_with_the_cookie_too(
    server: LiveServer, browser: aiohttp.ClientSession, host: str
) -> None:
    assert (await got(browser, server.link))[0] == 200
    named = host.format(port=URL(root(server)).port)
    assert (await got(browser, root(server), headers={"Host": named}))[0] == 421


@pytest.mark.parametrize("cookie", ["", "wrong", "\u00e9"])
async def test_another_cookie_is_none(server: LiveServer, cookie: str) -> None:
    async with aiohttp.ClientSession() as other:
        headers = {"Cookie": f"sidecar-status={cookie}"}
        assert (await got(other, root(server), headers=headers))[0] == 403


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "."), ("GET", "status"), ("GET", "/"), ("HEAD", "."), ("OPTIONS", ".")]
)
async def test_there_is_one_page_and_it_is_only_read(
    server: LiveServer, browser: aiohttp.ClientSession, method: str, path: str
) -> None:
    await got(browser, server.link)
    async with browser.request(method, URL(root(server)).join(URL(path))) as answer:
        assert answer.status == 404


OWN: Final = {"line": b"GET PATH HTTP/1.1", "host": b"HOST", "cookie": b"sidecar-status=COOKIE", "more": b"X-A: b"}


async def answered(server: LiveServer, admitted: str, **changes: bytes) -> bytes:
    """Return the whole answer to a request in bytes, with the right path, host and cookie where they are named."""
    own = URL(root(server))
    parts = OWN | changes
    lines = (b"%(line)b", b"Host: %(host)b", b"Cookie: %(cookie)b", b"%(more)b", b"Connection: close", b"", b"")
    sent = b"\r\n".join(lines) % {name.encode(): part for name, part in parts.items()}
    for name, value in {b"PATH": own.path, b"HOST": f"127.0.0.1:{own.port}", b"COOKIE": admitted}.items():
        sent = sent.replace(name, value.encode())
    reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
    writer.write(sent)
    answer = await reader.read()
    writer.close()
    return answer


@pytest.fixture
async def admitted(server: LiveServer, browser: aiohttp.ClientSession) -> str:
    await got(browser, server.link)
    return browser.cookie_jar.filter_cookies(URL(root(server)))["sidecar-status"].value


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 200),
        ({"more": b"X-A: \xff"}, 200),
        ({"cookie": b"sidecar-status=\xff"}, 403),
        ({"cookie": b"sidecar-status=\xc3\xa9"}, 403),
        ({"cookie": b'sidecar-status="\\777'}, 403),
        ({"cookie": b"\xff=x"}, 403),
        ({"cookie": b"a=b; " * 1500}, 403),
        ({"cookie": b"sidecar-status=" + b"x" * 10_000}, 400),
        ({"host": b"\xff"}, 421),
        ({"host": b"[::1"}, 421),
        ({"line": b"GET PATH HTTP/1.0", "host": b""}, 421),
        ({"line": b"GET PATH\xff HTTP/1.1"}, 400),
        ({"line": b"GET PATH%ff HTTP/1.1"}, 404),
        ({"line": b"GET PATH%00 HTTP/1.1"}, 404),
        ({"line": b"GET PATH?\xff HTTP/1.1"}, 400),
        ({"line": b"GET PATH?%ff HTTP/1.1"}, 200),
        ({"line": b"GET PATH?ticket=\xff HTTP/1.1"}, 400),
        ({"line": b"GET PATH?ticket=%ff HTTP/1.1"}, 403),
        ({"line": b"GET PATH?ticket=%ed%a0%80 HTTP/1.1"}, 403),
        ({"line": b"GET /" + b"x" * 10_000 + b" HTTP/1.1"}, 400),
        ({"line": b"GET http://[PATH HTTP/1.1"}, 400),
        ({"line": b"GET http://a:99999999PATH HTTP/1.1"}, 400),
        ({"line": b"CONNECT a:b HTTP/1.1"}, 400),
        ({"line": b"G\xffT PATH HTTP/1.1"}, 400),
        ({"line": b"\x16\x03\x01\xff"}, 400),
        ({"more": b"\xff: b"}, 400),
        ({"more": b"Content-Length: \xff"}, 400),
        ({"more": b"Content-Type: \xff/\xff; charset=\xff"}, 200),
        ({"more": b"\r\n".join([b"X-A: b"] * 2000)}, 400),
    ],
)
async def test_no_bytes_of_a_request_make_a_fault_or_come_back(
    server: LiveServer, admitted: str, changes: dict[str, bytes], status: int
) -> None:
    head, _, body = (await answered(server, admitted, **changes)).partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert b"\xff" not in body
    assert b"xxx" not in body
    assert b"Content-Security-Policy: default-src 'none'" in head
    assert b"Cache-Control: no-store" in head
    assert (await answered(server, admitted)).startswith(b"HTTP/1.1 200 ")  # as before


async def test_a_fault_of_ours_says_no_more_than_that() -> None:
    async def broken(*, paused: bool) -> str:
        raise ValueError("a detail")

    server = LiveServer(broken)
    await server.open()
    try:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
            status, text = await got(browser, server.link)
    finally:
        await server.close()
    assert (status, text) == (500, "a bug: report it with what was asked\n")


async def test_a_page_may_be_paused_by_the_link_too(server: LiveServer, browser: aiohttp.ClientSession) -> None:
    assert await got(browser, f"{server.link}&paused") == (200, "<p>the state, paused</p>")
    assert await got(browser, root(server)) == (200, "<p>the state</p>")


async def test_no_other_program_on_loopback_is_sent_the_cookie(
    server: LiveServer, browser: aiohttp.ClientSession
) -> None:
    await got(browser, server.link)
    own = URL(root(server))
    assert browser.cookie_jar.filter_cookies(own)
    assert not browser.cookie_jar.filter_cookies(own.with_path("/"))


async def test_it_listens_on_loopback_alone(server: LiveServer) -> None:
    assert URL(root(server)).host == "127.0.0.1"


@pytest.mark.parametrize(("theirs", "own"), [("b net:[1]", "b net:[1]"), (None, "b net:[1]"), ("b net:[1]", None)])
def test_in_the_agents_network_namespace_or_an_unknown_one_nothing_is_served(
    theirs: str | None, own: str | None
) -> None:
    require_own_namespace({"network_namespace": "b net:[1]"}, "b net:[2]")
    require_own_namespace({"network_namespace": "b net:[1]"}, "c net:[1]")  # another machine
    with pytest.raises(SharedNamespaceError, match="ssh -N -L"):
        require_own_namespace({"network_namespace": theirs}, own)


def test_two_processes_of_one_namespace_name_it_alike() -> None:
    command = "from sidecar.observe.placement import network_namespace; print(network_namespace(), end='')"
    other = subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, text=True)
    assert other.stdout == network_namespace()
