"""One description of every running token-exchange server that we did not write, and of the clients that it knows."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus

import aiohttp

from delegation_core.rfc8693 import GRANT_TYPE, TOKEN_TYPE_ACCESS_TOKEN

ENTRY: Final = "spiffe://acme.example/agent/front"
PLANNER: Final = "spiffe://acme.example/agent/planner"
WRITER: Final = "spiffe://acme.example/agent/writer"
CRM: Final = "spiffe://acme.example/tool/crm"
FRONT: Final = "front-app"
"""The client where users log in: its tokens are the first subject tokens."""
SCOPES: Final = ("crm.read", "crm.write", "docs.write", "plan.make")

MAY_ACT: Final = "may_act:"
"""Begins a scope of a login at some servers: its token names the rest as the one who may act (RFC 8693 section 4.4)."""


class ClientAuth(StrEnum):
    """Methods of client authentication with a secret (RFC 6749 section 2.3.1)."""

    BASIC = "client_secret_basic"
    POST = "client_secret_post"


@dataclass(frozen=True, slots=True)
class Client:
    """A confidential client of a server: an agent, or the front app."""

    client_id: str
    secret: str = field(repr=False)
    auth: ClientAuth

    def credentials(self, *, secret: str | None = None) -> tuple[dict[str, str], dict[str, str]]:
        """Return the header fields and form parameters that authenticate it; ``secret`` replaces the right one."""
        shown = self.secret if secret is None else secret
        if self.auth is ClientAuth.POST:
            return {}, {"client_id": self.client_id, "client_secret": shown}
        pair = f"{quote_plus(self.client_id)}:{quote_plus(shown)}"
        return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}, {}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of a token endpoint; a body that is not a JSON object has no members."""

    status: int
    members: Mapping[str, Any]

    @property
    def error(self) -> str | None:
        return self.members.get("error")

    @property
    def token(self) -> str:
        """Return the issued token."""
        assert self.status == 200, (self.status, self.members)
        return str(self.members["access_token"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server. All its URLs are plain http on loopback.

    Users log in at ``front``; ``entry`` is the first agent. ``subject_token`` logs a user in (``alice`` or ``bob``) and
    returns the front app's token, with these scopes.
    ``actor_token`` returns an agent's own token of this server; None: it issues none.
    """

    name: str
    issuer: str
    metadata: str
    token_endpoint: str
    jwks: str
    front: Client
    entry: Client
    planner: Client
    writer: Client
    audiences: tuple[str, ...]
    scopes: tuple[str, ...]
    subject_token: Callable[[str, tuple[str, ...]], Awaitable[str]]
    actor_token: Callable[[Client], Awaitable[str]] | None
    subject_token_type: str = TOKEN_TYPE_ACCESS_TOKEN
    requested_token_type: str = TOKEN_TYPE_ACCESS_TOKEN
    session: aiohttp.ClientSession

    async def ask(self, client: Client, form: Mapping[str, object], *, secret: str | None = None) -> Answer:
        """Send one request to the token endpoint; list values are repeated."""
        fields, parameters = client.credentials(secret=secret)
        named = {**form, **parameters}
        pairs = [
            (name, one)
            for name, value in named.items()
            for one in (value if isinstance(value, list | tuple) else [value])
        ]
        async with self.session.post(self.token_endpoint, data=pairs, headers=fields) as answer:
            return Answer(answer.status, await _members(answer))

    async def exchange(self, client: Client, subject_token: str, **changes: object) -> Answer:
        """Exchange a token; ``changes`` add parameters, or remove those that are None."""
        form = {
            "grant_type": GRANT_TYPE,
            "subject_token": subject_token,
            "subject_token_type": self.subject_token_type,
            "requested_token_type": self.requested_token_type,
            **changes,
        }
        return await self.ask(client, {name: value for name, value in form.items() if value is not None})

    async def own_token(self, client: Client, **form: object) -> str:
        """Return the client's own token (RFC 6749 section 4.4)."""
        return (await self.ask(client, {"grant_type": "client_credentials", **form})).token

    async def read(self, url: str) -> dict[str, Any]:
        """Return a JSON document of this server."""
        async with self.session.get(url) as answer:
            assert answer.status == 200, (url, answer.status)
            found: dict[str, Any] = await answer.json(content_type=None)
            return found


async def _members(answer: aiohttp.ClientResponse) -> Mapping[str, Any]:
    try:
        members = await answer.json(content_type=None)
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """One server as its tests know it: its build and its start, and what this machine lacks for it.

    ``start`` gets a folder for logs and state; it stops its process, by pid, at the end.
    """

    name: str
    lacking: Callable[[], str | None]
    prepare: Callable[[], object]
    start: Callable[[Path], AbstractAsyncContextManager[Server]]
