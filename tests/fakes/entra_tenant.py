"""The token endpoint of a Microsoft Entra tenant, for blueprints and agent identities.

It follows Microsoft's documentation (agent-on-behalf-of-oauth-flow and agent-token-claims, November 2026, and the pages
on OBO and federated credentials), whose error codes stand beside each refusal. Every token in a request is verified.
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
from tests.fakes.lying_sts import Behaviour, Form, LyingSts, Reply
from tests.fakes.tokens import ISSUER, NOW, WRITER, Claims, TokenMint, changed, encode

JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
FOR_EXCHANGE: Final = "api://AzureADTokenExchange"
BLUEPRINT: Final = "30cf4c22-9985-4ef7-8756-91cc888176bd"
AGENT: Final = "aaaaaaaa-1111-2222-3333-444444444444"
SIBLING: Final = "aaaaaaaa-5555-6666-7777-888888888888"
FRONT: Final = "66666666-7777-8888-9999-000000000000"
CRM_API: Final = "f2510d34-8dca-4ab8-a0bc-aaec4d3a3e36"
ALICE: Final = "bbbbbbbb-1111-2222-3333-444444444444"
_UNCHECKED: Final[Options] = {"verify_aud": False, "verify_exp": False, "verify_iat": False, "verify_nbf": False}


class RefusedError(Exception):
    """An error answer; ``code`` is Microsoft's."""

    def __init__(self, error: str, code: int, status: int = 400) -> None:
        super().__init__(error)
        document = {"error": error, "error_description": f"AADSTS{code}: no.", "error_codes": [code], "trace_id": "0"}
        self.reply = Reply(status, body=encode(document))
        self.code = code


class TenantMint(TokenMint):
    """The tenant's key: RSA, and a header that says JWT, whatever the token is."""

    def __init__(self, *, key: int = 0) -> None:
        super().__init__(ISSUER, algorithm="RS256", key=key)

    def header(self, **changes: object) -> dict[str, object]:
        return super().header(**{"typ": "JWT", **changes})


def login(**changes: object) -> dict[str, object]:
    """Return the claims of alice's token for the blueprint, got by the front app."""
    lawful: Claims = {
        "iss": ISSUER, "aud": BLUEPRINT, "azp": FRONT, "azpacr": "0", "oid": ALICE, "sub": "pairwise-at-blueprint",
        "scp": "crm.read", "idtyp": "user", "tid": "t", "uti": "m5RaaRnoFUyp2TbSCAAAAA", "ver": "2.0",
        "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 290,
    }  # fmt: skip
    return changed(lawful, changes)


@dataclass
class EntraTenant(LyingSts):
    """``behaviour`` answers a lawful exchange, ``parent`` a lawful request of the blueprint: honestly, or with a lie.

    ``federated`` is the workload that may authenticate as the blueprint, ``agents`` are its agent identities, and
    ``granted`` the permissions of each resource, which an issued token has all, whichever were asked for.
    """

    mint: TokenMint = field(default_factory=TenantMint)
    bundle: TrustDomainAuthority | None = None
    federated: str = str(WRITER)
    secret: str | None = None
    agents: frozenset[str] = frozenset({AGENT, SIBLING})
    granted: dict[str, frozenset[str]] = field(default_factory=lambda: {CRM_API: frozenset({"crm.read"})})
    exposed: frozenset[str] = frozenset({"crm.read", "crm.write"})
    mfa: bool = False
    parent: Behaviour = field(default_factory=lambda: honest_parent)
    codes: list[int] = field(default_factory=list)
    user: dict[str, Any] = field(default_factory=dict)

    async def reply(self, form: bytes) -> Reply:
        parsed = dict(parse_qsl(form.decode(), strict_parsing=True))
        self.forms.append(parsed)
        try:
            return self._judged(parsed)(self, parsed)
        except RefusedError as refusal:
            self.codes.append(refusal.code)
            return refusal.reply

    def claims(self, form: Form, **changes: object) -> dict[str, object]:
        """Return the claims of the token that this exchange gives, changed."""
        resource = form["scope"].split()[0].rpartition("/")[0]
        lawful: Claims = {
            "iss": self.mint.issuer, "aud": resource, "azp": form["client_id"], "azpacr": "2", "idtyp": "user",
            "oid": self.user["oid"], "sub": f"pairwise-at-{resource}", "tid": "t", "ver": "2.0",
            "scp": " ".join(sorted(self.granted[resource])), "xms_act_fct": "3 9 11", "xms_sub_fct": "3",
            "xms_idrel": "1", "xms_par_app_azp": BLUEPRINT, "uti": f"uti-{len(self.forms)}",
            "iat": NOW, "nbf": NOW, "exp": NOW + 280,
        }  # fmt: skip
        return changed(lawful, changes)

    def members(self, form: Form, token: str, **changes: object) -> dict[str, object]:
        lawful: Claims = {
            "token_type": "Bearer", "scope": form["scope"], "expires_in": 280, "ext_expires_in": 280,
            "access_token": token,
        }  # fmt: skip
        return changed(lawful, changes)

    def parent_claims(self, form: Form, **changes: object) -> dict[str, object]:
        """Return the claims of T1, the blueprint's token for one of its agents, changed."""
        lawful: Claims = {
            "iss": self.mint.issuer, "aud": BLUEPRINT, "sub": f"/eid1/c/pub/t/x/a/y/{form['fmi_path']}",
            "iat": NOW, "exp": NOW + 3600,
        }  # fmt: skip
        return changed(lawful, changes)

    def _judged(self, form: Form) -> Behaviour:
        """Return what answers a lawful request."""
        if form.get("grant_type") == "client_credentials":
            self._check_blueprint(form)
            return self.parent
        if form.get("grant_type") != JWT_BEARER:
            raise RefusedError("unsupported_grant_type", 70003)
        self._check_agent(form)
        self._check_user(form)
        return self.behaviour

    def _check_blueprint(self, form: Form) -> None:
        """Check the blueprint's credential (our JWT-SVID, or a secret) and the agent identity that it names."""
        if form.get("client_id") != BLUEPRINT:
            raise RefusedError("unauthorized_client", 700016)
        if form.get("scope") != f"{FOR_EXCHANGE}/.default":
            raise RefusedError("invalid_scope", 1002012)
        if self.secret is None:
            self._check_federated(form)
        elif form.get("client_secret") != self.secret:
            raise RefusedError("invalid_client", 7000215, 401)
        if form.get("fmi_path") not in self.agents:
            raise RefusedError("invalid_request", 700211)

    def _check_federated(self, form: Form) -> None:
        if form.get("client_assertion_type") != ASSERTION or self.bundle is None:
            raise RefusedError("invalid_client", 7000216, 401)
        assertion = form["client_assertion"]
        keys = {key["kid"]: key for key in json.loads(self.bundle.jwt_bundle())["keys"]}
        try:
            key = jwt.PyJWK(keys[jwt.get_unverified_header(assertion)["kid"]], algorithm="ES256")
            claims: dict[str, Any] = jwt.decode(assertion, key, algorithms=["ES256"], options=_UNCHECKED)
        except (KeyError, jwt.PyJWTError) as error:
            raise RefusedError("invalid_client", 700027, 401) from error
        if claims["aud"] != [FOR_EXCHANGE]:
            raise RefusedError("invalid_client", 700212, 401)
        if claims["sub"] != self.federated:
            raise RefusedError("invalid_client", 700213, 401)
        if claims["exp"] <= time.time():
            raise RefusedError("invalid_client", 700024, 401)

    def _check_agent(self, form: Form) -> None:
        """Check the agent identity's only credential: T1 for it, by this tenant."""
        if form.get("client_id") not in self.agents:
            raise RefusedError("unauthorized_client", 700016)
        if form.get("client_assertion_type") != ASSERTION:
            raise RefusedError("invalid_client", 7000216, 401)
        claims = self._own(form["client_assertion"], "invalid_client", 700027, 401)
        if claims["aud"] != BLUEPRINT or claims["sub"].rpartition("/")[2] != form["client_id"]:
            raise RefusedError("invalid_client", 700213, 401)
        if claims["exp"] <= NOW:
            raise RefusedError("invalid_client", 700024, 401)

    def _check_user(self, form: Form) -> None:
        """Check the user's token, the one resource, and what was granted there."""
        if form.get("requested_token_use") != "on_behalf_of":
            raise RefusedError("invalid_request", 900144)
        self.user = self._own(form["assertion"], "invalid_grant", 50013)
        if self.user["aud"] != BLUEPRINT:
            raise RefusedError("invalid_grant", 500131)
        if self.user["exp"] <= NOW:
            raise RefusedError("invalid_grant", 500133)
        if self.user.get("idtyp") == "app":
            raise RefusedError("invalid_grant", 240002)
        resources = {scope.rpartition("/")[0] for scope in form["scope"].split()}
        names = {scope.rpartition("/")[2] for scope in form["scope"].split()}
        if len(resources) != 1:
            raise RefusedError("invalid_request", 28000)
        (resource,) = resources
        if resource not in self.granted:
            raise RefusedError("invalid_resource", 500011)
        if not names <= self.exposed | {".default"}:
            raise RefusedError("invalid_scope", 70011)
        if not names <= self.granted[resource] | {".default"} or not self.granted[resource]:
            raise RefusedError("invalid_grant", 65001)
        if self.mfa:
            raise RefusedError("interaction_required", 50076)

    def _own(self, token: str, error: str, code: int, status: int = 400) -> dict[str, Any]:
        """Return the claims of a token of this tenant."""
        key = self.mint.private_key.public_key()
        try:
            claims: dict[str, Any] = jwt.decode(token, key, algorithms=["RS256"], options=_UNCHECKED)
        except jwt.PyJWTError as failure:
            raise RefusedError(error, code, status) from failure
        return claims


def honest_parent(sts: LyingSts, form: Form) -> Reply:
    return parent()(sts, form)


def parent(claims: Claims | None = None, **members: object) -> Behaviour:
    """The answer to the blueprint, with other claims in T1 and other members."""

    def answer(sts: LyingSts, form: Form) -> Reply:
        assert isinstance(sts, EntraTenant)
        lawful: Claims = {
            "token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599,
            "access_token": sts.mint.mint(sts.parent_claims(form, **(claims or {}))),
        }  # fmt: skip
        return Reply(body=encode(changed(lawful, members)))

    return answer
