"""A certification authority per trust domain, for development: X.509-SVIDs, JWT-SVIDs and bundles as SPIRE makes them.

An authority vouches only for its own trust domain. Its keys live in memory; a demo or a test can get them from
``current`` to attack with them.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import jwt
import orjson
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar_dev.certificates import (
    KeyType,
    PrivateKey,
    authority_certificate,
    certificate_der,
    certificate_pem,
    key_der,
    key_pem,
    new_key,
    svid_certificate,
)

AUTHORITY_TTL_S: Final = 30 * 24 * 3600
X509_TTL_S: Final = 3600
JWT_TTL_S: Final = 300
BUNDLE_REFRESH_HINT_S: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedSvid:
    """An X.509-SVID with its private key. The chain has the leaf first and ends before the authority."""

    spiffe_id: SpiffeId
    chain: tuple[x509.Certificate, ...]
    key: PrivateKey = field(repr=False)

    @property
    def leaf(self) -> x509.Certificate:
        """The workload's own certificate."""
        return self.chain[0]

    @property
    def not_after(self) -> int:
        """The last second of the leaf, since the epoch."""
        return int(self.leaf.not_valid_after_utc.timestamp())

    @property
    def chain_der(self) -> tuple[bytes, ...]:
        """Each certificate as DER."""
        return tuple(map(certificate_der, self.chain))

    @property
    def key_der(self) -> bytes:
        """The private key as PKCS#8 DER."""
        return key_der(self.key)

    @property
    def chain_pem(self) -> bytes:
        """The certificates as PEM, leaf first."""
        return b"".join(map(certificate_pem, self.chain))

    @property
    def key_pem(self) -> bytes:
        """The private key as PKCS#8 PEM."""
        return key_pem(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """One generation of a trust domain's keys: one signs X.509-SVIDs, the other JWT-SVIDs."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)
    jwt_kid: str
    jwt_key: ec.EllipticCurvePrivateKey = field(repr=False)


def new_authority(
    trust_domain: TrustDomain,
    *,
    key_type: KeyType = "ec-p256",
    ttl_s: int = AUTHORITY_TTL_S,
    issued_at: int | None = None,
) -> Authority:
    """Make the keys and the signing certificate of a trust domain. ``issued_at`` is as in `issue_x509`."""
    key = new_key(key_type)
    issued_at = _now() if issued_at is None else issued_at
    return Authority(
        certificate=authority_certificate(trust_domain, key, ttl_s=ttl_s, issued_at=issued_at),
        key=key,
        jwt_kid=secrets.token_urlsafe(12),
        jwt_key=ec.generate_private_key(ec.SECP256R1()),
    )


class TrustDomainAuthority:
    """The development authority of one trust domain.

    ``rotate`` makes new keys for both kinds of SVID; the old keys stay in the bundle, so that their SVIDs are still
    trusted, until ``drop_old`` removes them. ``prepare`` publishes the next keys before they sign, so that every
    verifier knows them in time.
    """

    def __init__(
        self, trust_domain: TrustDomain, *, key_type: KeyType = "ec-p256", authority: Authority | None = None
    ) -> None:
        self.trust_domain = trust_domain
        self.key_type: KeyType = key_type
        self.sequence = 1
        self._authorities = [authority or new_authority(trust_domain, key_type=key_type)]  # the current one is last
        self._next: Authority | None = None

    @property
    def current(self) -> Authority:
        """The generation that signs."""
        return self._authorities[-1]

    @property
    def authorities(self) -> tuple[Authority, ...]:
        """All generations in the bundle, oldest first."""
        return (*self._authorities, *([self._next] if self._next else ()))

    def prepare(self) -> Authority:
        """Publish the keys that will sign after the next ``rotate``."""
        if self._next is None:
            self._next = new_authority(self.trust_domain, key_type=self.key_type)
            self.sequence += 1
        return self._next

    def rotate(self) -> Authority:
        """Sign with the prepared keys from now on, or with new ones."""
        self._authorities.append(self._next or new_authority(self.trust_domain, key_type=self.key_type))
        self._next = None
        self.sequence += 1
        return self.current

    def drop_old(self) -> None:
        """Remove every earlier generation from the bundle."""
        del self._authorities[:-1]
        self.sequence += 1

    def issue_x509(
        self,
        spiffe_id: SpiffeId,
        *,
        ttl_s: int = X509_TTL_S,
        dns_names: Sequence[str] = (),
        issued_at: int | None = None,
    ) -> IssuedSvid:
        """Issue an X.509-SVID with a fresh key. ``issued_at`` is in seconds since the epoch, now if None.

        Raises:
            ValueError: the SPIFFE ID is of another trust domain.
        """
        self._check_own(spiffe_id)
        key = new_key(self.key_type)
        leaf = svid_certificate(
            spiffe_id,
            key,
            issuer=self.current.certificate,
            issuer_key=self.current.key,
            dns_names=dns_names,
            ttl_s=ttl_s,
            issued_at=_now() if issued_at is None else issued_at,
        )
        return IssuedSvid(spiffe_id=spiffe_id, chain=(leaf,), key=key)

    def issue_jwt(
        self,
        spiffe_id: SpiffeId,
        audience: str | Sequence[str],
        *,
        ttl_s: int = JWT_TTL_S,
        issued_at: int | None = None,
    ) -> str:
        """Issue a JWT-SVID, signed with ES256 (JWT-SVID sections 2 and 3). Verifiers expect a single audience.

        Raises:
            ValueError: the SPIFFE ID is of another trust domain, or an audience is missing or empty.
        """
        self._check_own(spiffe_id)
        audiences = [audience] if isinstance(audience, str) else list(audience)
        if not audiences or not all(audiences):
            raise ValueError("a JWT-SVID has an audience")
        issued_at = _now() if issued_at is None else issued_at
        claims = {"sub": str(spiffe_id), "aud": audiences, "exp": issued_at + ttl_s, "iat": issued_at}
        signer = self.current
        return jwt.encode(claims, signer.jwt_key, algorithm="ES256", headers={"kid": signer.jwt_kid, "typ": "JWT"})

    def bundle_der(self) -> bytes:
        """The X.509 bundle, certificates concatenated as DER, as the Workload API carries it."""
        return b"".join(certificate_der(authority.certificate) for authority in self.authorities)

    def bundle_pem(self) -> bytes:
        """The X.509 bundle as PEM."""
        return b"".join(certificate_pem(authority.certificate) for authority in self.authorities)

    def jwt_bundle(self) -> bytes:
        """The JWT bundle as a standard JWK set, as the Workload API carries it (Workload API section 6.2.2).

        Like SPIRE's, its keys have a ``kid`` and no ``use``: that member belongs to the SPIFFE bundle document.
        """
        return orjson.dumps({"keys": [_jwt_jwk(authority) for authority in self.authorities]})

    def bundle_document(self) -> bytes:
        """Both bundles in the form of a bundle endpoint (Trust Domain and Bundle section 4)."""
        x509_keys = [_x509_jwk(authority) | {"use": "x509-svid"} for authority in self.authorities]
        jwt_keys = [_jwt_jwk(authority) | {"use": "jwt-svid"} for authority in self.authorities]
        return orjson.dumps(
            {
                "spiffe_sequence": self.sequence,
                "spiffe_refresh_hint": BUNDLE_REFRESH_HINT_S,
                "keys": x509_keys + jwt_keys,
            }
        )

    def _check_own(self, spiffe_id: SpiffeId) -> None:
        if spiffe_id.trust_domain != self.trust_domain:
            raise ValueError("an authority vouches for its own trust domain only")


def _x509_jwk(authority: Authority) -> dict[str, object]:
    key = authority.key.public_key()
    members = RSAAlgorithm.to_jwk(key, as_dict=True) if isinstance(key, rsa.RSAPublicKey) else _ec_jwk(key)
    return {**members, "x5c": [base64.b64encode(certificate_der(authority.certificate)).decode()]}


def _jwt_jwk(authority: Authority) -> dict[str, object]:
    return {**_ec_jwk(authority.jwt_key.public_key()), "kid": authority.jwt_kid}


def _ec_jwk(key: ec.EllipticCurvePublicKey) -> dict[str, object]:
    return dict(ECAlgorithm.to_jwk(key, as_dict=True))


def _now() -> int:
    return int(time.time())
