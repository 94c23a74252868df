from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm

from sidecar.doctor.clients import Credential, Method, TestClient, client_of, credential_of, spoil, token_of

NOW = 1_790_000_000


def credential(client: TestClient, *, wrong: bool = False, bare: bool = False) -> Credential:
    return credential_of(client, audience="https://sts", now=NOW, name="n1", wrong=wrong, bare=bare)


def pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def written(folder: Path, content: bytes) -> str:
    path = folder / "file"
    path.write_bytes(content)
    return str(path)


def test_a_secret_comes_from_its_file_and_is_in_no_repr(tmp_path: Path) -> None:
    client = client_of(["agent-a", "client_secret_basic", written(tmp_path, b"s3cret-word\n")])
    assert client.secret == "s3cret-word"
    assert "s3cret" not in repr(client) + repr(credential(client))


def test_basic_escapes_both_halves() -> None:
    client = TestClient(client_id="spiffe://acme.example/agent/a", method=Method.BASIC, secret="a:b c")
    ((name, value),) = credential(client).fields
    pair = base64.b64decode(value.removeprefix("Basic ")).decode()
    assert (name, pair) == ("Authorization", "spiffe%3A%2F%2Facme.example%2Fagent%2Fa:a%3Ab+c")


def test_post_sends_id_and_secret_in_the_form() -> None:
    client = TestClient(client_id="a", method=Method.POST, secret="word")
    assert credential(client).parameters == (("client_id", "a"), ("client_secret", "word"))
    assert dict(credential(client, wrong=True).parameters)["client_secret"] == "wrong-n1"


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (rsa.generate_private_key(65537, 2048), "RS256"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    ],
)
def test_a_key_signs_an_assertion(tmp_path: Path, key: Any, algorithm: str) -> None:
    client = client_of(["a", "private_key_jwt", written(tmp_path, pem(key))])
    parameters = dict(credential(client).parameters)
    assert parameters["client_assertion_type"].endswith(":jwt-bearer")
    claims = jwt.decode(
        parameters["client_assertion"], key.public_key(), [algorithm], audience="https://sts",
        options={"verify_exp": False, "verify_iat": False},
    )  # fmt: skip
    assert claims == {"iss": "a", "sub": "a", "aud": "https://sts", "jti": "n1", "iat": NOW, "exp": NOW + 60}
    spoilt = dict(credential(client, wrong=True).parameters)["client_assertion"]
    with pytest.raises(jwt.PyJWTError):
        jwt.decode(spoilt, key.public_key(), [algorithm], audience="https://sts")


def test_a_jwk_brings_its_key_id(tmp_path: Path) -> None:
    jwk = {**ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True), "kid": "k7"}
    client = client_of(["a", "private_key_jwt", written(tmp_path, json.dumps(jwk).encode())])
    assertion = dict(credential(client).parameters)["client_assertion"]
    assert jwt.get_unverified_header(assertion)["kid"] == "k7"


def test_a_jwt_svid_is_the_assertion(tmp_path: Path) -> None:
    client = client_of(["a", "jwt-spiffe", written(tmp_path, b"e30.e30.c2ln")])
    parameters = dict(credential(client).parameters)
    assert parameters["client_assertion_type"].endswith(":jwt-spiffe")
    assert parameters["client_assertion"] == "e30.e30.c2ln"
    assert dict(credential(client, wrong=True).parameters)["client_assertion"] == "e30.e30.A2ln"


def test_a_certificate_is_shown_by_tls() -> None:
    client = client_of(["a", "tls_client_auth", "a.pem", "a.key"])
    assert credential(client).certificate == ("a.pem", "a.key")
    assert credential(client, wrong=True).certificate is None
    assert credential(client, bare=True) == Credential(parameters=(("client_id", "a"),))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a"], "write ID METHOD FILE"),
        (["a", "password", "f"], "the method is one of"),
        (["a", "client_secret_basic"], "takes 1 file(s), not 0"),
        (["a", "tls_client_auth", "f"], "takes 2 file(s), not 1"),
        (["a", "none", "f"], "takes 0 file(s), not 1"),
    ],
)
def test_a_wrong_client_is_refused_with_its_fix(words: list[str], told: str) -> None:
    with pytest.raises(ValueError, match="--client") as refused:
        client_of(words)
    assert told in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"two words", b"two\nlines", b"x" * 70_000, b"\xc3\xa4"])
def test_a_file_holds_one_token(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match="file: ") as refused:
        token_of(written(tmp_path, content))
    assert "words" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"x" * 70_000, b"\x00"])
def test_a_file_holds_one_secret(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match="file: "):
        client_of(["a", "client_secret_post", written(tmp_path, content)])


def test_a_secret_may_have_spaces(tmp_path: Path) -> None:
    assert client_of(["a", "client_secret_post", written(tmp_path, b" se cret \r\n")]).secret == " se cret "


@pytest.mark.parametrize("content", [b"no key", b'{"kty": "oct", "k": "c2VjcmV0"}', b"{}"])
def test_what_is_no_private_key_is_refused_unquoted(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match="key") as refused:
        client_of(["a", "private_key_jwt", written(tmp_path, content)])
    assert "c2VjcmV0" not in str(refused.value)


def test_a_curve_without_an_algorithm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="curve"):
        client_of(["a", "private_key_jwt", written(tmp_path, pem(ec.generate_private_key(ec.SECP256K1())))])


def test_one_character_is_changed() -> None:
    assert spoil("aa.bb.cc") == "aa.bb.Ac"
    assert spoil("aa.bb.Ac") == "aa.bb.Bc"
    assert spoil("opaque") == "opaAue"
