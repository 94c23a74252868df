"""The official MCP client at an entry's door: it knows the URL, and its user logs in. Arguments: URL, CA, issuer."""

# ruff: noqa: T201
from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from mcp.shared.exceptions import MCPError

BACK = "http://127.0.0.1:1/back"
ABOUT: dict[str, Any] = {"redirect_uris": [BACK], "token_endpoint_auth_method": "none"}


class Storage:
    """Storage of a client: its registration, and the tokens of its user."""

    def __init__(self, issuer: str) -> None:
        self.tokens: OAuthToken | None = None
        self.info = OAuthClientInformationFull(**ABOUT, client_id="an-ide", issuer=issuer)

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.info

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.info = client_info


class Browser:
    """A browser whose user is alice."""

    def __init__(self) -> None:
        self.asked: dict[str, list[str]] = {}
        self.told: dict[str, list[str]] = {}

    async def open(self, url: str) -> None:
        self.asked = parse_qs(urlsplit(url).query)
        async with httpx2.AsyncClient() as web:
            answer = await web.post(url, data={"username": "alice"})
        self.told = parse_qs(urlsplit(answer.headers["location"]).query)

    async def back(self) -> AuthorizationCodeResult:
        return AuthorizationCodeResult(**{name: self.told[name][0] for name in ("code", "state", "iss")})


async def main(url: str, ca: str, issuer: str) -> None:
    browser, storage = Browser(), Storage(issuer)
    auth = OAuthClientProvider(url, OAuthClientMetadata(**ABOUT), storage, browser.open, browser.back)
    tls = ssl.create_default_context(cafile=ca)
    async with (
        httpx2.AsyncClient(auth=auth, verify=tls, timeout=30) as web,
        streamable_http_client(url, http_client=web) as streams,
        ClientSession(streams[0], streams[1]) as session,
    ):
        await session.initialize()
        tools = [tool.name for tool in (await session.list_tools()).tools]
        said = (await session.call_tool("customer", {"number": "42"})).content[0].text
        try:
            refused = (await session.call_tool("delete_everything", {})).content[0].text
        except MCPError as error:
            refused = error.error.data["reason"]
    asked = {name: browser.asked[name][0] for name in ("resource", "scope", "code_challenge_method")}
    print(json.dumps({"tools": tools, "said": said, "refused": refused, "asked": asked}))


asyncio.run(main(*sys.argv[1:4]))
