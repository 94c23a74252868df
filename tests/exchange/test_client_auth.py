from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from delegation_core.errors import Reason, SidecarError
from sidecar.exchange import static_credential
from sidecar.exchange.adapters.adapter import STATIC, ClientAuth
from sidecar.exchange.client_auth import ClientAuthenticator, ClientAuthSettings
from sidecar.exchange.static_credential import ASSERTION_S
from sidecar.observe.secret_names import secret_fingerprint
from tests.exchange.world import Clock, authority
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import ISSUER, NOW, WRITER

SECRET = "a secret/with:odd+characters"
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def kept_in(folder: Path, content: bytes, mode: int = 0o600) -> str:
    file = folder / "credential"
    file.write_bytes(content)
    file.chmod(mode)
    return str(file)


def pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def authenticator(method: ClientAuth, file: str | None = None, **settings: Any) -> ClientAuthenticator:
    static: dict[str, Any] = {"credential_file": file, "allow_static": file is not None}
    made = ClientAuthSettings(method=method, audience=ISSUER, **static, **settings)
    return ClientAuthenticator(made, OwnIdentity(authority(), WRITER), Clock(float(NOW)))


async def test_the_x509_svid_of_the_connection_needs_nothing_in_the_form() -> None:
    shown = await authenticator(ClientAuth.X509_SVID).show()
    assert (shown.form, shown.authorization, shown.credential) == ((), None, None)


async def test_a_certificate_that_is_registered_by_its_san_uri_goes_with_the_client_s_name() -> None:
    assert (await authenticator(ClientAuth.TLS_SAN_URI).show()).form == (("client_id", str(WRITER)),)
    named = authenticator(ClientAuth.TLS_SAN_URI, client_id="writer")
    assert (await named.show()).form == (("client_id", "writer"),)


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (ClientAuth.JWT_SVID, "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        (ClientAuth.JWT_SPIFFE, "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"),
    ],
)
async def test_a_jwt_svid_is_the_assertion(method: ClientAuth, kind: str) -> None:
    source = OwnIdentity(authority(), WRITER)
    settings = ClientAuthSettings(method=method, audience="https://idp.example/realms/acme")
    shown = await ClientAuthenticator(settings, source, Clock(float(NOW))).show()
    form = dict(shown.form)
    assert form.pop("client_assertion").count(".") == 2
    assert form == {"client_id": str(WRITER), "client_assertion_type": kind}
    assert source.audiences == ["https://idp.example/realms/acme"]
    assert shown.credential is None


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
        (rsa.generate_private_key(65537, 2048), "RS256"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_static_key_signs_a_fresh_assertion(key: PrivateKey, algorithm: str, tmp_path: Path) -> None:
    shown = await authenticator(ClientAuth.PRIVATE_KEY_JWT, kept_in(tmp_path, pem(key)), key_id="k1").show()
    assertion = dict(shown.form)["client_assertion"]
    assert jwt.get_unverified_header(assertion) == {"alg": algorithm, "kid": "k1", "typ": "JWT"}
    options: jwt.types.Options = {"verify_exp": False, "verify_iat": False}
    claims = jwt.decode(assertion, key.public_key(), [algorithm], audience=ISSUER, options=options)
    assert claims.pop("jti")
    assert claims == {
        "iss": str(WRITER), "sub": str(WRITER), "aud": ISSUER, "iat": NOW, "exp": NOW + ASSERTION_S,
    }  # fmt: skip
    assert shown.credential is not None
    assert shown.credential.startswith("client:private-key-jwt:")


async def test_each_assertion_has_an_id_of_its_own(tmp_path: Path) -> None:
    signer = authenticator(ClientAuth.PRIVATE_KEY_JWT, kept_in(tmp_path, pem(ec.generate_private_key(ec.SECP256R1()))))
    ids = {
        jwt.decode(dict((await signer.show()).form)["client_assertion"], options={"verify_signature": False})["jti"]
        for _ in range(3)
    }
    assert len(ids) == 3


async def test_a_secret_goes_into_the_header_encoded_as_in_a_form(tmp_path: Path) -> None:
    shown = await authenticator(ClientAuth.SECRET_BASIC, kept_in(tmp_path, SECRET.encode() + b"\n")).show()
    assert shown.authorization is not None
    scheme, _, encoded = shown.authorization.partition(" ")
    name, _, secret = base64.b64decode(encoded).decode().partition(":")
    assert (scheme, unquote_plus(name), unquote_plus(secret)) == ("Basic", str(WRITER), SECRET)
    assert shown.form == ()


async def test_a_secret_goes_into_the_form_where_the_settings_say_so(tmp_path: Path) -> None:
    shown = await authenticator(ClientAuth.SECRET_POST, kept_in(tmp_path, SECRET.encode())).show()
    assert (shown.form, shown.authorization) == ((("client_id", str(WRITER)), ("client_secret", SECRET)), None)


async def test_a_credential_is_shown_by_its_fingerprint_alone(tmp_path: Path) -> None:
    shown = await authenticator(ClientAuth.SECRET_POST, kept_in(tmp_path, SECRET.encode())).show()
    assert shown.credential is not None
    assert len(shown.credential) == len("client:client-secret-post:") + 32
    assert SECRET not in repr(shown) + shown.credential


@pytest.mark.parametrize(
    ("method", "content", "mode"),
    [
        (ClientAuth.SECRET_BASIC, b"short", 0o600),
        (ClientAuth.SECRET_BASIC, b"two lines\nof a secret", 0o600),
        (ClientAuth.SECRET_BASIC, SECRET.encode(), 0o644),
        (ClientAuth.PRIVATE_KEY_JWT, b"no key at all", 0o600),
        (ClientAuth.PRIVATE_KEY_JWT, pem(rsa.generate_private_key(65537, 1024)), 0o600),
        (ClientAuth.PRIVATE_KEY_JWT, pem(ec.generate_private_key(ec.SECP521R1())), 0o600),
    ],
)
async def test_a_file_without_a_usable_credential_is_told_and_not_quoted(
    method: ClientAuth, content: bytes, mode: int, tmp_path: Path
) -> None:
    with pytest.raises(SidecarError) as caught:
        await authenticator(method, kept_in(tmp_path, content, mode)).show()
    assert caught.value.reason is Reason.CREDENTIAL_UNAVAILABLE
    assert content.decode() not in str(caught.value)


async def test_a_secret_s_fingerprint_is_made_once_for_each_content_and_a_short_one_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bytes] = []

    def counted(secret: bytes) -> str | None:
        made.append(secret)
        return secret_fingerprint(secret)

    monkeypatch.setattr(static_credential, "secret_fingerprint", counted)
    one = authenticator(ClientAuth.SECRET_POST, kept_in(tmp_path, b"fifteen letters"))
    told = [(await one.show()).credential for _ in range(3)]
    assert told == ["client:client-secret-post:unnamed"] * 3
    assert len(made) == 1
    kept_in(tmp_path, b"sixteen letters.")
    shown = await one.show()
    assert shown.credential == f"client:client-secret-post:{secret_fingerprint(b'sixteen letters.')}"
    assert len(made) == 2


