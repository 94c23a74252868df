from __future__ import annotations

from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from delegation_core.keyset import parse_jwks
from sidecar.doctor.reading import Reading, parse_introspection, read_token, scopes_of

KEY = generate_private_key(SECP256R1())
JWK = {**jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True), "kid": "k1"}
KEYS = parse_jwks(orjson.dumps({"keys": [JWK]}))


def token(claims: dict[str, Any], kid: str = "k1") -> str:
    return jwt.encode(claims, KEY, algorithm="ES256", headers={"kid": kid})


def test_a_jwt_is_read_and_its_signature_told() -> None:
    raw = token({"sub": "alice", "act": {"sub": "a"}})
    assert read_token(raw).signature == "not verified"
    reading = read_token(raw, KEYS)
    assert (reading.kind, reading.subject, reading.act, reading.signature) == ("JWT", "alice", {"sub": "a"}, "verified")
    assert read_token(f"{raw[:-4]}AAAA", KEYS).signature == "wrong"
    assert read_token(token({"sub": "a"}, kid="k2"), KEYS).signature == "by a key that the issuer does not publish"
    unsigned = jwt.encode({"sub": "a"}, "", algorithm="none")
    assert read_token(unsigned, KEYS).signature.startswith("not in a form")


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ("", "opaque"),
        ("word", "opaque"),
        ("a.b.c", "opaque"),
        ("eyJhbGciOiJSUzI1NiJ9.bm8.c2ln", "opaque"),
        ("e30.e30", "opaque"),
        ("eyJhbGciOiJBMjU2R0NNS1cifQ.a.b.c.d", "JWE"),
        ("x.a.b.c.d", "opaque"),
        ("ä.b.c", "opaque"),
        ("a" * 70_000, "opaque"),
    ],
)
def test_whatever_cannot_be_read_has_no_claims(raw: str, kind: str) -> None:
    reading = read_token(raw, KEYS)
    assert (reading.kind, reading.claims, reading.subject, reading.act) == (kind, None, None, None)


@pytest.mark.parametrize(
    ("claims", "audiences", "scopes", "claim"),
    [
        ({}, None, None, None),
        ({"aud": "a", "scope": "x y"}, ("a",), {"x", "y"}, ("scope", "string")),
        ({"aud": ["a", "b"], "scope": ["x"]}, ("a", "b"), {"x"}, ("scope", "array")),
        ({"aud": 7, "scp": "x"}, None, {"x"}, ("scp", "string")),
        ({"aud": ["a", 7], "scope": 7}, ("a",), None, None),
    ],
)
def test_claims_of_any_shape_are_read(claims: Any, audiences: Any, scopes: Any, claim: Any) -> None:
    reading = Reading(kind="JWT", claims=claims)
    assert (reading.audiences, reading.scopes, reading.scope_claim) == (audiences, scopes, claim)


@pytest.mark.parametrize(("value", "seconds"), [(7, 7), (7.5, 7.5), (True, None), ("7", None), (None, None)])
def test_a_date_is_a_number(value: object, seconds: float | None) -> None:
    assert Reading(kind="JWT", claims={"exp": value}).expires_at == seconds


def test_a_holder_has_the_names_of_its_token() -> None:
    reading = Reading(kind="JWT", claims={"sub": "uuid", "client_id": "a", "azp": "b", "appid": ""})
    assert reading.names == {"uuid", "a", "b"}
    assert reading.clients == {"client_id": "a", "azp": "b"}


def test_introspection_tells_of_active_tokens_only() -> None:
    active = parse_introspection({"active": True, "sub": "a"}, "JWE")
    assert active is not None
    assert (active.kind, active.by, active.subject) == ("JWE", "introspection", "a")
    assert parse_introspection({"active": "true", "sub": "a"}, "JWE") is None
    assert parse_introspection({}, "JWE") is None


def test_scopes_are_read_leniently() -> None:
    assert scopes_of(" a  b ") == {"a", "b"}
    assert scopes_of(["a", 7]) == {"a"}
    assert scopes_of(None) == set()
