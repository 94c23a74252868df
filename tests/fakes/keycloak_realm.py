"""The token endpoint of a Keycloak realm: it refuses what a real one refuses, with its statuses and errors.

Standard token exchange as a real 26.7.3 does it (tests/interop/test_keycloak_exchange.py asks that one); with
``delegation``, what the source of 26.8's preview feature says. Everything is verified: the client's JWT-SVID by the
trust bundle, the subject and actor tokens by the realm's key.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

import jwt
from jwt.types import Options

from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.lying_sts import ACCESS_TOKEN, Behaviour, Form, LyingSts, Reply
from tests.fakes.tokens import ABSENT, CRM, ISSUER, NOW, PLANNER, WRITER, Claims, TokenMint, changed, encode

JWT_SPIFFE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ALICE: Final = "d6be861e-1614-4cbb-86d3-d91a3c155232"
ACCOUNTS: Final = {
    str(WRITER): "5795bb78-dddf-4b21-b70d-67307d06d096",
    str(PLANNER): "0f0c6a52-9c5b-4f0e-8d57-9f2b7d2c2a11",
}
MAY_ACT: Final = {"sub": ACCOUNTS[str(WRITER)], "client_id": str(WRITER)}
TOO_OLD_S: Final = 300


class RefusedError(Exception):
    """An error answer."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error)
        self.reply = Reply(status, body=encode({"error": error, "error_description": description}))
        self.error = error


class RealmMint(TokenMint):
    """The realm's key: the header says JWT, whatever the token is."""

    def header(self, **changes: object) -> dict[str, object]:
        return super().header(**{"typ": "JWT", **changes})


def login(**changes: object) -> dict[str, object]:
    """Return the claims of alice's login at the front app."""
    lawful: Claims = {
        "iss": ISSUER, "sub": ALICE, "azp": "front-app", "aud": [str(WRITER), str(CRM)], "typ": "Bearer",
        "scope": "openid crm.read", "iat": NOW - 10, "auth_time": NOW - 10, "exp": NOW + 290, "acr": "1",
        "sid": "tMIkE72ITLZdorCfQnSU7zbX", "jti": "onrtac:cfce3abb-d089-f231-f13f-a408ff04d5e2",
    }  # fmt: skip
    return changed(lawful, changes)


