from __future__ import annotations

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from sidecar.doctor.proof import ProofKey, make_unsigned


def test_a_proof_is_for_one_request_and_shows_its_key() -> None:
    key = ProofKey()
    proof = key.proof(url="https://sts/token", now=7, name="n", nonce="x")
    header = jwt.get_unverified_header(proof)
    assert (header["typ"], header["alg"], header["jwk"]["kty"]) == ("dpop+jwt", "ES256", "EC")
    claims = jwt.decode(proof, key.key.public_key(), ["ES256"])
    assert claims == {"jti": "n", "htm": "POST", "htu": "https://sts/token", "iat": 7, "nonce": "x"}
    assert "nonce" not in jwt.decode(
        key.proof(url="u", now=7, name="n", nonce=None), options={"verify_signature": False}
    )


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    key = ProofKey()
    jwk = jwt.algorithms.ECAlgorithm.to_jwk(key.key.public_key(), as_dict=True)
    again = jwt.PyJWK(jwk)
    assert len(key.thumbprint) == 43
    assert again.key_type == "EC"


def test_a_forged_token_has_the_claims_and_the_key_id_but_not_the_signature() -> None:
    theirs = generate_private_key(SECP256R1())
    forged = ProofKey().forge({"sub": "a", "iss": 7}, {"kid": "k1", "alg": "RS256", "typ": "JWT", "jku": "https://x"})
    assert jwt.get_unverified_header(forged) == {"kid": "k1", "typ": "JWT", "alg": "ES256"}
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(forged, theirs.public_key(), ["ES256"])


def test_an_unsigned_token_says_so() -> None:
    assert jwt.get_unverified_header(make_unsigned({"sub": "a"}))["alg"] == "none"
    assert make_unsigned({"sub": "a"}).endswith(".")
