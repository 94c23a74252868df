"""Authorization codes with PKCE (RFC 6749 section 4.1, RFC 7636) of the development issuer. It uses no socket.

Only programs on this machine get a code: the redirect goes to a loopback address (RFC 8252 section 7.3).
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import urlencode, urlsplit

CODE_LIFE_S: Final = 60
MAX_CODES: Final = 1000


class CodeError(Exception):
    """No code, or no token for it. ``code`` is the error code of RFC 6749."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Asked:
    """An authorization request for a token for ``resource``. ``challenge`` is the PKCE challenge of the client."""

    client: str
    redirect_uri: str
    challenge: str
    scope: str
    resource: str
    state: str

    def back(self, **members: str) -> str:
        """Return the URL of the redirect, with ``members`` in its query."""
        query = {**members, **({"state": self.state} if self.state else {})}
        joint = "&" if "?" in self.redirect_uri else "?"
        return f"{self.redirect_uri}{joint}{urlencode(query)}"


@dataclass(frozen=True, slots=True)
class _Granted:
    asked: Asked
    user: str
    expires_at: float


class Codes:
    """Issued, unredeemed codes. ``clock`` gives seconds since the epoch."""

    def __init__(self, clients: frozenset[str], clock: Callable[[], float]) -> None:
        self._clients = clients
        self._clock = clock
        self._granted: dict[str, _Granted] = {}

    def parse(self, query: Mapping[str, str]) -> Asked:
        """Parse an authorization request.

        Raises:
            CodeError: the request is malformed; do not redirect the browser.
        """
        asked = Asked(
            client=query.get("client_id", ""),
            redirect_uri=query.get("redirect_uri", ""),
            challenge=query.get("code_challenge", ""),
            scope=query.get("scope", ""),
            resource=query.get("resource", ""),
            state=query.get("state", ""),
        )
        if asked.client not in self._clients:
            raise CodeError("unauthorized_client")
        if query.get("response_type") != "code" or not _is_loopback(asked.redirect_uri):
            raise CodeError("invalid_request")
        if query.get("code_challenge_method") != "S256" or len(asked.challenge) != 43:  # base64url of 32 bytes
            raise CodeError("invalid_request")
        return asked

    def grant(self, asked: Asked, user: str) -> str:
        """Return a code for a user who has logged in."""
        now = self._clock()
        self._granted = {code: one for code, one in self._granted.items() if one.expires_at > now}
        if len(self._granted) >= MAX_CODES:
            raise CodeError("temporarily_unavailable")
        code = secrets.token_urlsafe(32)
        self._granted[code] = _Granted(asked, user, now + CODE_LIFE_S)
        return code

    def redeem(self, form: Mapping[str, str]) -> tuple[Asked, str]:
        """Consume a code, also if the call fails. Returns the request that the code was issued for, and the user.

        Raises:
            CodeError: the code is unknown, used or expired, or was issued for another client, redirect URI, challenge
                or resource.
        """
        granted = self._granted.pop(form.get("code", ""), None)
        if granted is None or granted.expires_at <= self._clock():
            raise CodeError("invalid_grant")
        asked, verifier = granted.asked, form.get("code_verifier", "")
        digest = urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode("ascii")
        same = (form.get("client_id"), form.get("redirect_uri")) == (asked.client, asked.redirect_uri)
        if not same or not hmac.compare_digest(digest, asked.challenge):
            raise CodeError("invalid_grant")
        if form.get("resource", asked.resource) != asked.resource:
            raise CodeError("invalid_target")
        return asked, granted.user


def _is_loopback(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        return parts.scheme == "http" and (host == "localhost" or ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return False
