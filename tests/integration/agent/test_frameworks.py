"""Starlette, Flask and aiohttp's server serve each request with its own handle, wherever they run its handler."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import flask
import httpx
import pytest
from aiohttp import ClientSession, web
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from werkzeug.serving import make_server

from delegation_agent import asgi, handle, wsgi
from delegation_agent.aiohttp import server_middleware

pytestmark = pytest.mark.integration

USERS: Final = 200
after_the_answer: list[tuple[str, str | None]] = []


def fields_of(number: int) -> dict[str, str]:
    """Return the header fields of a request; every fifth has no handle."""
    return {} if number % 5 == 0 else {"Delegation-Handle": f"user-{number}"}


def expected(number: int) -> str:
    return str(fields_of(number).get("Delegation-Handle"))


async def in_the_loop(_request: Request) -> PlainTextResponse:
    await asyncio.sleep(0)
    return PlainTextResponse(str(handle()))


def in_a_thread(_request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(handle()))


async def streamed(_request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[str]:
        yield str(handle())
        await asyncio.sleep(0)

    return StreamingResponse(pieces())


async def background(request: Request) -> PlainTextResponse:
    async def work() -> None:
        await asyncio.sleep(0)
        after_the_answer.append((request.query_params["number"], handle()))

    return PlainTextResponse(str(handle()), background=BackgroundTask(work))


async def passed_on(request: Request, call_next: Any) -> Any:
    return await call_next(request)


@pytest.mark.parametrize("path", ["loop", "thread", "streamed", "background"])
async def test_starlette_serves_200_users_at_once_without_mixing(path: str) -> None:
    """Behind a BaseHTTPMiddleware too, which runs the rest in a task of its own."""
    after_the_answer.clear()
    handlers = {"loop": in_the_loop, "thread": in_a_thread, "streamed": streamed, "background": background}
    inner = Starlette(
        routes=[Route("/", handlers[path])], middleware=[Middleware(BaseHTTPMiddleware, dispatch=passed_on)]
    )
    transport = httpx.ASGITransport(app=asgi.HandleMiddleware(inner))
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        answers = await asyncio.gather(
            *(client.get("/", headers=fields_of(one), params={"number": one}) for one in range(USERS))
        )
    assert [answer.text for answer in answers] == [expected(one) for one in range(USERS)]
    if path == "background":
        assert {(number, str(held)) for number, held in after_the_answer} == {
            (str(one), expected(one)) for one in range(USERS)
        }


@pytest.fixture
def flask_origin() -> Iterator[str]:
    app = flask.Flask("agent")

    @app.get("/once")
    def once() -> str:
        return str(handle())

    @app.get("/streamed")
    def streamed_body() -> flask.Response:
        def pieces() -> Iterator[str]:
            yield str(handle())
            yield "," + str(handle())

        return flask.Response(flask.stream_with_context(pieces()))

    app.wsgi_app = wsgi.HandleMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_flask_serves_200_users_without_mixing(flask_origin: str) -> None:
    with httpx.Client(base_url=flask_origin, timeout=30) as client, ThreadPoolExecutor(16) as pool:
        once = pool.map(lambda one: client.get("/once", headers=fields_of(one)).text, range(USERS))
        assert list(once) == [expected(one) for one in range(USERS)]
        pieces = pool.map(lambda one: client.get("/streamed", headers=fields_of(one)).text, range(USERS))
        assert list(pieces) == [f"{expected(one)},{expected(one)}" for one in range(USERS)]


async def test_aiohttps_server_serves_200_users_without_mixing() -> None:
    async def answer(_request: web.Request) -> web.Response:
        await asyncio.sleep(0)
        return web.Response(text=f"{handle()},{await asyncio.to_thread(handle)}")

    app = web.Application(middlewares=[server_middleware])
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with ClientSession() as session:  # its connections are kept, so users follow each other on one

        async def ask(number: int) -> str:
            async with session.get(url, headers=fields_of(number)) as told:
                return await told.text()

        found = await asyncio.gather(*map(ask, range(USERS)))
        assert found == [f"{expected(one)},{expected(one)}" for one in range(USERS)]
        async with session.get(url, headers=[("Delegation-Handle", "alice"), ("Delegation-Handle", "bob")]) as told:
            assert await told.text() == "None,None"
    await runner.cleanup()