async def test_a_secret_that_is_replaced_is_used_at_the_next_request(tmp_path: Path) -> None:
    file = kept_in(tmp_path, SECRET.encode())
    one = authenticator(ClientAuth.SECRET_POST, file)
    before = await one.show()
    kept_in(tmp_path, b"another secret")
    assert (await one.show()).credential != before.credential


@pytest.mark.parametrize("method", sorted(STATIC))
def test_a_static_credential_is_allowed_by_name_only(method: ClientAuth) -> None:
    with pytest.raises(ValueError, match=r"client_auth: .* needs a static credential; .*allow_static_credential: true"):
        ClientAuthSettings(method=method, audience=ISSUER, credential_file="/key")
    with pytest.raises(ValueError, match="credential_file: it is missing"):
        ClientAuthSettings(method=method, audience=ISSUER, allow_static=True)


@pytest.mark.parametrize("method", sorted(set(ClientAuth) - STATIC))
def test_a_way_without_a_secret_has_no_file_for_one(method: ClientAuth) -> None:
    with pytest.raises(ValueError, match=r"credential_file: .* needs none"):
        ClientAuthSettings(method=method, audience=ISSUER, credential_file="/key")
    with pytest.raises(ValueError, match=r"credential_file: .* needs none"):
        ClientAuthSettings(method=method, audience=ISSUER, allow_static=True)
    with pytest.raises(ValueError, match="key_id: only private-key-jwt uses it"):
        ClientAuthSettings(method=method, audience=ISSUER, key_id="k")


async def test_without_an_identity_nothing_is_shown() -> None:
    source = OwnIdentity(authority(), None)
    one = ClientAuthenticator(ClientAuthSettings(method=ClientAuth.TLS_SAN_URI, audience=ISSUER), source, Clock(0.0))
    with pytest.raises(SidecarError) as caught:
        await one.show()
    assert caught.value.reason is Reason.NOT_READY


async def test_a_key_is_read_once_outside_the_loop_and_again_when_its_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def load(content: bytes, password: None) -> object:
        threads.append(threading.get_ident())
        return load_pem_private_key(content, password)

    monkeypatch.setattr(static_credential, "load_pem_private_key", load)
    one = authenticator(ClientAuth.PRIVATE_KEY_JWT, kept_in(tmp_path, pem(ec.generate_private_key(ec.SECP256R1()))))
    before = [(await one.show()).credential for _ in range(3)]
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    kept_in(tmp_path, pem(ec.generate_private_key(ec.SECP256R1())))
    assert (await one.show()).credential not in before
    assert len(threads) == 2


async def test_a_key_that_takes_long_to_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_credential, "MAX_RSA_BITS", 2047)
    one = authenticator(ClientAuth.PRIVATE_KEY_JWT, kept_in(tmp_path, pem(rsa.generate_private_key(65537, 2048))))
    with pytest.raises(SidecarError) as caught:
        await one.show()
    assert caught.value.reason is Reason.CREDENTIAL_UNAVAILABLE
