"""A provider's token endpoint, built from the providers' documentation: one server with the rules of all of them.

It knows the keys of one trust domain and the audience under which it takes a JWT-SVID; nothing of the sidecar's code.
What a test sets in ``lie`` replaces its next answers, byte for byte.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

import jwt

from sidecar_dev.pki import TrustDomainAuthority

EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
ACCESS: Final = "urn:ietf:params:oauth:token-type:access_token"

# By path: media type, the member with the JWT-SVID, and what else must be there, exactly.
_RULES: Final[dict[str, tuple[str, str, dict[str, str]]]] = {
    "/openai": (
        "application/json",
        "subject_token",
        {
            "grant_type": EXCHANGE,
            "subject_token_type": JWT,
            "identity_provider_id": "idp_1",
            "service_account_id": "sa_1",
        },
    ),
    "/anthropic": (
        "application/json",
        "assertion",
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "federation_rule_id": "fdrl_1",
            "organization_id": "0f0e",
            "service_account_id": "svac_1",
        },
    ),
    "/google": (
        "application/x-www-form-urlencoded",
        "subject_token",
        {
            "grant_type": EXCHANGE,
            "audience": "//iam.googleapis.com/pool",
            "scope": "https://www.googleapis.com/auth/cloud-platform",
            "requested_token_type": ACCESS,
            "subject_token_type": JWT,
        },
    ),
    "/azure": (
        "application/x-www-form-urlencoded",
        "client_assertion",
        {
            "grant_type": "client_credentials",
            "client_id": "app-1",
            "scope": "https://ai.example/.default",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        },
    ),
    "/aws": (
        "application/x-www-form-urlencoded",
        "WebIdentityToken",
        {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": "arn:aws:iam::1:role/agent",
            "RoleSessionName": "writer",
            "DurationSeconds": "3600",
        },
    ),
}
ACCOUNT: Final = "/v1/projects/-/serviceAccounts/a@p.example:generateAccessToken"


@dataclass
class TokenProvider:
    """The endpoint. ``issued`` are its tokens, ``shown`` the JWT-SVIDs, ``refused`` its reasons."""

    authority: TrustDomainAuthority
    audience: str
    subject: str
    issued: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    lie: bytes | asyncio.Future[bytes] | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request on each connection."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.split("\r\n")
            fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            body = await reader.readexactly(int(fields["content-length"]))
            lie = self.lie
            if lie is None:
                writer.write(self._answer(first.split()[1], fields, body))
            else:
                writer.write(lie if isinstance(lie, bytes) else await lie)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, path: str, fields: dict[str, str], body: bytes) -> bytes:
        if path == ACCOUNT:
            return self._account(fields, body)
        media_type, holder, wanted = _RULES[path]
        if fields["content-type"] != media_type:
            return self._refuse("media type")
        read: Callable[[bytes], Any] = (
            json.loads
            if media_type == "application/json"
            else lambda raw: dict(parse_qsl(raw.decode(), strict_parsing=True))
        )
        members = read(body)
        svid = members.pop(holder, "")
        if members != wanted:
            return self._refuse("members")
        if path == "/anthropic" and "oidc-federation-2026-04-01" not in fields.get("anthropic-beta", ""):
            return self._refuse("beta")
        self.shown.append(svid)
        try:
            claims = jwt.decode(
                svid,
                self.authority.current.jwt_key.public_key(),
                algorithms=["ES256"],
                audience=self.audience,
                options={"require": ["exp", "aud", "sub"]},
            )
        except jwt.InvalidTokenError as error:
            return self._refuse(type(error).__name__)
        if claims["aud"] not in (self.audience, [self.audience]) or claims["sub"] != self.subject:
            return self._refuse("audience or subject")
        if path == "/aws":
            return self._credentials(fields)
        return _json(
            {"issued_token_type": ACCESS, "access_token": self._issue(), "token_type": "Bearer", "expires_in": 3600}
        )

    def _credentials(self, fields: dict[str, str]) -> bytes:
        if fields["accept"] != "text/xml":
            return self._refuse("accept")
        ends = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = (
            '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
            "<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIA1</AccessKeyId>"
            f"<SecretAccessKey>secret</SecretAccessKey><SessionToken>{self._issue()}</SessionToken>"
            f"<Expiration>{ends}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
            "</AssumeRoleWithWebIdentityResponse>"
        )
        return answer(body.encode(), b"text/xml")

    def _account(self, fields: dict[str, str], body: bytes) -> bytes:
        if fields.get("authorization") != f"Bearer {self.issued[-1]}":
            return self._refuse("federated token")
        if json.loads(body) != {"scope": ["https://www.googleapis.com/auth/cloud-platform"]}:
            return self._refuse("members")
        ends = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return _json({"accessToken": self._issue(), "expireTime": ends})

    def _issue(self) -> str:
        self.issued.append(f"token-{secrets.token_hex(16)}")
        return self.issued[-1]

    def _refuse(self, why: str) -> bytes:
        self.refused.append(why)
        return _json({"error": "invalid_grant", "error_description": why}, b"400 Bad Request")


def _json(members: dict[str, object], status: bytes = b"200 OK") -> bytes:
    return answer(json.dumps(members).encode(), b"application/json; charset=utf-8", status)


def answer(body: bytes, content_type: bytes, status: bytes = b"200 OK", more: bytes = b"") -> bytes:
    """Make an answer's bytes."""
    head = b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n"
    return head % (status, content_type, len(body), more) + body
