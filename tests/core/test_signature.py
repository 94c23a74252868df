"""Signatures: the key's own algorithm, an allowed algorithm, and the right bytes (RFC 7515 section 5.2, RFC 8725)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from jwt.algorithms import get_default_algorithms

from delegation_core.bearer import parse_bearer
from delegation_core.errors import Denied, Reason
from delegation_core.jws import ALGORITHMS as ACCEPTED
from delegation_core.jws import parse_compact
from delegation_core.keyset import VerificationKey, parse_jwks
from delegation_core.signature import _VERIFIERS, verify_signature
from tests.core.world import reason_of
from tests.fakes.tokens import TokenMint, base64url, encode

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
MINT = TokenMint()
SIGNED = parse_bearer(MINT.mint())


def scalar_pair(first: int, second: int) -> bytes:
    return first.to_bytes(32, "big") + second.to_bytes(32, "big")


WRONG = {
    "empty": b"",
    "r and s zero": bytes(64),
    "r zero": scalar_pair(0, 1),
    "s zero": scalar_pair(1, 0),
    "r and s the order": scalar_pair(P256_ORDER, P256_ORDER),
    "too short": SIGNED.signature[:-1],
    "too long": SIGNED.signature + b"\x00",
    "padded in front": b"\x00" + SIGNED.signature,
    "s padded in front": SIGNED.signature[:32] + b"\x00" + SIGNED.signature[32:],
    "as DER": encode_dss_signature(
        int.from_bytes(SIGNED.signature[:32], "big"), int.from_bytes(SIGNED.signature[32:], "big")
    ),
    "halves swapped": SIGNED.signature[32:] + SIGNED.signature[:32],
    "one bit changed": SIGNED.signature[:-1] + bytes([SIGNED.signature[-1] ^ 1]),
    "of an RSA key's length": bytes(256),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_right_signature_is_accepted(algorithm: str) -> None:
    mint = TokenMint(algorithm=algorithm)

    assert reason_of(verify_signature, mint.bearer(), mint.key, {algorithm}) is None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_over_other_bytes_is_wrong(algorithm: str) -> None:
    mint = TokenMint(algorithm=algorithm)
    signed = dataclasses.replace(mint.bearer(), signing_input=b"e30.e30")

    with pytest.raises(Denied) as caught:
        verify_signature(signed, mint.key, {algorithm})

    assert caught.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_another_key_of_the_same_kind_does_not_verify(algorithm: str) -> None:
    with pytest.raises(Denied) as caught:
        verify_signature(
            TokenMint(algorithm=algorithm).bearer(), TokenMint(algorithm=algorithm, key=1).key, {algorithm}
        )

    assert caught.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("signature", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_signature_is_refused_whatever_its_form(signature: bytes) -> None:
    with pytest.raises(Denied) as caught:
        verify_signature(dataclasses.replace(SIGNED, signature=signature), MINT.key, {"ES256"})

    assert caught.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("algorithm", ["ES384", "RS256", "PS256", "EdDSA"])
def test_a_key_is_not_used_with_an_algorithm_that_is_not_its_own(algorithm: str) -> None:
    signed = dataclasses.replace(SIGNED, alg=algorithm)

    with pytest.raises(Denied) as caught:
        verify_signature(signed, MINT.key, {algorithm, "ES256"})

    assert caught.value.reason is Reason.ALG_NOT_ALLOWED


def test_a_key_bound_to_one_rsa_algorithm_is_not_used_with_another() -> None:
    mint = TokenMint(algorithm="RS256")
    key = VerificationKey("k1", frozenset({"PS256"}), mint.key.public_key)

    with pytest.raises(Denied) as caught:
        verify_signature(mint.bearer(), key, {"RS256", "PS256"})

    assert caught.value.reason is Reason.ALG_NOT_ALLOWED


def test_an_algorithm_that_the_issuer_may_not_use_is_refused() -> None:
    with pytest.raises(Denied) as caught:
        verify_signature(SIGNED, MINT.key, {"RS256"})

    assert caught.value.reason is Reason.ALG_NOT_ALLOWED


def test_the_twin_of_an_ecdsa_signature_verifies_and_is_another_token() -> None:
    # Unavoidable, and the reason why a token's hash is never a replay identifier.
    s = int.from_bytes(SIGNED.signature[32:], "big")
    twin = SIGNED.signature[:32] + (P256_ORDER - s).to_bytes(32, "big")
    raw = f"{SIGNED.signing_input.decode()}.{base64url(twin)}"

    verify_signature(parse_bearer(raw), MINT.key, {"ES256"})

    assert parse_bearer(raw).fingerprint != SIGNED.fingerprint


# Project Wycheproof. Its valid vectors that we refuse on purpose, with the reasons:
REFUSED_ON_PURPOSE = {
    259: "empty payload",
    264: "empty payload",
    268: "empty payload",
    272: "empty payload",
    320: "empty payload",
    325: "empty payload",
    346: "the JWK says PS256, the header PS384: a key has one algorithm",
    350: "the JWK says PS256, the header PS384: a key has one algorithm",
    347: "the JWK says ES521, which is not an algorithm (ES512 is meant)",
    351: "the JWK says ES521, which is not an algorithm (ES512 is meant)",
    **dict.fromkeys([1, 348, 352, 357, 358, 359, 372, 373, 376, 377], "HMAC"),
}
GROUPS = json.loads(
    Path(__file__).parent.with_name("vectors").joinpath("wycheproof_json_web_signature_test.json").read_text()
)["testGroups"]
VECTORS = {
    f"{group['comment']}-{test['tcId']}-{test['comment']}": (group.get("public") or group["private"], test)
    for group in GROUPS
    for test in group["tests"]
}


def accepts(jwk: dict[str, object], raw: object) -> bool:
    """Tell if a JWKS with this one key, and the key's own algorithm as the only one allowed, accepts the JWS."""
    key = parse_jwks(encode({"keys": [jwk]})).find(None)
    if key is None or not isinstance(raw, str):
        return False
    try:
        verify_signature(parse_compact(raw), key, {str(jwk.get("alg"))})
    except Denied:
        return False
    return True


