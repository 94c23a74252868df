from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from sidecar.delegation.bearer import parse_bearer
from sidecar.delegation.keyset import parse_jwks
from sidecar.delegation.verify import verify_signature
from sidecar.errors import ConfigError
from sidecar.sts.keys import KeyRefusedError, KeyRing, SigningKey, load_key_ring

CLAIMS = {"iss": "https://sts.acme.example", "sub": "ålice"}


def pem(key: SigningKey) -> bytes:
    return key.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_key(path: Path, key: SigningKey | None = None, *, mode: int = 0o600, document: bytes = b"") -> SigningKey:
    key = key or SigningKey.generate()
    path.write_bytes(document or pem(key))
    path.chmod(mode)
    return key


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


def test_a_directory_gives_each_key_its_role(tmp_path: Path) -> None:
    active = write_key(tmp_path / "active.pem")
    after = write_key(tmp_path / "next.pem")
    before = [write_key(tmp_path / f"old-{number}.pem") for number in (1, 2)]
    (tmp_path / "README").write_text("not a key")
    ring = load_key_ring(tmp_path)
    assert (ring.active.kid, ring.announced[0].kid) == (active.kid, after.kid)
    assert [key.kid for key in ring.retired] == [key.kid for key in before]


def encrypted(key: SigningKey) -> bytes:
    return key.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))


@pytest.mark.parametrize(
    ("name", "mode", "document"),
    [
        pytest.param("next.pem", 0o640, b"", id="open to the group"),
        pytest.param("next.pem", 0o604, b"", id="open to the world"),
        pytest.param(
            "next.pem", 0o600, b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", id="no key"
        ),
        pytest.param("next.pem", 0o600, b"secret", id="no PEM"),
        pytest.param("next.pem", 0o600, encrypted(SigningKey.generate()), id="an encrypted key"),
        pytest.param("spare.pem", 0o600, b"", id="a key without a role"),
    ],
)
def test_a_bad_key_file_is_refused_by_name_and_without_its_content(
    tmp_path: Path, name: str, mode: int, document: bytes
) -> None:
    write_key(tmp_path / "active.pem")
    write_key(tmp_path / name, mode=mode, document=document)
    with pytest.raises(ConfigError) as refused:
        load_key_ring(tmp_path)
    assert [problem.field for problem in refused.value.problems] == [str(tmp_path / name)]
    assert "secret" not in str(refused.value)
    assert "c2VjcmV0" not in str(refused.value)
    write_key(tmp_path / name)
    (tmp_path / name).rename(tmp_path / "old.pem")
    assert len(load_key_ring(tmp_path).retired) == 1


def test_a_weak_key_in_a_file_is_refused(tmp_path: Path) -> None:
    weak = ec.generate_private_key(ec.SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_key(tmp_path / "active.pem", document=weak)
    with pytest.raises(ConfigError, match=r"active\.pem"):
        load_key_ring(tmp_path)


def test_a_directory_without_an_active_key_or_none_at_all_is_refused(tmp_path: Path) -> None:
    write_key(tmp_path / "next.pem")
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError):
            load_key_ring(directory)


def test_one_key_in_two_files_is_refused(tmp_path: Path) -> None:
    key = write_key(tmp_path / "active.pem")
    write_key(tmp_path / "old.pem", key)
    with pytest.raises(ConfigError, match="two roles"):
        load_key_ring(tmp_path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "active.pem").mkdir(mode=0o700)
    with pytest.raises(ConfigError, match=r"active\.pem"):
        load_key_ring(tmp_path)
    (tmp_path / "active.pem").rmdir()
    os.mkfifo(tmp_path / "active.pem", 0o600)
    with pytest.raises(ConfigError, match=r"active\.pem"):
        load_key_ring(tmp_path)
