"""The fake foreign token service behind HTTP on loopback, with metadata."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import jwt
from aiohttp import web

from tests.fakes.foreign_sts import CLIENTS, ForeignSts, Knobs


class HttpSts:
    """Handlers. ``busy`` answers are sent first, ``nonce`` is asked of DPoP proofs, ``named`` changes the metadata.

    ``asked`` has the path of each request.
    """

    def __init__(self, knobs: Knobs | None = None) -> None:
        self.sts = ForeignSts(knobs, now=time.time, issuer="")
        self.busy: list[int] = []
        self.nonce = ""
        self.fields: list[dict[str, str]] = []
        self.named: dict[str, str] = {}
        self.asked: list[str] = []

    async def metadata(self, _request: web.Request) -> web.Response:
        issuer = self.sts.issuer
        return web.json_response(
            {
                "issuer": issuer,
                "token_endpoint": f"{issuer}/token",
                "introspection_endpoint": f"{issuer}/introspect",
                "revocation_endpoint": f"{issuer}/revoke",
                "jwks_uri": f"{issuer}/jwks",
                **self.named,
            }
        )

    async def note(self, request: web.Request, _response: web.StreamResponse) -> None:
        self.asked.append(request.path)

    async def jwks(self, _request: web.Request) -> web.Response:
        return web.json_response(self.sts.jwks())

    async def token(self, request: web.Request) -> web.Response:
        self.fields.append(dict(request.headers))
        if self.busy:
            return web.Response(status=self.busy.pop(), headers={"Retry-After": "0"})
        form = parse_qsl(await request.text(), keep_blank_values=True)
        client, proven = self._client(request, dict(form))
        proof, jkt = request.headers.get("DPoP"), None
        if proof is not None:
            claims = jwt.decode(proof, options={"verify_signature": False})
            if self.nonce and claims.get("nonce") != self.nonce:
                return web.json_response({"error": "use_dpop_nonce"}, status=400, headers={"DPoP-Nonce": self.nonce})
            jkt = str(sorted(jwt.get_unverified_header(proof)["jwk"].items()))
        return self._answer(*self.sts.token(form, client, proven=proven, jkt=jkt))

    async def introspect(self, request: web.Request) -> web.Response:
        return self._answer(*self.sts.introspect(parse_qsl(await request.text())))

    async def revoke(self, request: web.Request) -> web.Response:
        return self._answer(*self.sts.revoke(parse_qsl(await request.text())))

    def _client(self, request: web.Request, form: dict[str, str]) -> tuple[str | None, bool]:
        field = request.headers.get("Authorization", "")
        if field.startswith("Basic "):
            name, _, secret = base64.b64decode(field[6:]).decode().partition(":")
            return unquote_plus(name), unquote_plus(secret) == CLIENTS.get(unquote_plus(name))
        name = form.get("client_id", "")
        return name or None, form.get("client_secret", "-") == CLIENTS.get(name)

    def _answer(self, status: int, members: dict[str, Any]) -> web.Response:
        return web.json_response(members, status=status) if members else web.Response(status=status)


@asynccontextmanager
async def served(knobs: Knobs | None = None) -> AsyncIterator[HttpSts]:
    """Serve it on a free port of loopback; its issuer is that URL."""
    server = HttpSts(knobs)
    application = web.Application()
    application.on_response_prepare.append(server.note)
    application.router.add_get("/.well-known/oauth-authorization-server", server.metadata)
    application.router.add_get("/jwks", server.jwks)
    for path in ("token", "introspect", "revoke"):
        application.router.add_post(f"/{path}", getattr(server, path))
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.sts.issuer = f"http://{host}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()
