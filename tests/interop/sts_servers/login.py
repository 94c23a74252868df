"""A user's login at any server with an HTML form: authorization code with PKCE (RFC 7636), by a scripted browser."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import aiohttp

from tests.interop.sts_servers.server import Client

REDIRECT_URI: Final = "http://127.0.0.1:9/callback"  # nobody listens there: the code is read from the redirect
_MOST_STEPS: Final = 10


@dataclass(frozen=True, slots=True)
class Pkce:
    """One request for a code: its verifier and state."""

    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    state: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    def authorization(self, endpoint: str, client_id: str, scope: str, redirect_uri: str) -> str:
        """Return the URL that the user's browser opens."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()
        parameters = {
            "response_type": "code", "client_id": client_id, "redirect_uri": redirect_uri, "scope": scope,
            "state": self.state, "code_challenge": challenge, "code_challenge_method": "S256",
        }  # fmt: skip
        return f"{endpoint}?{urlencode(parameters)}"

    def code_of(self, location: str) -> str:
        """Return the code of the redirect back; its state must be ours."""
        found = parse_qs(urlsplit(location).query)
        assert found.get("state") == [self.state], location
        (code,) = found["code"]
        return code

    def form(self, code: str, redirect_uri: str) -> dict[str, str]:
        """Return the parameters that redeem a code."""
        return {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": self.verifier,
        }


class _Form(HTMLParser):
    """The first form of a page: its action and the values of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.values: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "form" and self.action is None:
            self.action = attributes.get("action") or ""
        if tag == "input" and (name := attributes.get("name")):
            self.values[name] = attributes.get("value") or ""


class ScriptedBrowser:
    """Follows redirects and fills in one form. It keeps cookies of plain http on loopback, ``Secure`` ones too."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._cookies: dict[str, str] = {}

    async def log_in(self, url: str, until: str, user: str, password: str) -> str:
        """Open ``url``, log in, and return the first redirect to a URL that begins with ``until``."""
        form: Mapping[str, str] | None = None
        for _ in range(_MOST_STEPS):
            status, location, page = await self._load(url, form)
            form = None
            if location is not None:
                url = urljoin(url, location)
                if url.startswith(until):
                    return url
                continue
            assert status == 200, (url, status, page[:300])
            asked = _Form()
            asked.feed(page)
            assert "username" in asked.values, (url, page[:300])
            form = {**asked.values, "username": user, "password": password}
            url = urljoin(url, asked.action or "")
        raise AssertionError(f"no redirect back after {_MOST_STEPS} steps, but {url}")

    async def _load(self, url: str, form: Mapping[str, str] | None) -> tuple[int, str | None, str]:
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        fields = {"accept": "text/html"} | ({"cookie": cookies} if cookies else {})
        content: dict[str, Any] = {"headers": fields, "allow_redirects": False}
        if form is not None:
            content["data"] = form
        async with self._session.request("GET" if form is None else "POST", url, **content) as answer:
            self._cookies |= {name: morsel.value for name, morsel in answer.cookies.items()}
            return answer.status, answer.headers.get("location"), await answer.text()


async def log_in(
    session: aiohttp.ClientSession,
    client: Client,
    *,
    authorization_endpoint: str,
    token_endpoint: str,
    user: str,
    password: str,
    scope: str,
) -> dict[str, Any]:
    """Log a user in at ``client``; return the members of the token endpoint's answer."""
    pkce = Pkce()
    url = pkce.authorization(authorization_endpoint, client.client_id, scope, REDIRECT_URI)
    code = pkce.code_of(await ScriptedBrowser(session).log_in(url, REDIRECT_URI, user, password))
    fields, parameters = client.credentials()
    form = {**pkce.form(code, REDIRECT_URI), **parameters}
    async with session.post(token_endpoint, data=form, headers=fields) as answer:
        members: dict[str, Any] = await answer.json(content_type=None)
        assert answer.status == 200, (answer.status, members)
        return members
