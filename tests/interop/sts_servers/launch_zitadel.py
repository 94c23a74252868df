"""zitadel/oidc, a Go library for OpenID providers: its stock example, and a main of our own on its package ``op``.

The example verifies an actor token and then drops it. The own main writes ``act``; parsers, verifiers, signatures,
metadata and errors are the library's in both.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from delegation_core.rfc8693 import TOKEN_TYPE_ID_TOKEN
from tests.integration.world import free_port
from tests.interop.sts_servers.builds import HERE, built, files_of, not_on_path, run
from tests.interop.sts_servers.login import REDIRECT_URI, log_in
from tests.interop.sts_servers.process import client_session, running
from tests.interop.sts_servers.server import (
    CRM,
    ENTRY,
    FRONT,
    PLANNER,
    SCOPES,
    WRITER,
    Client,
    ClientAuth,
    Launcher,
    Server,
)

_SOURCES: Final = HERE / "zitadel"
_EXAMPLE: Final = "github.com/zitadel/oidc/v3/example/server"
_CLIENTS: Final = [Client(name, f"secret of {name}", ClientAuth.BASIC) for name in (FRONT, ENTRY, PLANNER, WRITER)]
_SERVICE: Final = Client("sid1", "verysecret", ClientAuth.BASIC)  # the example's only client with tokens of its own


def prepare() -> Path:
    """Return the folder of the programs ``own``, ``example`` and ``client``."""

    def make(folder: Path) -> None:
        build = ("go", "build", "-mod=readonly", "-trimpath", "-o")
        for name in ("own", "client"):
            run(*build, folder / name, f"./{name}", cwd=_SOURCES)
        run(*build, folder / "example", _EXAMPLE, cwd=_SOURCES)

    return built("zitadel", files_of(_SOURCES), make)


@asynccontextmanager
async def own(folder: Path, *, strict: bool = True, bundle: str = "") -> AsyncIterator[Server]:
    """Run our main on package ``op``; ``bundle`` is the URL of the JWT bundle whose SVIDs are actor tokens here."""
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    settings = folder / "zitadel-own.json"
    known = {
        "port": port, "users_file": str(_users(folder)), "redirect_uri": REDIRECT_URI, "bundle": bundle,
        "strict": strict, "clients": {client.client_id: client.secret for client in _CLIENTS},
    }  # fmt: skip
    settings.write_text(json.dumps(known))
    name = "zitadel-own" if strict else "zitadel-own-loose"
    async with _started(name, [prepare() / "own", settings], issuer, folder, {}) as (session, urls):
        front, entry, planner, writer = _CLIENTS

        async def subject_token(user: str, scopes: tuple[str, ...]) -> str:
            scope = " ".join(("openid", *scopes))
            members = await _log_in(session, urls, front, user, scope)
            return str(members["access_token"])

        async def actor_token(client: Client) -> str:
            return await server.own_token(client)

        server = Server(
            name=name,
            issuer=issuer,
            **urls,
            front=front,
            entry=entry,
            planner=planner,
            writer=writer,
            audiences=(PLANNER, WRITER, CRM),
            scopes=SCOPES,
            subject_token=subject_token,
            actor_token=actor_token,
            session=session,
        )
        yield server


@asynccontextmanager
async def example(folder: Path) -> AsyncIterator[Server]:
    """Run the stock example. It listens on all interfaces, and calls itself localhost: neither can be set.

    Its access tokens are opaque, so its subject tokens here, and what is asked for, are ID tokens.
    """
    port = free_port()
    issuer = f"http://localhost:{port}/"
    environment = {"PORT": str(port), "USERS_FILE": str(_users(folder)), "REDIRECT_URI": REDIRECT_URI}
    words = [prepare() / "example"]
    async with _started("zitadel-example", words, issuer, folder, environment) as (session, urls):
        web, api = (Client(name, "secret", ClientAuth.BASIC) for name in ("web", "api"))

        async def subject_token(user: str, scopes: tuple[str, ...]) -> str:
            return str((await _log_in(session, urls, web, user, "openid"))["id_token"])

        async def actor_token(client: Client) -> str:
            return await server.own_token(_SERVICE)

        server = Server(
            name="zitadel-example",
            issuer=issuer,
            **urls,
            front=web,
            entry=web,
            planner=web,
            writer=api,
            audiences=("web", "api"),
            scopes=("openid",),
            subject_token=subject_token,
            actor_token=actor_token,
            subject_token_type=TOKEN_TYPE_ID_TOKEN,
            requested_token_type=TOKEN_TYPE_ID_TOKEN,
            session=session,
        )
        yield server


@asynccontextmanager
async def with_its_secrets(server: Server) -> AsyncIterator[Server]:
    """Put a pipe before the example's token endpoint that exchanges the clients' secrets for the example's own.

    Those have six characters, which a sidecar refuses, and only one of its clients gets a token of its own.
    """

    async def forward(request: web.Request) -> web.Response:
        grant_type = (await request.post())["grant_type"]
        fields, _ = (_SERVICE if grant_type == "client_credentials" else server.entry).credentials()
        fields["content-type"] = request.headers["content-type"]
        async with server.session.post(server.token_endpoint, data=await request.read(), headers=fields) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)

    app, port = web.Application(), free_port()
    app.router.add_post("/", forward)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    shown = {name: replace(getattr(server, name), secret="for the pipe") for name in ("entry", "planner", "writer")}
    try:
        yield replace(server, token_endpoint=f"http://127.0.0.1:{port}/", **shown)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _started(
    name: str, words: Sequence[str | Path], issuer: str, folder: Path, environment: dict[str, str]
) -> AsyncIterator[tuple[aiohttp.ClientSession, dict[str, str]]]:
    base = issuer.rstrip("/")
    metadata = f"{base}/.well-known/openid-configuration"
    async with (
        client_session() as session,
        running(words, log=folder / f"{name}.log", ready=metadata, session=session, environment=environment),
    ):
        yield session, {"metadata": metadata, "token_endpoint": f"{base}/oauth/token", "jwks": f"{base}/keys"}


async def _log_in(
    session: aiohttp.ClientSession, urls: dict[str, str], client: Client, user: str, scope: str
) -> dict[str, Any]:
    endpoint = urls["token_endpoint"].replace("/oauth/token", "/auth")
    return await log_in(
        session, client, authorization_endpoint=endpoint, token_endpoint=urls["token_endpoint"], user=user,
        password=f"of {user}", scope=scope,
    )  # fmt: skip


def _users(folder: Path) -> Path:
    """Write the users of both servers; the example lets an administrator's token be exchanged without an actor."""
    users = {
        name: {
            "ID": name, "Username": name, "Password": f"of {name}", "Email": f"{name}@acme.example",
            "EmailVerified": True, "PreferredLanguage": "en", "IsAdmin": name == "bob",
        }
        for name in ("alice", "bob")
    }  # fmt: skip
    path = folder / "zitadel-users.json"
    path.write_text(json.dumps(users))
    return path


def _launcher(name: str, start: Any) -> Launcher:
    return Launcher(name=name, lacking=lambda: not_on_path(["go"]), prepare=prepare, start=start)


OWN: Final = _launcher("zitadel-own", own)
LOOSE: Final = _launcher("zitadel-own-loose", partial(own, strict=False))
EXAMPLE: Final = _launcher("zitadel-example", example)
