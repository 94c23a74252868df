from __future__ import annotations

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from delegation_core.bearer import parse_bearer
from delegation_core.keyset import parse_jwks
from delegation_core.verify import verify_signature
from sidecar.sts.keys import KeyRefusedError, KeyRing, SigningKey

CLAIMS = {"iss": "https://sts.acme.example", "sub": "ålice"}


def pem(key: SigningKey) -> bytes:
    return key.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
def test_a_consumer_verifies_with_the_published_key_what_the_private_one_signed(algorithm: str) -> None:
    ring = KeyRing(SigningKey.generate(algorithm))
    bearer = parse_bearer(ring.active.sign(CLAIMS))
    key = parse_jwks(ring.jwks()).find(bearer.kid)
    assert key is not None
    verify_signature(bearer, key, {algorithm})
    assert (bearer.alg, bearer.typ, bearer.claims) == (algorithm, "at+jwt", CLAIMS)


def test_a_kid_is_the_rfc_7638_thumbprint() -> None:
    # The example of RFC 8037 appendix A: an Ed25519 key and its thumbprint.
    private = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = SigningKey.of(ed25519.Ed25519PrivateKey.from_private_bytes(private))
    assert key.kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(ec.generate_private_key(ec.SECP384R1()), id="another curve"),
        pytest.param(rsa.generate_private_key(public_exponent=65537, key_size=1024), id="a short RSA key"),
        pytest.param(x25519.X25519PrivateKey.generate(), id="a key that cannot sign"),
        pytest.param(ec.generate_private_key(ec.SECP256R1()).public_key(), id="a public key"),
        pytest.param("secret", id="a password"),
    ],
)
def test_a_key_that_is_not_fit_to_sign_is_refused(key: object) -> None:
    with pytest.raises(KeyRefusedError):
        SigningKey.of(key)


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(KeyRefusedError):
        SigningKey.generate("HS256")


def test_only_public_members_are_published_each_key_for_one_use() -> None:
    ring = KeyRing(
        SigningKey.generate(), announced=(SigningKey.generate("RS256"),), retired=(SigningKey.generate("EdDSA"),)
    )
    keys = orjson.loads(ring.jwks())["keys"]
    assert [key.keys() - {"crv", "e", "n", "x", "y"} for key in keys] == [{"kty", "kid", "alg", "use"}] * 3
    assert [key["kid"] for key in keys] == [key.kid for key in ring.published]
    assert {key["use"] for key in keys} == {"sig"}


def test_keys_before_and_after_the_active_one_verify_and_do_not_sign() -> None:
    active, after, before = (SigningKey.generate() for _ in range(3))
    ring = KeyRing(active, announced=(after,), retired=(before,))
    assert parse_bearer(ring.active.sign(CLAIMS)).kid == active.kid
    assert all(ring.find(key.kid) is not None for key in (active, after, before))
    assert ring.find("other") is None
    assert ring.find(None) is None


def test_a_key_has_one_role() -> None:
    key = SigningKey.generate()
    with pytest.raises(KeyRefusedError):
        KeyRing(key, retired=(key,))


def test_a_private_key_is_never_shown() -> None:
    ring = KeyRing(SigningKey.generate())
    shown = repr(ring)
    assert "private_key" not in shown
    assert pem(ring.active).decode().splitlines()[1] not in shown


def test_a_ring_as_a_source_of_keys_is_always_itself() -> None:
    ring = KeyRing(SigningKey.generate())
    assert ring.at(0, keep_s=0) is ring
