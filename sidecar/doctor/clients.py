"""The test clients and how they authenticate (RFC 6749 section 2.3, RFC 7523, RFC 8705, SPIFFE client authentication).

A credential comes from a file, never from the command line.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import quote_plus

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt import PyJWK
from jwt import encode as encode_jwt
from jwt.exceptions import PyJWTError

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey

JWT_BEARER: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
JWT_SPIFFE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"

_ASSERTION_LIFE_S: Final = 60
_MAX_FILE_BYTES: Final = 65_536
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class Method(StrEnum):
    """A way to authenticate; the first word after the client's ID."""

    BASIC = "client_secret_basic"
    POST = "client_secret_post"
    KEY = "private_key_jwt"
    SPIFFE = "jwt-spiffe"
    TLS = "tls_client_auth"
    NONE = "none"


_FILES: Final = {Method.TLS: 2, Method.NONE: 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class TestClient:
    """One client of the server. ``secret`` is a secret or a ready assertion, ``key`` signs assertions."""

    client_id: str
    method: Method
    secret: str = field(default="", repr=False)
    key: PrivateKey | None = field(default=None, repr=False)
    kid: str | None = None
    certificate: tuple[str, str] | None = None

    __test__ = False  # for pytest: no class of tests


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """The parameters and header fields that authenticate a client in a request."""

    fields: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    parameters: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    certificate: tuple[str, str] | None = None


def client_of(words: Sequence[str]) -> TestClient:
    """Return the client of ``ID METHOD [FILE ...]``.

    Raises:
        ValueError: the method is unknown, the number of files is wrong, or a file's content does not suit the method.
        OSError: a file cannot be read.
    """
    if len(words) < 2:
        raise ValueError("--client: write ID METHOD FILE, as in: --client agent-a client_secret_basic a.secret")
    client_id, name, files = words[0], words[1], list(words[2:])
    if name not in set(Method):
        raise ValueError(f"--client {client_id}: the method is one of {', '.join(Method)}")
    method = Method(name)
    if len(files) != _FILES.get(method, 1):
        raise ValueError(f"--client {client_id}: {method} takes {_FILES.get(method, 1)} file(s), not {len(files)}")
    client = TestClient(client_id=client_id, method=method)
    match method:
        case Method.NONE:
            return client
        case Method.TLS:
            return replace(client, certificate=(files[0], files[1]))
        case Method.KEY:
            key, kid = _private_key(files[0])
            return replace(client, key=key, kid=kid)
        case _:
            return replace(client, secret=_secret(files[0]) if method is not Method.SPIFFE else token_of(files[0]))


def token_of(path: str) -> str:
    """Read the token in a file.

    Raises:
        ValueError: the file is empty, too large, or holds more than a token. The content is never quoted.
        OSError: it cannot be read.
    """
    text = _bytes(path).decode("utf-8", errors="replace").strip()
    if not text or not text.isascii() or any(character.isspace() for character in text):
        raise ValueError(f"{path}: it must hold one token, and nothing else")
    return text


def _secret(path: str) -> str:
    """Return the secret of a file: its one line (RFC 6749 appendix A.2, which allows spaces)."""
    text = _bytes(path).decode("utf-8", errors="replace").rstrip("\r\n")
    if not text.strip() or not text.isprintable():
        raise ValueError(f"{path}: it must hold one secret, on one line, and nothing else")
    return text


def credential_of(client: TestClient, *, audience: str, now: int, name: str, wrong: bool, bare: bool) -> Credential:
    """Return the client's credential for one request. ``name`` becomes the assertion's jti, or the wrong secret.

    ``wrong``: make an invalid credential, which the server must refuse; ``bare``: send only the client's ID.
    """
    named = (("client_id", client.client_id),)
    if bare or client.method is Method.NONE:
        return Credential(parameters=named)
    match client.method:
        case Method.BASIC:
            secret = f"wrong-{name}" if wrong else client.secret
            pair = f"{quote_plus(client.client_id)}:{quote_plus(secret)}".encode()  # RFC 6749 section 2.3.1
            return Credential(fields=(("Authorization", f"Basic {b64encode(pair).decode()}"),))
        case Method.POST:
            return Credential(parameters=(*named, ("client_secret", f"wrong-{name}" if wrong else client.secret)))
        case Method.TLS:
            return Credential(parameters=named, certificate=None if wrong else client.certificate)
        case Method.SPIFFE:
            return _assert_client(JWT_SPIFFE, spoil(client.secret) if wrong else client.secret)
    key = client.key if client.key is not None and not wrong else generate_private_key(SECP256R1())
    claims = {
        "iss": client.client_id,
        "sub": client.client_id,
        "aud": audience,
        "jti": name,
        "iat": now,
        "exp": now + _ASSERTION_LIFE_S,
    }
    headers = {"kid": client.kid} if client.kid else None
    return _assert_client(JWT_BEARER, encode_jwt(claims, key, algorithm=algorithm_of(key), headers=headers))


def spoil(token: str) -> str:
    """Return the token with one character changed, in its signature if it has one."""
    at = min(token.rfind(".") + 1, len(token) - 1) if "." in token else len(token) // 2
    return f"{token[:at]}{'A' if token[at] != 'A' else 'B'}{token[at + 1 :]}"


def algorithm_of(key: PrivateKey) -> str:
    """Return the JOSE algorithm by which a key signs.

    Raises:
        ValueError: a curve without one.
    """
    if isinstance(key, RSAPrivateKey):
        return "RS256"
    if isinstance(key, Ed25519PrivateKey):
        return "EdDSA"
    if key.curve.name not in _CURVES:
        raise ValueError("the key's curve is not P-256, P-384 or P-521")
    return _CURVES[key.curve.name]


def _assert_client(kind: str, assertion: str) -> Credential:
    # without client_id: RFC 7521 section 4.2 makes it optional, and the assertion names the client
    return Credential(parameters=(("client_assertion_type", kind), ("client_assertion", assertion)))


def _private_key(path: str) -> tuple[PrivateKey, str | None]:
    """Return a private key of a PEM file or a JWK, and its key ID."""
    document = _bytes(path)
    try:
        if document.lstrip().startswith(b"{"):
            jwk = json.loads(document)
            key, kid = PyJWK.from_dict(jwk).key, jwk.get("kid")
        else:
            key, kid = load_pem_private_key(document, None), None
    except (ValueError, TypeError, PyJWTError):
        raise ValueError(f"{path}: it is no private key, as PEM without a passphrase or as a JWK") from None
    if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey):
        raise ValueError(f"{path}: the key is neither RSA, nor on a NIST curve, nor Ed25519")  # noqa: TRY004
    algorithm_of(key)
    return key, kid if isinstance(kid, str) else None


def _bytes(path: str) -> bytes:
    with Path(path).open("rb") as file:
        document = file.read(_MAX_FILE_BYTES + 1)
    if len(document) > _MAX_FILE_BYTES:
        raise ValueError(f"{path}: the file is too large")
    return document
