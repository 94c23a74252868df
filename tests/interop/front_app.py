"""A front app with a login in the user's browser: authorization code with PKCE, then one question to the planner."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import escape
from typing import Final

import aiohttp
from aiohttp import web

from tests.integration.mesh import Mesh
from tests.integration.world import free_port
from tests.interop.keycloak import CLIENT_ID, SECRET, Keycloak
from tests.interop.sts_servers.login import Pkce

SCOPE: Final = "openid"


class FrontApp:
    """Sends a browser to Keycloak, redeems the code that comes back, and shows the mesh's answer."""

    def __init__(self, issuer: Keycloak, mesh: Mesh, session: aiohttp.ClientSession) -> None:
        self.base = f"http://127.0.0.1:{free_port()}"
        self.callback = f"{self.base}/callback"
        self.client_id = CLIENT_ID
        self.tokens: list[str] = []
        self._issuer = issuer
        self._mesh = mesh
        self._session = session
        self._begun: dict[str, Pkce] = {}

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/", self._begin)
        app.router.add_get("/callback", self._come_back)
        return app

    async def redeem(self, code: str, pkce: Pkce) -> tuple[int, dict[str, str]]:
        """Redeem a code; return status and members of Keycloak's answer."""
        form = {**pkce.form(code, self.callback), "client_id": self.client_id, "client_secret": SECRET}
        async with self._session.post(self._issuer.token_endpoint, data=form) as answer:
            return answer.status, await answer.json()

    async def _begin(self, _request: web.Request) -> web.Response:
        pkce = Pkce()
        self._begun[pkce.state] = pkce
        url = pkce.authorization(self._issuer.authorization_endpoint, self.client_id, SCOPE, self.callback)
        raise web.HTTPFound(url)

    async def _come_back(self, request: web.Request) -> web.Response:
        pkce = self._begun.get(request.query.get("state", ""))
        if pkce is None or "code" not in request.query:
            raise web.HTTPBadRequest(text="no login")
        status, members = await self.redeem(request.query["code"], pkce)
        if status != 200:
            raise web.HTTPBadRequest(text=f"no token: {members['error']}")
        self.tokens.append(members["access_token"])
        answer = await self._mesh.ask(members["access_token"])
        shown = f"{answer.status} {answer.reason or ''} {answer.body.decode(errors='replace')}"
        return web.Response(text=f"<p id=answer>{escape(shown)}</p>", content_type="text/html")


@asynccontextmanager
async def serving(issuer: Keycloak, mesh: Mesh, session: aiohttp.ClientSession) -> AsyncIterator[FrontApp]:
    """Run the front app, registered at Keycloak as a client that must use PKCE."""
    front = FrontApp(issuer, mesh, session)
    runner = web.AppRunner(front.app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(front.base.rsplit(":", 1)[1])).start()
    try:
        await register(issuer, front.client_id, front.callback)
        yield front
    finally:
        await runner.cleanup()


async def register(issuer: Keycloak, client_id: str, callback: str) -> None:
    """Make a client, or change it, so that its logins come back to ``callback`` and need PKCE."""
    found = await issuer.administer("GET", f"/clients?clientId={client_id}", status=200)
    if not found:
        await issuer.administer("POST", "/clients", {"clientId": client_id, "secret": SECRET})
        found = await issuer.administer("GET", f"/clients?clientId={client_id}", status=200)
    (client,) = found
    client["redirectUris"] = [callback, *client["redirectUris"]]
    client["attributes"]["pkce.code.challenge.method"] = "S256"
    await issuer.administer("PUT", f"/clients/{client['id']}", client, status=204)
