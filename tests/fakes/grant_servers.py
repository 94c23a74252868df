"""Authorization servers that refuse what real ones refuse: one issues JWT grants, the other takes them.

Both speak HTTP on loopback, verify every signature, and answer with the statuses and errors of RFC 6749, 7523 and 8693
and of the two drafts. They share nothing but public keys.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

import jwt

from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.conversations import listening
from tests.fakes.tokens import NOW, TokenMint, encode

GRANT: Final = "urn:ietf:params:oauth:grant-type:"
TYPE: Final = "urn:ietf:params:oauth:token-type:"
ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ID_JAG: Final = f"{TYPE}id-jag"
JWT: Final = f"{TYPE}jwt"

Members = dict[str, Any]


class RefusedError(Exception):
    """An error answer."""

    def __init__(self, error: str, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.status = status


@dataclass
class Server:
    """A token endpoint of ``mint``'s issuer. ``clients`` by the SPIFFE ID of their JWT-SVIDs."""

    mint: TokenMint
    bundle: TrustDomainAuthority
    clients: dict[str, str]
    url: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    redirect: str | None = None  # where every request is sent on to
    clock: Callable[[], int] = lambda: NOW

    def answer(self, form: dict[str, str], client: str) -> Members:
        raise NotImplementedError

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                status, members = self._judge(await reader.readexactly(length))
                body, moved = encode(members), b""
                if self.redirect is not None:
                    status, moved = 307, f"Location: {self.redirect}\r\n".encode()
                writer.write(
                    b"HTTP/1.1 %d X\r\nContent-Type: application/json;charset=UTF-8\r\nCache-Control: no-store\r\n"
                    b"%sContent-Length: %d\r\n\r\n%s" % (status, moved, len(body), body)
                )
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _judge(self, body: bytes) -> tuple[int, Members]:
        try:
            form = _single(body)
            self.asked.append(form)
            return 200, self.answer(form, self._client(form))
        except RefusedError as refusal:
            self.refused.append(refusal.error)
            return refusal.status, {"error": refusal.error, "error_description": "no"}

    def _client(self, form: dict[str, str]) -> str:
        """Return the authenticated client: a JWT-SVID of our trust domain, for this issuer, of the client it names."""
        try:
            assertion = form["client_assertion"]
            keys = {key["kid"]: key for key in json.loads(self.bundle.jwt_bundle())["keys"]}
            key = jwt.PyJWK(keys[jwt.get_unverified_header(assertion)["kid"]], algorithm="ES256")
            claims = jwt.decode(assertion, key, algorithms=["ES256"], audience=[self.mint.issuer, self.url])
            client = self.clients[claims["sub"]]
        except (KeyError, jwt.PyJWTError) as error:
            raise RefusedError("invalid_client", 401) from error
        if form.get("client_assertion_type") != ASSERTION or form.get("client_id", client) != client:
            raise RefusedError("invalid_client", 401)
        return client


@dataclass
class Granting(Server):
    """Issues grants of ``kind`` for ``audiences``, each with the client's name there (None: the draft has none)."""

    kind: str = ID_JAG
    audiences: dict[str, dict[str, str]] = field(default_factory=dict)
    subjects: dict[str, TokenMint] = field(default_factory=dict)  # whose tokens are exchanged, by type
    changes: Members = field(default_factory=dict)

    def answer(self, form: dict[str, str], client: str) -> Members:
        if form.get("grant_type") != f"{GRANT}token-exchange":
            raise RefusedError("unsupported_grant_type")
        issuer = self.subjects.get(form.get("subject_token_type", ""))
        if form.get("requested_token_type") != self.kind or issuer is None or not form.get("subject_token"):
            raise RefusedError("invalid_request")
        subject = verified(form["subject_token"], issuer, "invalid_request", self.clock())
        if self.kind == ID_JAG and subject["aud"] != client:
            raise RefusedError("invalid_grant")  # "Audience validation failed" (section 4.3.4)
        audience = form.get("audience") or form.get("resource", "")
        if audience not in self.audiences:
            raise RefusedError("invalid_target")
        claims: Members = {
            "iss": self.mint.issuer,
            "sub": subject["sub"],
            "aud": audience,
            "jti": f"grant-{len(self.asked)}",
            "iat": self.clock(),
            "exp": self.clock() + 60,
            "scope": form.get("scope", ""),
        }
        if self.kind == ID_JAG:
            claims |= {"client_id": self.audiences[audience][client], "resource": form["resource"]}
        else:  # transcribed: the chain with the client that acts, and who the user was here
            claims |= {name: subject[name] for name in ("txn", "auth_time", "acr", "sid") if name in subject}
            claims["act"] = {"sub": client, **({"act": subject["act"]} if "act" in subject else {})}
            claims["sub_id"] = subject.get("sub_id") or {
                "format": "iss_sub", "iss": subject["iss"], "sub": subject["sub"],
            }  # fmt: skip
        typ = "oauth-id-jag+jwt" if self.kind == ID_JAG else "JWT"
        grant = self.mint.mint({**claims, **self.changes}, self.mint.header(typ=typ))
        return {"access_token": grant, "issued_token_type": self.kind, "token_type": "N_A", "expires_in": 60}


