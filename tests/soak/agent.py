"""The agent of a soak: it makes a call for every request, and serves an event stream and a WebSocket that never end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import aiohttp
from aiohttp import web

EVENT_S = 0.25


class SoakAgent:
    """``outbound`` is its sidecar's port; ``failed`` names its own calls that were not answered with 200."""

    def __init__(self) -> None:
        self.outbound = 0
        self.called = 0
        self.failed: list[str] = []
        self.port = 0
        self._session: aiohttp.ClientSession | None = None
        app = web.Application()
        app.router.add_post("/draft", self._draft)
        app.router.add_get("/events", self._events)
        app.router.add_get("/chat", self._chat)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def __aenter__(self) -> SoakAgent:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        self._session = aiohttp.ClientSession(trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()
        await self._runner.cleanup()

    async def _draft(self, request: web.Request) -> web.Response:
        assert self._session is not None
        await request.read()
        shown = {"authorization": request.headers["authorization"]}
        async with self._session.get(f"http://127.0.0.1:{self.outbound}/crm/x", headers=shown) as answer:
            await answer.read()
            self.called += 1
            if answer.status != 200:
                self.failed.append(f"outbound {answer.status} {answer.headers.get('delegation-reason')}")
        return web.Response(text="done")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # its reader has left
            for number in itertools.count():
                await response.write(b"data: %d\n\n" % number)
                await asyncio.sleep(EVENT_S)
        return response

    async def _chat(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket
