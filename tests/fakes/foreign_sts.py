"""A token service with a knob for each behaviour that the doctor asks about. Nothing of the doctor's code is used.

``Knobs()`` is a server that does all of it well; a test turns one knob. It answers a form with status and members;
`foreign_sts_server` puts it behind HTTP.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

ISSUER: Final = "https://foreign.example"
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS: Final = "urn:ietf:params:oauth:token-type:access_token"
ID_TOKEN: Final = "urn:ietf:params:oauth:token-type:id_token"
CLIENTS: Final = {"agent-a": "secret-of-a", "agent-b": "secret-of-b"}
USER: Final = "alice"
USER_SCOPES: Final = ("crm.read", "docs.read")
CLIENT_SCOPES: Final = ("crm.read", "docs.read", "crm.write")
KNOWN_RESOURCE: Final = "https://crm.example/api"
AUDIENCES: Final = ("tool-crm", "tool-mail", *CLIENTS)
_REPEATABLE: Final = {"audience", "resource"}
_LEGS: Final = 300

Answer = tuple[int, dict[str, Any]]


class _RefusedError(Exception):
    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.answer: Answer = (status, {"error": error} if error else {})


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """Behaviours. The defaults are those of a server that fits."""

    # verify, ignore, refuse, drop (verify, then drop), decode (without its signature), lenient (a bad one is no actor)
    actor: str = "verify"
    foreign: bool = False  # accepts a JWT of another issuer as actor
    act: str = "nest"  # nest, flat, reverse, rewrite, none, constant, text, user, client (the one that asks, nested)
    max_actors: int = 8  # earlier ones are cut off
    loops: bool = True
    act_at_introspection: bool = False  # and not in the token
    act_members: tuple[str, ...] = ("sub",)
    without_actor: str = "refuse"  # on a delegated subject: refuse, drop, keep, client, rewrite
    plain: bool = True  # accepts an exchange without an actor, of a token without one
    bind: str = "refuse"  # refuse, no, replace
    user_as_actor: bool = False
    delegated_actor: bool = False
    may_act: str = "check"  # check, ignore, broken (refuses the named one, too)
    sub: str = "keep"  # keep, client
    scope: str = "refuse"  # refuse, intersect, widen (to the client's), any, silent (grants, does not tell)
    narrows: bool = True
    scope_absent: str = "subject"  # subject, client, none, refuse
    scope_claim: tuple[str, str] | None = ("scope", "string")
    audience: str = "check"  # check, copy, ignore, hide, more
    need_audience: bool = False
    need_resource: bool = False
    two_audiences: str = "both"  # both, first, refuse
    resource: str = "check"  # check, ignore, copy, syntax
    requester: bool = True
    life: str = "cap"  # cap, new
    life_s: int = _LEGS
    life_of_b_s: int | None = None  # of tokens of agent-b, if another
    duplicates: str = "refuse"  # refuse, accept, crash
    halves: str = "refuse"  # refuse, accept
    dpop: str = "protect"  # off, protect, free
    secret: str = "check"  # check, ignore, public
    wrong_secret: tuple[int, str] = (401, "invalid_client")
    subject: str = "verify"  # verify, decode
    refusal: tuple[int, str] = (400, "invalid_request")
    opaque: str = ""  # "", opaque, jwe
    introspects: bool = True
    id_tokens: bool = False
    revokes: str = "only"  # only (that token), chain, nothing
    refresh: bool = False
    typ: str | None = "at+jwt"
    client_credentials: bool = True
    extra: dict[str, Any] = field(default_factory=dict)  # claims of every token


class ForeignSts:
    """The server. ``now`` is its clock; every token is remembered by its text."""

    def __init__(self, knobs: Knobs | None = None, *, now: Callable[[], float], issuer: str = ISSUER) -> None:
        self.knobs = knobs or Knobs()
        self.issuer = issuer
        self.now = now
        self.key = generate_private_key(SECP256R1())
        self.kid = "k1"
        self.known: dict[str, dict[str, Any]] = {}
        self.parents: dict[str, str] = {}
        self.revoked: set[str] = set()
        self.requests: list[list[tuple[str, str]]] = []

    def jwks(self) -> dict[str, Any]:
        jwk = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return {"keys": [{**jwk, "kid": self.kid, "use": "sig", "alg": "ES256"}]}

    def user_token(self, **claims: Any) -> str:
        """Return alice's token, for both agents unless changed."""
        return self._sign(
            {"sub": USER, "aud": list(CLIENTS), "scope": " ".join(USER_SCOPES), "client_id": "front", **claims}
        )

    def token(
        self, form: Sequence[tuple[str, str]], client: str | None, *, proven: bool, jkt: str | None = None
    ) -> Answer:
        """Answer a form of an authenticated or unauthenticated client."""
        self.requests.append(list(form))
        try:
            return self._token(form, client, proven=proven, jkt=jkt)
        except _RefusedError as refused:
            return refused.answer

    def introspect(self, form: Sequence[tuple[str, str]]) -> Answer:
        token = dict(form).get("token", "")
        claims = self.known.get(token)
        if claims is None or not self._active(token) or not self.knobs.introspects:
            return 200, {"active": False}
        act = {"act": {"sub": "agent-a"}} if self.knobs.act_at_introspection else {}
        return 200, {"active": True, **claims, **act}

    def revoke(self, form: Sequence[tuple[str, str]]) -> Answer:
        if self.knobs.revokes != "nothing":
            self.revoked.add(dict(form).get("token", ""))
        return 200, {}

    def _active(self, token: str) -> bool:
        if token in self.revoked:
            return False
        parent = self.parents.get(token)
        return parent is None or self.knobs.revokes != "chain" or self._active(parent)

    def _refuse(self, error: str | None = None) -> _RefusedError:
        status, code = self.knobs.refusal
        return _RefusedError(status, error or code)

    def _token(self, form: Sequence[tuple[str, str]], client: str | None, *, proven: bool, jkt: str | None) -> Answer:
        knobs = self.knobs
        if client not in CLIENTS or (not proven and knobs.secret == "check"):
            raise _RefusedError(*knobs.wrong_secret)
        one = self._single(form)
        if one.get("grant_type") == "client_credentials":
            if not knobs.client_credentials:
                raise self._refuse("unauthorized_client")
            return 200, self._issued({"sub": client, "aud": client, "client_id": client, **knobs.extra}, ACCESS)
        if one.get("grant_type") != EXCHANGE:
            raise self._refuse("unsupported_grant_type")
        subject = self._subject(one, client, jkt)
        act = self._act(one, client, subject)
        claims: dict[str, Any] = {
            "sub": client if knobs.sub == "client" else subject["sub"],
            "client_id": client,
            **self._scopes(one, subject),
            **self._targets(form, client),
            **({} if act is None else {"act": act}),
            **({"cnf": {"jkt": jkt}} if jkt is not None and knobs.dpop != "off" else {}),
            **knobs.extra,
        }
        kind = one.get("requested_token_type") or ACCESS
        if kind not in (ACCESS, ID_TOKEN) or (kind == ID_TOKEN and not knobs.id_tokens):
            raise self._refuse()
        members = self._issued(claims, kind, cap=subject["exp"] if knobs.life == "cap" else None)
        self.parents[members["access_token"]] = one["subject_token"]
        if jkt is not None and knobs.dpop != "off":
            members["token_type"] = "DPoP"
        return 200, members

    def _single(self, form: Sequence[tuple[str, str]]) -> dict[str, str]:
        names = [name for name, value in form if name not in _REPEATABLE and value]
        if len(set(names)) != len(names):
            if self.knobs.duplicates == "crash":
                raise _RefusedError(500, "")
            if self.knobs.duplicates == "refuse":
                raise self._refuse()
        return {name: value for name, value in form if value}

    def _subject(self, one: dict[str, str], client: str, jkt: str | None) -> dict[str, Any]:
        raw = one.get("subject_token", "")
        claims = self._claims(raw, verify=self.knobs.subject == "verify")
        audience = claims.get("aud", [])
        named = [audience] if isinstance(audience, str) else audience
        if self.knobs.requester and named and client not in (*named, claims.get("client_id")):
            raise _RefusedError(403, "access_denied")
        bound = claims.get("cnf", {}).get("jkt")
        if bound is not None and bound != jkt and self.knobs.dpop == "protect":
            raise self._refuse()
        return claims

    def _claims(self, raw: str, *, verify: bool) -> dict[str, Any]:
        if raw in self.known:
            if not self._active(raw) or self.known[raw]["exp"] <= self.now():
                raise self._refuse()
            return self.known[raw]
        try:
            if verify:
                raise self._refuse()
            return dict(jwt.decode(raw, options={"verify_signature": False}))
        except jwt.PyJWTError:
            raise self._refuse() from None

    def _act(self, one: dict[str, str], client: str, subject: dict[str, Any]) -> dict[str, Any] | str | None:
        knobs, raw = self.knobs, one.get("actor_token")
        if (raw is None) != ("actor_token_type" not in one):
            if knobs.halves == "refuse" and knobs.actor != "ignore":
                raise self._refuse()
            raw = None
        if raw is not None and knobs.actor == "refuse":
            raise self._refuse()
        if knobs.act == "constant":
            return {"sub": client}
        if knobs.act == "client":
            inherited = subject.get("act")
            return {"sub": client} if inherited is None else {"sub": client, "act": inherited}
        if raw is None or knobs.actor == "ignore":
            return self._without(client, subject)
        try:
            actor = self._actor(raw, client)
        except _RefusedError:
            if knobs.actor != "lenient":
                raise
            return self._without(client, subject)
        self._may_act(subject, actor)
        if knobs.actor == "drop" or knobs.act == "none":
            return None
        if knobs.act == "text":
            return str(actor["sub"])
        if knobs.act == "user":
            return {"sub": USER}
        current = {name: self.issuer if name == "iss" else actor["sub"] for name in knobs.act_members}
        inherited = subject.get("act")
        if inherited is None or knobs.act == "flat":
            return current
        if not knobs.loops and knobs.act == "nest" and f"'{actor['sub']}'" in str(inherited):
            raise self._refuse()
        if knobs.max_actors == 2:
            inherited = {name: value for name, value in inherited.items() if name != "act"}
        if knobs.act == "reverse":
            return {**inherited, "act": current}
        if knobs.act == "rewrite":
            return {**current, "act": {**inherited, "sub": f"user:{inherited['sub']}"}}
        return {**current, "act": inherited}

    def _without(self, client: str, subject: dict[str, Any]) -> dict[str, Any] | None:
        inherited = subject.get("act")
        if "may_act" in subject and self.knobs.may_act != "ignore" and self.knobs.actor != "ignore":
            raise self._refuse()
        if inherited is None:
            if not self.knobs.plain:
                raise self._refuse()
            return None
        match self.knobs.without_actor:
            case "refuse":
                raise self._refuse()
            case "keep":
                return dict(inherited)
            case "client":
                return {"sub": client, "act": inherited}
            case "rewrite":
                return {"sub": client}
        return None

    def _actor(self, raw: str, client: str) -> dict[str, Any]:
        knobs = self.knobs
        if raw not in self.known and knobs.foreign:
            with contextlib.suppress(jwt.PyJWTError):
                claims = jwt.decode(raw, options={"verify_signature": False})
                if claims.get("iss") == "https://other.example":
                    return dict(claims)
        actor = self._claims(raw, verify=knobs.actor != "decode")
        if "act" in actor:
            if not knobs.delegated_actor:
                raise self._refuse()
            return actor
        if actor["sub"] == USER:
            if not knobs.user_as_actor:
                raise self._refuse()
            return actor
        if actor["sub"] != client and knobs.bind == "refuse":
            raise self._refuse()
        return {**actor, "sub": client} if knobs.bind == "replace" else actor

    def _may_act(self, subject: dict[str, Any], actor: dict[str, Any]) -> None:
        may_act = subject.get("may_act")
        if may_act is None or self.knobs.may_act == "ignore":
            return
        if may_act["sub"] != actor["sub"] or self.knobs.may_act == "broken":
            raise self._refuse()

    def _scopes(self, one: dict[str, str], subject: dict[str, Any]) -> dict[str, Any]:
        knobs, held = self.knobs, str(subject.get("scope", "")).split()
        if "scope" not in one:
            if knobs.scope_absent == "refuse":
                raise self._refuse("invalid_scope")
            granted = {"subject": held, "client": list(CLIENT_SCOPES), "none": []}[knobs.scope_absent]
        else:
            granted = self._granted(one["scope"].split(), held)
        if knobs.scope_claim is None:
            return {}
        name, shape = knobs.scope_claim
        return {name: " ".join(granted) if shape == "string" else granted}

    def _granted(self, asked: list[str], held: list[str]) -> list[str]:
        match self.knobs.scope:
            case "any" | "silent":
                return asked
            case "intersect":
                kept = [scope for scope in asked if scope in held]
                if not kept:
                    raise self._refuse("invalid_scope")
                return kept
            case "widen":
                allowed: Sequence[str] = CLIENT_SCOPES
            case _:
                allowed = held
        if not set(asked) <= set(allowed):
            raise self._refuse("invalid_scope")
        return asked if self.knobs.narrows else held

    def _targets(self, form: Sequence[tuple[str, str]], client: str) -> dict[str, Any]:
        knobs = self.knobs
        audiences = [value for name, value in form if name == "audience" and value]
        resources = [value for name, value in form if name == "resource" and value]
        if knobs.need_resource and not resources:
            raise self._refuse("invalid_target")
        if knobs.resource == "check" and not set(resources) <= {KNOWN_RESOURCE}:
            raise self._refuse("invalid_target")
        if knobs.resource == "syntax" and any(":" not in one for one in resources):
            raise self._refuse()
        if knobs.need_audience and not audiences:
            raise self._refuse("invalid_target")
        if knobs.audience != "ignore" and len(audiences) > 1:
            if knobs.two_audiences == "refuse":
                raise self._refuse("invalid_target")
            audiences = audiences[: 1 if knobs.two_audiences == "first" else None]
        if knobs.audience in ("check", "hide", "more") and not set(audiences) <= set(AUDIENCES):
            raise self._refuse("invalid_target")
        if knobs.audience == "hide":
            return {}
        if knobs.audience == "ignore":
            audiences = []
        named = [*audiences, *(resources if knobs.resource == "copy" else ())] or [client]
        if knobs.audience == "more":
            named.append("everybody")
        return {"aud": named[0] if len(named) == 1 else named}

    def _issued(self, claims: dict[str, Any], kind: str, cap: float | None = None) -> dict[str, Any]:
        own = self.knobs.life_of_b_s if claims["client_id"] == "agent-b" else None
        ends = self.now() + (self.knobs.life_s if own is None else own)
        claims = {**claims, "exp": int(ends if cap is None else min(ends, cap))}
        token = self._sign(claims)
        if kind == ACCESS and self.knobs.opaque:
            content = self.known.pop(token)
            token = secrets.token_urlsafe(24)
            if self.knobs.opaque == "jwe":
                token = f"eyJhbGciOiJBMjU2R0NNS1cifQ.{token}.{token}.{token}.{token}"
            self.known[token] = content
        members: dict[str, Any] = {
            "access_token": token,
            "issued_token_type": kind,
            "token_type": "Bearer",
            "expires_in": claims["exp"] - int(self.now()),
        }
        if self.knobs.refresh:
            members["refresh_token"] = secrets.token_urlsafe(16)
        return members

    def _sign(self, claims: dict[str, Any]) -> str:
        now = int(self.now())
        whole = {"iss": self.issuer, "iat": now, "exp": now + _LEGS, "jti": secrets.token_hex(8), **claims}
        headers: dict[str, Any] = {"kid": self.kid, "typ": self.knobs.typ}
        if self.knobs.typ is None:
            headers["typ"] = ""
        token = jwt.encode(whole, self.key, algorithm="ES256", headers=headers)
        self.known[token] = whole
        return token
