"""An authorization server where a user agrees to an agent, by draft-oauth-ai-agents-on-behalf-of-user-02 or by the
Agent Authorization Grant. It knows the keys of one trust domain and its registrations; nothing of the sidecar's code.

It refuses what a real one refuses: an unregistered client, redirect URI, actor or resource, no PKCE, a code that is
used again, expired or another's, an actor token of another, polls that come too soon. ``lie`` replaces the answers of
its token endpoint, ``claims`` those of its tokens.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import jwt
from aiohttp import web

from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.tokens import TokenMint

ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DEVICE: Final = "urn:ietf:params:oauth:grant-type:device_code"
AGENT: Final = "urn:ietf:params:oauth:grant-type:agent_authorization"
CODE_S: Final = 60

Form = dict[str, str]


class RefusedError(Exception):
    """A refusal: the status, and the error code of its standard."""

    def __init__(self, error: str, status: int = 400) -> None:
        super().__init__(error)
        self.error, self.status = error, status


@dataclass
class Asked:
    """A question to a user, and what has become of it."""

    client: str
    scope: str
    resource: str
    actor: str
    redirect_uri: str = ""
    state: str = ""
    challenge: str = ""
    reason: str = ""
    user: str | None = None
    denied: bool = False
    used: bool = False
    expires_at: float = 0.0
    polled_at: float = 0.0


@dataclass
class UserServer:
    """``clients`` by name with their redirect URIs, ``targets`` with their scopes; each client is an actor too."""

    authority: TrustDomainAuthority
    clients: Mapping[str, list[str]]
    targets: Mapping[str, str]
    issuer: str = ""
    names_itself: bool = True
    names_actor: bool = True
    interval_s: int = 1
    life_s: int = 300
    claims: dict[str, object] = field(default_factory=dict)
    lie: Callable[[Form], web.Response | None] = lambda _form: None
    metadata: dict[str, object] = field(default_factory=dict)
    asked: dict[str, Asked] = field(default_factory=dict)  # by code, request or request code
    forms: list[tuple[str, Form]] = field(default_factory=list)  # of all POSTs but the user's, with their paths
    refused: list[str] = field(default_factory=list)
    issued: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mint = TokenMint(self.issuer, kid="u1", key=9)
        self.polled = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/.well-known/oauth-authorization-server", self._metadata)
        app.router.add_get("/jwks", self._jwks)
        app.router.add_get("/authorize", self._answered(self._authorize))
        app.router.add_post("/consent", self._answered(self._consent))
        app.router.add_post("/token", self._answered(self._token))
        app.router.add_post("/agent_authorization", self._answered(self._agent))
        return app

    def answer(self, user: str, *, denies: bool = False) -> None:
        """Let a user answer the request of the agent grant that is open."""
        (asked,) = (one for one in self.asked.values() if not one.redirect_uri and one.user is None)
        asked.user, asked.denied = user, denies

    @property
    def tokens_asked(self) -> int:
        return sum(path == "/token" for path, _ in self.forms)

    def _answered(self, handle: Callable[[web.Request], Any]) -> Callable[[web.Request], Any]:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                result: web.StreamResponse = await handle(request)
            except RefusedError as refused:
                self.refused.append(refused.error)
                return web.json_response(
                    {"error": refused.error, "error_description": "s3cret-of-the-sts"}, status=refused.status
                )
            return result

        return answer

    async def _metadata(self, _request: web.Request) -> web.Response:
        members = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "agent_authorization_endpoint": f"{self.issuer}/agent_authorization",
            "jwks_uri": f"{self.issuer}/jwks",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": self.names_itself,
        }
        return web.json_response({**members, **self.metadata})

    async def _jwks(self, _request: web.Request) -> web.Response:
        return web.Response(body=self.mint.jwks, content_type="application/json")

    # --- the authorization code

    async def _authorize(self, request: web.Request) -> web.Response:
        asked = _once(request.query_string)
        redirects = self.clients.get(asked.get("client_id", ""))
        if redirects is None or asked.get("redirect_uri") not in redirects:
            raise RefusedError("unregistered client or redirect URI")  # told here: never redirect to an unknown place
        try:
            return self._consent_page(self._new_request(asked))
        except RefusedError as refused:
            self.refused.append(refused.error)
            return self._back(asked["redirect_uri"], error=refused.error, state=asked.get("state"))

    def _new_request(self, asked: Form) -> str:
        if asked.get("response_type") != "code":
            raise RefusedError("unsupported_response_type")
        if asked.get("code_challenge_method") != "S256" or len(asked.get("code_challenge", "")) != 43:
            raise RefusedError("invalid_request")
        if asked.get("requested_actor") not in self.clients or not asked.get("state"):
            raise RefusedError("invalid_request")
        return self._keep(
            Asked(
                client=asked["client_id"],
                scope=asked.get("scope", ""),
                resource=self._resource(asked),
                actor=asked["requested_actor"],
                redirect_uri=asked["redirect_uri"],
                state=asked["state"],
                challenge=asked["code_challenge"],
            )
        )

    def _resource(self, asked: Form) -> str:
        resource = asked.get("resource", next(iter(self.targets)))
        if resource not in self.targets:
            raise RefusedError("invalid_target")
        scopes = asked.get("scope", "").split()
        if not scopes or not set(scopes) <= set(self.targets[resource].split()):
            raise RefusedError("invalid_scope")
        return resource

    def _consent_page(self, request: str) -> web.Response:
        asked = self.asked[request]
        text = (
            f"<form method=post action=/consent><input name=request value={request} type=hidden>"
            f"<p>{escape(asked.client)} asks: {escape(asked.actor)} acts for you, {escape(asked.scope)}</p></form>"
        )
        return web.Response(text=text, content_type="text/html")

    async def _consent(self, request: web.Request) -> web.Response:
        form = _once(await request.text())
        asked = self.asked.pop(form["request"])
        if form["answer"] != "allow":
            return self._back(asked.redirect_uri, error="access_denied", state=asked.state)
        asked.user, asked.scope = form["user"], form.get("scope", asked.scope)
        asked.expires_at = time.time() + CODE_S
        return self._back(asked.redirect_uri, code=self._keep(asked), state=asked.state)

    def _back(self, redirect_uri: str, **members: str | None) -> web.Response:
        if self.names_itself:
            members["iss"] = self.issuer
        query = urlencode({name: value for name, value in members.items() if value is not None})
        return web.Response(status=302, headers={"Location": f"{redirect_uri}?{query}"})

    # --- the token endpoint

    async def _token(self, request: web.Request) -> web.Response:
        form = _once(await request.text())
        self.forms.append(("/token", form))
        self.polled.set()
        lie = self.lie(form)
        if lie is not None:
            return lie
        client = self._client(form)
        match form.get("grant_type"):
            case "authorization_code":
                return self._grant(self._redeemed(form, client))
            case "urn:ietf:params:oauth:grant-type:device_code":
                return self._grant(self._polled(form, client))
            case _:
                raise RefusedError("unsupported_grant_type")

    def _redeemed(self, form: Form, client: str) -> Asked:
        if not form.get("actor_token"):
            raise RefusedError("invalid_request")
        asked = self.asked.get(form.get("code", ""))
        if (
            asked is None
            or asked.user is None
            or asked.client != client
            or asked.redirect_uri != form.get("redirect_uri")
        ):
            raise RefusedError("invalid_grant")
        if asked.used or time.time() >= asked.expires_at:
            raise RefusedError("invalid_grant")
        asked.used = True
        verifier = sha256(form.get("code_verifier", "").encode()).digest()
        if urlsafe_b64encode(verifier).rstrip(b"=").decode() != asked.challenge:
            raise RefusedError("invalid_grant")
        if self._subject_of(form["actor_token"], "invalid_grant") != asked.actor:
            raise RefusedError("invalid_grant")
        if form.get("resource", asked.resource) != asked.resource:
            raise RefusedError("invalid_target")
        return asked

    # --- the agent authorization grant

    async def _agent(self, request: web.Request) -> web.Response:
        form = _once(await request.text())
        self.forms.append(("/agent_authorization", form))
        lie = self.lie(form)
        if lie is not None:
            return lie
        client = self._client(form)
        if form.get("grant_type") != AGENT:
            raise RefusedError("unsupported_grant_type")
        if not form.get("reason"):
            raise RefusedError("invalid_request")
        asked = Asked(
            client=client,
            scope=form.get("scope", ""),
            resource=self._resource(form),
            actor=client,
            reason=form["reason"],
            expires_at=time.time() + self.life_s,
        )
        return web.json_response(
            {
                "request_code": self._keep(asked),
                "token_endpoint": f"{self.issuer}/token",
                "poll_interval": self.interval_s,
                "expires_in": self.life_s,
                "poll_sse_endpoint": f"{self.issuer}/agent_authorization/sse",
            }
        )

    def _polled(self, form: Form, client: str) -> Asked:
        asked = self.asked.get(form.get("device_code", ""))
        if asked is None or asked.redirect_uri or asked.client != client or asked.used:
            raise RefusedError("invalid_grant")
        now = time.time()
        if now >= asked.expires_at:
            raise RefusedError("expired_token")
        if now < asked.polled_at + self.interval_s:
            raise RefusedError("slow_down")
        asked.polled_at = now
        if asked.denied:
            raise RefusedError("access_denied")
        if asked.user is None:
            raise RefusedError("authorization_pending")
        asked.used = True
        return asked

    # --- both

    def _keep(self, asked: Asked) -> str:
        name = secrets.token_urlsafe(16)
        self.asked[name] = asked
        return name

    def _client(self, form: Form) -> str:
        if form.get("client_assertion_type") != ASSERTION:
            raise RefusedError("invalid_client", 401)
        client = self._subject_of(form.get("client_assertion", ""), "invalid_client", 401)
        if client not in self.clients or form.get("client_id", client) != client:
            raise RefusedError("invalid_client", 401)
        return client

    def _subject_of(self, svid: str, error: str, status: int = 400) -> str:
        key = self.authority.current.jwt_key.public_key()
        try:
            claims = jwt.decode(
                svid, key, algorithms=["ES256"], audience=self.issuer, options={"require": ["exp", "aud", "sub"]}
            )
        except jwt.InvalidTokenError:
            raise RefusedError(error, status) from None
        return str(claims["sub"])

    def _grant(self, asked: Asked) -> web.Response:
        token = self.token(asked)
        self.issued.append(token)
        members = {"access_token": token, "token_type": "Bearer", "expires_in": self.life_s, "scope": asked.scope}
        return web.json_response(members)

    def token(self, asked: Asked, **changes: object) -> str:
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": self.issuer,
            "sub": asked.user,
            "aud": asked.resource,
            "azp": asked.client,
            "scope": asked.scope,
            "iat": now,
            "exp": now + self.life_s,
            "jti": secrets.token_hex(8),
            "sid": f"session-of-{asked.user}",
            "act": {"sub": asked.actor} if self.names_actor else None,
            **self.claims,
            **changes,
        }
        return self.mint.mint({name: value for name, value in claims.items() if value is not None})


def _once(query: str) -> Form:
    """Return the parameters, each of which is there once (RFC 6749 section 3.1)."""
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    if len({name for name, _ in pairs}) != len(pairs):
        raise RefusedError("invalid_request")
    return dict(pairs)


@asynccontextmanager
async def user_server(
    port: int,
    authority: TrustDomainAuthority,
    clients: Mapping[str, list[str]],
    targets: Mapping[str, str],
    **more: Any,
) -> AsyncIterator[UserServer]:
    """Serve on a port of loopback, until the block ends."""
    server = UserServer(authority, clients, targets, issuer=f"http://127.0.0.1:{port}", **more)
    runner = web.AppRunner(server.app(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield server
    finally:
        await runner.cleanup()
