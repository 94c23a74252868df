"""A small mint: lawful tokens, and the same tokens with one fact changed. The signature is always real."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms

from delegation_core.bearer import Bearer, parse_bearer, parse_jwt_svid
from delegation_core.keyset import KeySet, VerificationKey, parse_jwks, parse_jwt_bundle
from delegation_core.profile import IssuerProfile, TrustedIssuer
from delegation_core.profile_presets import PRESETS
from delegation_core.scope import ScopeSet
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from delegation_core.verify import VerifiedToken, verify_token

NOW: Final = 1_790_000_000
ISSUER: Final = "https://sts.acme.example"
TRUST_DOMAIN: Final = TrustDomain("acme.example")
PLANNER: Final = SpiffeId("spiffe://acme.example/agent/planner")
WRITER: Final = SpiffeId("spiffe://acme.example/agent/writer")
CRM: Final = SpiffeId("spiffe://acme.example/tool/crm")


class Absent(Enum):
    """Value of a claim or header member that is left out."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT

Claims = Mapping[str, object]

_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
}


def base64url(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encode(value: object) -> bytes:
    """Encode compact JSON. Floats, NaN and other invalid values are written as Python does."""
    return json.dumps(value, separators=(",", ":")).encode()


def changed(base: Claims, changes: Claims) -> dict[str, object]:
    return {name: value for name, value in {**base, **changes}.items() if value is not ABSENT}


@cache
def private_key(algorithm: str, number: int = 0) -> Any:
    """Return a key that fits the algorithm; another ``number``, another key. RSA keys are slow: each is made once."""
    if algorithm.startswith("ES"):
        return ec.generate_private_key(_CURVES[algorithm])
    if algorithm in {"EdDSA", "Ed25519"}:
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_jwk(key: Any, **members: object) -> dict[str, object]:
    """Return the public JWK of a private key, with additional members."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        jwk: dict[str, object] = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        jwk = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        jwk = OKPAlgorithm.to_jwk(public, as_dict=True)
    jwk.pop("key_ops", None)
    return changed(jwk, members)


def sign(algorithm: str, key: Any, signing_input: bytes) -> bytes:
    name = "EdDSA" if algorithm == "Ed25519" else algorithm
    return get_default_algorithms()[name].sign(signing_input, key)


class TokenMint:
    """An issuer with one key: user-4711 delegates to planner, who may call writer with docs.read."""

    def __init__(self, issuer: str = ISSUER, *, algorithm: str = "ES256", kid: str | None = "k1", key: int = 0) -> None:
        self.issuer = issuer
        self.algorithm = algorithm
        self.kid = kid
        self.private_key = private_key("RS256" if algorithm[:2] in {"RS", "PS"} else algorithm, key)

    @property
    def jwk(self) -> dict[str, object]:
        return public_jwk(self.private_key, kid=ABSENT if self.kid is None else self.kid, use="sig")

    @property
    def jwks(self) -> bytes:
        return encode({"keys": [self.jwk]})

    @property
    def keys(self) -> KeySet:
        return parse_jwks(self.jwks)

    @property
    def key(self) -> VerificationKey:
        key = self.keys.find(self.kid)
        assert key is not None
        return key

    def claims(self, **changes: object) -> dict[str, object]:
        """Return the claims of a lawful token, changed. A claim that is ``ABSENT`` is left out."""
        lawful = {
            "iss": self.issuer,
            "sub": "user-4711",
            "aud": str(WRITER),
            "client_id": str(PLANNER),
            "scope": "docs.read",
            "iat": NOW - 10,
            "exp": NOW + 290,
            "jti": "token-1",
            "act": {"sub": str(PLANNER)},
        }
        return changed(lawful, changes)

    def header(self, **changes: object) -> dict[str, object]:
        lawful = {"alg": self.algorithm, "typ": "at+jwt", "kid": ABSENT if self.kid is None else self.kid}
        return changed(lawful, changes)

    def mint(self, claims: Claims | None = None, header: Claims | None = None) -> str:
        """Sign whole claims and a whole header; by default those of a lawful token."""
        claims_document = encode(self.claims() if claims is None else claims)
        return self.mint_documents(encode(self.header() if header is None else header), claims_document)

    def mint_documents(self, header: bytes, payload: bytes) -> str:
        """Sign any two byte strings, for documents that no JSON writer produces."""
        signing_input = f"{base64url(header)}.{base64url(payload)}"
        return f"{signing_input}.{base64url(sign(self.algorithm, self.private_key, signing_input.encode()))}"

    def bearer(self, **changes: object) -> Bearer:
        """Return a lawful token with these claims changed, parsed."""
        return parse_bearer(self.mint(self.claims(**changes)))

    def trusted(
        self,
        profile: str | IssuerProfile = "sts",
        *,
        scopes: ScopeSet = frozenset({"docs.read", "crm.read"}),
        actor_trust_domains: frozenset[TrustDomain] = frozenset({TRUST_DOMAIN}),
    ) -> TrustedIssuer:
        preset = PRESETS[profile] if isinstance(profile, str) else profile
        return TrustedIssuer(issuer=self.issuer, profile=preset, scopes=scopes, actor_trust_domains=actor_trust_domains)

    def verified(self, *, audience: str = WRITER, now: int = NOW, **changes: object) -> VerifiedToken:
        """Return a lawful token with these claims changed, verified for ``audience``."""
        bearer = self.bearer(**changes)
        return verify_token(bearer, issuer=self.trusted(), key=self.key, audiences={audience}, now=now)


class SvidMint(TokenMint):
    """The JWT authority of a trust domain: JWT-SVIDs of planner for the STS."""

    @property
    def jwk(self) -> dict[str, object]:
        return public_jwk(self.private_key, kid=ABSENT if self.kid is None else self.kid, use="jwt-svid")

    @property
    def keys(self) -> KeySet:
        return parse_jwt_bundle(self.jwks)

    def claims(self, **changes: object) -> dict[str, object]:
        return changed({"sub": str(PLANNER), "aud": [ISSUER], "iat": NOW - 10, "exp": NOW + 290}, changes)

    def header(self, **changes: object) -> dict[str, object]:
        return super().header(**{"typ": "JWT", **changes})

    def bearer(self, **changes: object) -> Bearer:
        return parse_jwt_svid(self.mint(self.claims(**changes)))