@dataclass
class Taking(Server):
    """Takes grants of ``granting``'s issuer, of ``kind``, each once, for access to ``resources``."""

    granting: TokenMint = field(default_factory=TokenMint)
    kind: str = ID_JAG
    resources: frozenset[str] = frozenset()
    prefix: str = ""
    changes: Members = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def answer(self, form: dict[str, str], client: str) -> Members:
        if form.get("grant_type") != f"{GRANT}jwt-bearer":
            raise RefusedError("unsupported_grant_type")
        if not form.get("assertion"):
            raise RefusedError("invalid_request")
        grant = verified(form["assertion"], self.granting, "invalid_grant", self.clock())
        typ = jwt.get_unverified_header(form["assertion"]).get("typ")
        if (typ == "oauth-id-jag+jwt") != (self.kind == ID_JAG) or typ == "at+jwt":
            raise RefusedError("invalid_grant")
        if grant["aud"] != self.mint.issuer or grant["exp"] <= self.clock() or grant["jti"] in self.used:
            raise RefusedError("invalid_grant")
        if self.kind == ID_JAG and grant["client_id"] != client:
            raise RefusedError("invalid_grant")
        target = grant.get("resource") or form.get("resource", "")
        if target not in self.resources:
            raise RefusedError("invalid_target")
        self.used.add(grant["jti"])
        scope = form.get("scope") or grant["scope"]
        claims: Members = {
            "iss": self.mint.issuer,
            "sub": self.prefix + grant["sub"],
            "aud": target,
            "client_id": client,
            "scope": scope,
            "jti": f"access-{len(self.asked)}",
            "iat": self.clock(),
            "exp": self.clock() + 200,
        }
        kept = ("act", "sub_id", "txn", "auth_time", "acr", "sid")
        claims |= {name: grant[name] for name in kept if name in grant}
        token = self.mint.mint({**claims, **self.changes})
        return {"access_token": token, "token_type": "Bearer", "expires_in": 200, "scope": scope}


def _single(body: bytes) -> dict[str, str]:
    """Return the parameters of a form, none of which is repeated (RFC 6749 section 3.2)."""
    parsed = parse_qs(body.decode(), keep_blank_values=True)
    if any(len(values) > 1 for values in parsed.values()):
        raise RefusedError("invalid_request")
    return {name: values[0] for name, values in parsed.items()}


def verified(token: str, by: TokenMint, error: str, now: int) -> Members:
    """Return the claims of a token, signed by this issuer and not expired at ``now``."""
    try:
        unchecked: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False}
        claims: Members = jwt.decode(
            token, by.private_key.public_key(), algorithms=["ES256"], issuer=by.issuer, options=unchecked
        )
    except jwt.PyJWTError as failure:
        raise RefusedError(error) from failure
    if claims["exp"] <= now:
        raise RefusedError(error)
    return claims


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[None]:
    """Serve on a free port of loopback, until the block ends."""
    async with listening(server.serve) as port:
        server.url = f"http://127.0.0.1:{port}/token"
        yield
