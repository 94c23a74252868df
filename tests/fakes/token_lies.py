"""Tokens that change an honest one in one fact, for the step of any adapter that issues the token."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from delegation_core.errors import Reason
from tests.fakes.answer_lies import Lie, Row, Said
from tests.fakes.tokens import ABSENT, TokenMint, base64url, changed, encode, from_base64url

ANY: Final = frozenset(reason for reason in Reason if reason.startswith("sts_"))
EVIL: Final = "spiffe://acme.example/agent/evil"


def parts(said: Said) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the claims of the honest token."""
    header, claims, _ = said.document["access_token"].split(".")
    return json.loads(from_base64url(header)), json.loads(from_base64url(claims))


def claim(**changes: object) -> Lie:
    """The token with other claims, signed by its issuer."""

    def lie(said: Said) -> bytes:
        header, claims = parts(said)
        return said.members(access_token=said.sts.mint.mint(changed(claims, changes), header))

    return lie


def user(value: object) -> Lie:
    """The token of another user, in each claim that names one."""

    def lie(said: Said) -> bytes:
        names = parts(said)[1].keys() & {"sub", "oid"}
        return claim(sub_id=ABSENT, **dict.fromkeys(names, value))(said)

    return lie


def scope(value: Callable[[str], object]) -> Lie:
    """The token with another scope, in the claim of that server."""

    def lie(said: Said) -> bytes:
        claims = parts(said)[1]
        name = "scp" if "scp" in claims else "scope"
        return claim(**{name: value(claims[name])})(said)

    return lie


def moved_by(name: str, seconds: int) -> Lie:
    def lie(said: Said) -> bytes:
        return claim(**{name: parts(said)[1][name] + seconds})(said)

    return lie


def header(**changes: object) -> Lie:
    def lie(said: Said) -> bytes:
        own, claims = parts(said)
        return said.members(access_token=said.sts.mint.mint(claims, changed(own, changes)))

    return lie


def token(make: Callable[[Said, str], str]) -> Lie:
    return lambda said: said.members(access_token=make(said, said.document["access_token"]))


def _forged(said: Said, _token: str) -> str:
    own, claims = parts(said)
    return TokenMint(said.sts.mint.issuer, key=7).mint(claims, own)


def _with_key(said: Said, _token: str) -> str:
    own, claims = parts(said)
    other = TokenMint(said.sts.mint.issuer, key=7)
    return other.mint(claims, {**own, "jwk": other.jwk})


def _unsigned(said: Said, token_: str) -> str:
    own, _ = parts(said)
    return f"{base64url(encode({**own, 'alg': 'none'}))}.{token_.split('.')[1]}."


def _claims_twice(said: Said, _token: str) -> str:
    own, claims = parts(said)
    return said.sts.mint.mint_documents(encode(own), encode(claims)[:-1] + b',"sub":"somebody"}')


def _other_claims(said: Said, token_: str) -> str:
    """Keep the signature of the honest token."""
    own, _, signature = token_.split(".")
    return f"{own}.{base64url(encode({**parts(said)[1], 'sub': 'somebody'}))}.{signature}"


LAST: Final[Mapping[str, Row]] = {
    name: (lie, ANY)
    for name, lie in {
        "no act": claim(act=ABSENT),
        "another actor": claim(act={"sub": EVIL}, azp=EVIL, client_id=EVIL),
        "an actor that is a text": claim(act=EVIL),
        "an actor that is a list": claim(act=[{"sub": EVIL}]),
        "another user": user("user-2"),
        "no user": user(ABSENT),
        "a user that is a number": user(4711),
        "a user that is empty": user(""),
        "the user is the actor": user(EVIL),
        "another target": claim(aud="spiffe://acme.example/tool/mail"),
        "two targets": claim(aud=["spiffe://acme.example/tool/crm", "spiffe://acme.example/tool/mail"]),
        "no target": claim(aud=ABSENT),
        "an empty list of targets": claim(aud=[]),
        "another issuer": claim(iss="https://evil.example"),
        "no issuer": claim(iss=ABSENT),
        "an issuer of another spelling": claim(iss="https://STS.acme.example"),
        "a wider scope": scope(lambda honest: f"{honest} crm.write"),
        "a scope that is a number": scope(lambda _: 7),
        "a scope of other words": scope(lambda _: "admin"),
        "a longer life": moved_by("exp", 90_000),
        "over already": moved_by("exp", -90_000),
        "no end": claim(exp=ABSENT),
        "an end in a text": claim(exp="4102444800"),
        "an end that is true": claim(exp=True),
        "an end beyond 64 bits": claim(exp=10**15),
        "from tomorrow": moved_by("iat", 86_400),
        "not before tomorrow": claim(nbf=4_102_444_800),
        "no name of its own": claim(jti=ABSENT),
        "bound to another key": claim(cnf={"jkt": "x"}),
        "another transaction": claim(txn="txn-2"),
        "a stronger login": claim(acr="gold"),
        "forged": token(_forged),
        "forged, with its own key": token(_with_key),
        "unsigned": token(_unsigned),
        "another key's name": header(kid="nobody"),
        "no algorithm": header(alg=ABSENT),
        "an algorithm with a secret": header(alg="HS256"),
        "an algorithm in another case": header(alg="es256"),
        "a critical extension": header(crit=["b64"], b64=False),
        "a logout token": header(typ="logout+jwt"),
        "a key by a URL": header(jku="https://evil.example/jwks", kid="nobody"),
        "claims twice": token(_claims_twice),
        "other claims under its signature": token(_other_claims),
        "no signature": token(lambda _said, honest: honest.rpartition(".")[0] + "."),
        "two parts": token(lambda _said, honest: honest.rpartition(".")[0]),
        "four parts": token(lambda _said, honest: honest + ".x"),
        "padded": token(lambda _said, honest: honest + "=="),
        "encrypted": token(lambda _said, _honest: "eyJhbGciOiJkaXIifQ..a.b.c"),
        "opaque": token(lambda _said, _honest: "SlAV32hkKG"),
        "huge": token(lambda _said, _honest: "a" * 20_000),
        "what was shown": lambda said: said.members(
            access_token=said.form.get("subject_token") or said.form["assertion"]
        ),
        "the answer's scope is wider": lambda said: said.members(scope="crm.read crm.write"),
    }.items()
}