@dataclass
class KeycloakRealm(LyingSts):
    """``behaviour`` answers a lawful exchange, and ``own`` lawful client credentials: honestly, or with a lie.

    ``exchanging`` are the clients that may exchange, ``scopes`` those that each client may ask for, and ``audiences``
    the clients that each scope reaches.
    """

    mint: TokenMint = field(default_factory=RealmMint)
    bundle: TrustDomainAuthority | None = None
    delegation: bool = False
    clients: frozenset[str] = frozenset({"front-app", str(WRITER), str(PLANNER), str(CRM)})
    exchanging: frozenset[str] = frozenset({str(WRITER), str(PLANNER)})
    scopes: frozenset[str] = frozenset({"crm.read", "crm.write", "mail.send"})
    audiences: dict[str, frozenset[str]] = field(
        default_factory=lambda: {"crm.read": frozenset({str(CRM)}), "crm.write": frozenset({str(CRM)})}
    )
    own: Behaviour = field(default_factory=lambda: honest_own)
    refused: list[str] = field(default_factory=list)
    client: str = ""  # of the request that is being answered
    subject: dict[str, Any] = field(default_factory=dict)

    async def reply(self, form: bytes) -> Reply:
        pairs = parse_qsl(form.decode(), strict_parsing=True)
        parsed = dict(pairs)
        self.forms.append(parsed)
        try:
            return self._judged(parsed, doubled=len(parsed) != len(pairs))(self, parsed)
        except RefusedError as refusal:
            self.refused.append(refusal.error)
            return refusal.reply

    def claims(self, form: Form, **changes: object) -> dict[str, object]:
        """Return the claims of the token that this exchange gives, changed."""
        acting = self.delegation and "actor_token" in form
        session: Claims = {} if acting else {name: self.subject[name] for name in ("sid", "auth_time")}
        lawful: Claims = {
            "iss": self.mint.issuer, "sub": self.subject["sub"], "aud": form["audience"], "azp": self.client,
            "typ": "Bearer", "scope": form["scope"], "iat": NOW, "exp": NOW + 240, **session,
            "jti": f"{'trrtte' if acting else 'ntrtte'}:{len(self.forms)}",
            "act": self.subject["may_act"] if acting else ABSENT,
        }  # fmt: skip
        return changed(lawful, changes)

    def members(self, form: Form, token: str, **changes: object) -> dict[str, object]:
        lawful: Claims = {
            "access_token": token, "expires_in": 240, "refresh_expires_in": 0, "token_type": "Bearer",
            "not-before-policy": 0, "session_state": self.subject.get("sid", ABSENT), "scope": form["scope"],
            "issued_token_type": ACCESS_TOKEN,
        }  # fmt: skip
        return changed(lawful, changes)

    def own_claims(self, **changes: object) -> dict[str, object]:
        """Return the claims of the client's own token, changed."""
        lawful: Claims = {
            "iss": self.mint.issuer, "sub": ACCOUNTS[self.client], "azp": self.client, "client_id": self.client,
            "typ": "Bearer", "iat": NOW, "exp": NOW + 300, "jti": f"trrtcc:{len(self.forms)}",
        }  # fmt: skip
        return changed(lawful, changes)

    def _judged(self, form: Form, *, doubled: bool) -> Behaviour:
        """Return what answers a lawful request."""
        if doubled:
            raise RefusedError("invalid_request", "duplicated parameter")
        self.client = self._authenticated(form)
        if form.get("grant_type") == "client_credentials":
            return self.own
        if form.get("grant_type") != EXCHANGE:
            raise RefusedError("unsupported_grant_type", "Unsupported grant_type")
        self._check(form)
        return self.behaviour

    def _authenticated(self, form: Form) -> str:
        """Return the client of a JWT-SVID, as the identity provider ``spiffe`` finds it."""
        if form.get("client_assertion_type") != JWT_SPIFFE or self.bundle is None:
            raise RefusedError("invalid_client", "Invalid client or Invalid client credentials", 401)
        try:
            keys = {key["kid"]: key for key in json.loads(self.bundle.jwt_bundle())["keys"]}
            assertion = form["client_assertion"]
            key = jwt.PyJWK(keys[jwt.get_unverified_header(assertion)["kid"]], algorithm="ES256")
            claims: dict[str, Any] = jwt.decode(
                assertion, key, algorithms=["ES256"], options={"verify_aud": False, "verify_exp": False}
            )
        except (KeyError, jwt.PyJWTError) as error:
            raise RefusedError("invalid_client", "Invalid client or Invalid client credentials", 401) from error
        if claims["sub"] not in self.clients & ACCOUNTS.keys():
            raise RefusedError("invalid_client", "Invalid client or Invalid client credentials", 401)
        if form.get("client_id", claims["sub"]) != claims["sub"]:
            raise RefusedError("unauthorized_client", "Invalid client or Invalid client credentials", 401)
        if len(claims["aud"]) != 1:
            raise RefusedError("invalid_client", "Multiple audiences not allowed")
        if claims["aud"] != [self.mint.issuer]:
            raise RefusedError("invalid_client", "Invalid token audience")
        if claims["exp"] <= time.time():
            raise RefusedError("invalid_client", "Token is not active")
        if claims["iat"] < time.time() - TOO_OLD_S:
            raise RefusedError("invalid_client", "Token was issued too far in the past to be used now")
        return str(claims["sub"])

    def _check(self, form: Form) -> None:
        if self.client not in self.exchanging:
            raise RefusedError("invalid_request", "Standard token exchange is not enabled for the requested client")
        if form.get("subject_token_type") != ACCESS_TOKEN:
            raise RefusedError("invalid_request", "Parameter 'subject_token' supports access tokens only")
        self.subject = self._active(form["subject_token"], "Invalid token")
        if self.delegation and "actor_token" in form:
            self._check_actor(form)
        if form.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:
            raise RefusedError("invalid_request", "requested_token_type unsupported")
        if form["audience"] not in self.clients:
            raise RefusedError("invalid_client", "Audience not found")
        if self.subject["azp"] != self.client and self.client not in self.subject["aud"]:
            raise RefusedError("access_denied", "Client is not within the token audience", 403)
        asked = form["scope"].split()
        if not self.scopes.issuperset(asked):
            raise RefusedError("invalid_scope", f"Invalid scopes: {form['scope']}")
        if form["audience"] not in frozenset().union(*(self.audiences.get(one, frozenset()) for one in asked)):
            raise RefusedError("invalid_request", f"Requested audience not available: {form['audience']}")

    def _check_actor(self, form: Form) -> None:
        """Check what makes a delegation: our own token, and a ``may_act`` that names its account and client."""
        if form.get("actor_token_type") != ACCESS_TOKEN:
            raise RefusedError("invalid_request", "Invalid actor token type")
        actor = self._active(form["actor_token"], "Invalid actor token")
        if actor["azp"] != self.client and self.client not in actor.get("aud", ()):
            raise RefusedError("access_denied", "Client is not within the token audience", 403)
        if actor["sub"] == self.subject["sub"]:
            raise RefusedError("invalid_request", "Actor and subject user cannot be the same user")
        may_act = self.subject.get("may_act")
        if not isinstance(may_act, dict) or not isinstance(may_act.get("sub"), str):
            raise RefusedError("invalid_request", "Invalid may_act claim in the subject_token")
        if may_act["sub"] != actor["sub"]:
            raise RefusedError(
                "invalid_request", "Actor user is not allowed by the may_act claim inside the subject_token"
            )
        if may_act.get("client_id", actor["azp"]) != actor["azp"]:
            raise RefusedError(
                "invalid_request", "Actor token client does not match the client_id in the may_act claim"
            )
        if may_act.get("client_id", self.client) != self.client:
            raise RefusedError("invalid_request", "Requesting client does not match the client_id in the may_act claim")

    def _active(self, token: str, otherwise: str) -> dict[str, Any]:
        """Return the claims of an access token of this realm that is valid now."""
        key = self.mint.private_key.public_key()
        checks: Options = {"verify_aud": False, "verify_exp": False, "verify_iat": False}
        try:
            claims: dict[str, Any] = jwt.decode(token, key, algorithms=[self.mint.algorithm], options=checks)
        except jwt.PyJWTError as error:
            raise RefusedError("invalid_request", otherwise) from error
        if claims["iss"] != self.mint.issuer or claims["typ"] != "Bearer" or claims["exp"] <= NOW:
            raise RefusedError("invalid_request", otherwise)
        return claims


def honest_own(sts: LyingSts, form: Form) -> Reply:
    return own()(sts, form)


def own(**changes: object) -> Behaviour:
    """The answer to client credentials, with other members."""

    def answer(sts: LyingSts, _form: Form) -> Reply:
        assert isinstance(sts, KeycloakRealm)
        lawful: Claims = {
            "access_token": sts.mint.mint(sts.own_claims()), "expires_in": 300, "refresh_expires_in": 0,
            "token_type": "Bearer", "not-before-policy": 0, "scope": "",
        }  # fmt: skip
        return Reply(body=encode(changed(lawful, changes)))

    return answer