@pytest.mark.parametrize(("jwk", "test"), VECTORS.values(), ids=VECTORS.keys())
def test_public_vectors_are_judged_as_published(jwk: dict[str, object], test: dict[str, object]) -> None:
    expected = test["result"] == "valid" and test["tcId"] not in REFUSED_ON_PURPOSE

    assert accepts(jwk, test["jws"]) is expected


def test_the_exceptions_are_valid_vectors() -> None:
    valid = {test["tcId"] for _, test in VECTORS.values() if test["result"] == "valid"}

    assert len(VECTORS) == 401
    assert REFUSED_ON_PURPOSE.keys() <= valid


def test_every_algorithm_of_the_parser_has_its_verification() -> None:
    assert set(_VERIFIERS) == ACCEPTED


@pytest.mark.parametrize("algorithm", ["PS256", "PS384", "PS512"])
def test_a_salt_of_another_length_than_the_hash_is_wrong(algorithm: str) -> None:
    mint = TokenMint(algorithm=algorithm)
    bearer = mint.bearer()
    hashed = {"PS256": SHA256(), "PS384": SHA384(), "PS512": SHA512()}[algorithm]
    private = rsa.generate_private_key(65537, 2048)
    key = dataclasses.replace(mint.key, public_key=private.public_key())
    for salt, right in ((hashed.digest_size, True), (hashed.digest_size - 1, False), (0, False)):
        padding = PSS(mgf=MGF1(hashed), salt_length=salt)
        signed = dataclasses.replace(bearer, signature=private.sign(bearer.signing_input, padding, hashed))
        if right:
            verify_signature(signed, key, {algorithm})
        else:
            with pytest.raises(Denied):
                verify_signature(signed, key, {algorithm})


def test_the_librarys_verification_agrees() -> None:
    """PyJWT, which is independent of ours, signs what we accept."""
    for algorithm in ALGORITHMS:
        mint = TokenMint(algorithm=algorithm)
        bearer = mint.bearer()
        verifier = get_default_algorithms()["EdDSA" if algorithm == "Ed25519" else algorithm]
        assert verifier.verify(bearer.signing_input, mint.key.public_key, bearer.signature) is True
        verify_signature(bearer, mint.key, {algorithm})
