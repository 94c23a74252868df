"""A JWK becomes a key of a supported kind and size, or nothing (RFC 7518 section 6)."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.jwk import JwkError, algorithms_of, key_of
from tests.core.test_strict_json import JSON
from tests.fakes.tokens import ABSENT, base64url, changed, private_key, public_jwk

RSA_ALGORITHMS = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
EC = public_jwk(private_key("ES256"))
RSA = public_jwk(private_key("RS256"))
OKP = public_jwk(private_key("EdDSA"))
RAW_32 = base64url(bytes(32))

UNUSABLE: dict[str, dict[str, object]] = {
    "empty": {},
    "a symmetric key": {"kty": "oct", "k": "AAAA"},
    "kty missing": changed(EC, {"kty": ABSENT}),
    "kty in lower case": changed(EC, {"kty": "ec"}),
    "kty an array": changed(EC, {"kty": ["EC"]}),
    "crv missing": changed(EC, {"crv": ABSENT}),
    "crv an array": changed(EC, {"crv": ["P-256"]}),
    "crv of coins": public_jwk(ec.generate_private_key(ec.SECP256K1())),
    "crv that does not fit the point": changed(EC, {"crv": "P-384"}),
    "a point off the curve": changed(EC, {"y": EC["x"]}),
    "the point at infinity": changed(EC, {"x": RAW_32, "y": RAW_32}),
    "x missing": changed(EC, {"x": ABSENT}),
    "x a number": changed(EC, {"x": 1}),
    "x empty": changed(EC, {"x": ""}),
    "x padded": changed(EC, {"x": f"{EC['x']}="}),
    "x with a foreign character": changed(EC, {"x": f"{EC['x']}\n"}),
    "x of an impossible length": changed(EC, {"x": "A" * 45}),
    "n missing": changed(RSA, {"n": ABSENT}),
    "n of 1024 bits": public_jwk(rsa.generate_private_key(public_exponent=65537, key_size=1024)),
    "n of 2047 bits": changed(RSA, {"n": base64url((2**2047 - 1).to_bytes(256, "big"))}),
    "n of 8193 bits": changed(RSA, {"n": base64url((2**8192 + 1).to_bytes(1025, "big"))}),
    "e missing": changed(RSA, {"e": ABSENT}),
    "e one": changed(RSA, {"e": "AQ"}),
    "e of 65539": changed(RSA, {"e": base64url((65539).to_bytes(3, "big"))}),
    "e as long as n": changed(RSA, {"e": base64url((2**2046 + 1).to_bytes(256, "big"))}),
    "e even": changed(RSA, {"e": "Ag"}),
    "Ed25519 too short": changed(OKP, {"x": base64url(bytes(31))}),
    "Ed25519 without x": changed(OKP, {"x": ABSENT}),
    "Ed25519 under another kty": changed(OKP, {"kty": "oct"}),
    "Ed448": public_jwk(ed448.Ed448PrivateKey.generate()),
    "a key of key agreement": {
        "kty": "OKP",
        "crv": "X25519",
        "x": base64url(x25519.X25519PrivateKey.generate().public_key().public_bytes_raw()),
    },
}


@pytest.mark.parametrize(
    ("algorithm", "fitting"),
    [
        ("ES256", {"ES256"}),
        ("ES384", {"ES384"}),
        ("ES512", {"ES512"}),
        ("EdDSA", {"EdDSA", "Ed25519"}),
        ("RS256", RSA_ALGORITHMS),
    ],
)
def test_a_key_fits_the_algorithms_of_its_type_and_curve(algorithm: str, fitting: set[str]) -> None:
    private = private_key(algorithm)

    public_key, algorithms = key_of(public_jwk(private))

    assert public_key == private.public_key()
    assert algorithms == fitting


@pytest.mark.parametrize("jwk", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_any_other_key_is_not_used(jwk: dict[str, object]) -> None:
    with pytest.raises(JwkError):
        key_of(jwk)


@given(
    st.dictionaries(st.sampled_from(["kty", "crv", "x", "y", "n", "e"]), JSON)
    | st.fixed_dictionaries(
        {
            "kty": st.sampled_from(["EC", "RSA", "OKP"]),
            "crv": st.sampled_from(["P-256", "Ed25519"]) | JSON,
            **{member: st.binary(max_size=300).map(base64url) for member in "xyne"},
        }
    )
)
def test_any_members_are_a_key_or_an_error(jwk: dict[str, object]) -> None:
    try:
        algorithms = key_of(jwk)[1]
    except JwkError:
        return

    assert algorithms


@pytest.mark.parametrize("jwk", [EC, RSA, OKP], ids=["EC", "RSA", "OKP"])
def test_a_bare_key_fits_the_algorithms_of_its_jwk(jwk: dict[str, object]) -> None:
    key, algorithms = key_of(jwk)
    assert algorithms_of(key) == algorithms


BARE = {
    "no key": b"k" * 32,
    "a private key": private_key("ES256"),
    "RSA of 1024 bits": rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key(),
    "RSA of 8193 bits": rsa.RSAPublicNumbers(65537, 2**8192 + 1).public_key(),
    "RSA with an exponent of 65539": rsa.RSAPublicNumbers(65539, 2**2047 + 1).public_key(),
    "a curve of coins": ec.generate_private_key(ec.SECP256K1()).public_key(),
    "Ed448": ed448.Ed448PrivateKey.generate().public_key(),
}


@pytest.mark.parametrize("case", BARE)
def test_a_bare_key_of_another_kind_fits_none(case: str) -> None:
    with pytest.raises(JwkError):
        algorithms_of(BARE[case])
