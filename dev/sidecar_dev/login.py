"""Test users and the tokens that they get when they log in. It uses no socket.

The tokens are an ID token (OpenID Connect Core section 2) and an access token (RFC 9068). They name a user and a
client, never an actor: a login delegates nothing.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from delegation_core.scope import ScopeError, format_scope, parse_scope
from sidecar_dev.codes import Asked, CodeError, Codes

MAX_FORM_BYTES: Final = 8192
_MAX_AUDIENCE: Final = 2048


class LoginError(Exception):
    """The request is refused. ``code`` is the error code of RFC 6749 section 5.2."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginSettings:
    """Users and clients. ``users`` maps names to passwords, None: no password. ``clients`` are OAuth client IDs."""

    users: Mapping[str, str | None] = field(repr=False)
    clients: frozenset[str]
    life_s: int = 3600


@dataclass(frozen=True, slots=True)
class _Key:
    kid: str
    private: ec.EllipticCurvePrivateKey = field(repr=False)


class UserIssuer:
    """Logs users in at ``issuer`` (a URL). Its keys live in memory; ``clock`` gives seconds since the epoch."""

    def __init__(self, issuer: str, settings: LoginSettings, *, clock: Callable[[], float] = time.time) -> None:
        self.issuer = issuer
        self._settings = settings
        self._clock = clock
        self._keys = [_new_key()]  # the current one is last
        self._codes = Codes(settings.clients, clock)

    def rotate(self) -> None:
        """Sign with a new key; the previous key stays published."""
        self._keys = [self._keys[-1], _new_key()]

    def metadata(self) -> dict[str, object]:
        """The discovery document (OpenID Connect Discovery section 3)."""
        return {
            "issuer": self.issuer,
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "authorization_endpoint": f"{self.issuer}/authorize",
            "grant_types_supported": ["authorization_code", "password"],
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "development_only": True,
        }

    def jwks(self) -> dict[str, object]:
        """The public keys."""
        return {"keys": [_public_jwk(key) for key in self._keys]}

    def log_in(self, form: bytes) -> dict[str, object]:
        """Answer a token request: form fields grant_type=password, username, password, client_id, audience?, scope?.

        Or grant_type=authorization_code, code, redirect_uri, client_id, code_verifier, resource?. Without ``audience``
        or ``resource`` the access token is for the client itself.

        Raises:
            LoginError: with the code to answer.
        """
        fields = _fields(form)
        if fields.get("grant_type") == "authorization_code":
            return self._redeem(fields)
        if fields.get("grant_type") != "password":
            raise LoginError("unsupported_grant_type" if "grant_type" in fields else "invalid_request")
        client = fields.get("client_id", "")
        if client not in self._settings.clients:
            raise LoginError("invalid_client")
        user = fields.get("username", "")
        self._check_password(user, fields.get("password", ""))
        scope = _scope(fields.get("scope", ""))
        audience = fields.get("audience") or client
        if len(audience) > _MAX_AUDIENCE or not audience.isprintable():
            raise LoginError("invalid_target")
        return self._tokens(user, client, audience, scope)

    def asked(self, query: str) -> Asked:
        """Parse an authorization request.

        Raises:
            LoginError: the request is malformed.
        """
        fields = _fields(query.encode("ascii", "replace"))
        _scope(fields.get("scope", ""))
        try:
            return self._codes.parse(fields)
        except CodeError as error:
            raise LoginError(error.code) from error

    def let_in(self, asked: Asked, form: bytes) -> str:
        """Log a user in by the form fields username and password, and return the URL of the redirect.

        Raises:
            LoginError: the password is wrong, or too many codes are unredeemed.
        """
        fields = _fields(form)
        user = fields.get("username", "")
        self._check_password(user, fields.get("password", ""))
        try:
            return asked.back(code=self._codes.grant(asked, user), iss=self.issuer)
        except CodeError as error:
            raise LoginError(error.code) from error

    def _redeem(self, fields: Mapping[str, str]) -> dict[str, object]:
        try:
            asked, user = self._codes.redeem(fields)
        except CodeError as error:
            raise LoginError(error.code) from error
        return self._tokens(user, asked.client, asked.resource or asked.client, _scope(asked.scope))

    def _check_password(self, user: str, password: str) -> None:
        if user not in self._settings.users:
            raise LoginError("invalid_grant")
        expected = self._settings.users[user]
        if expected is not None and not hmac.compare_digest(expected.encode(), password.encode()):
            raise LoginError("invalid_grant")

    def _tokens(self, user: str, client: str, audience: str, scope: str) -> dict[str, object]:
        now = int(self._clock())
        claims: dict[str, object] = {
            "iss": self.issuer,
            "sub": user,
            "azp": client,
            "iat": now,
            "exp": now + self._settings.life_s,
            "auth_time": now,
        }
        access = {**claims, "aud": audience, "client_id": client, "scope": scope}
        return {
            "access_token": self._sign("at+jwt", access),
            "id_token": self._sign("JWT", {**claims, "aud": client}),
            "token_type": "Bearer",
            "expires_in": self._settings.life_s,
            "scope": scope,
        }

    def _sign(self, typ: str, claims: Mapping[str, object]) -> str:
        key = self._keys[-1]
        headers = {"typ": typ, "kid": key.kid}
        return jwt.encode({**claims, "jti": secrets.token_urlsafe(16)}, key.private, algorithm="ES256", headers=headers)


def _fields(form: bytes) -> dict[str, str]:
    """Return the form's non-empty fields. Raises LoginError for a repeated one (RFC 6749 section 3.2)."""
    try:
        pairs: Sequence[tuple[str, str]] = parse_qsl(
            form.decode("ascii"), keep_blank_values=True, strict_parsing=bool(form), errors="strict", max_num_fields=32
        )
    except ValueError as error:
        raise LoginError("invalid_request") from error
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise LoginError("invalid_request")
    return {name: value for name, value in fields.items() if value}


def _scope(text: str) -> str:
    try:
        return format_scope(parse_scope(text))
    except ScopeError as error:
        raise LoginError("invalid_scope") from error


def _new_key() -> _Key:
    return _Key(secrets.token_urlsafe(12), ec.generate_private_key(ec.SECP256R1()))


def _public_jwk(key: _Key) -> dict[str, object]:
    members = ECAlgorithm.to_jwk(key.private.public_key(), as_dict=True)
    return {**members, "kid": key.kid, "use": "sig", "alg": "ES256"}
