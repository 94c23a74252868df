"""A certification authority per trust domain, for development: X.509-SVIDs, JWT-SVIDs and bundles as SPIRE shapes them.

An authority only vouches for its own trust domain. Its keys live in memory and, if somebody asks for it, in files of
the developer; every authority says in its subject that it is for development, so that nobody takes it for more.
"""

from __future__ import annotations

import base64
import datetime
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import jwt
import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.delegation.spiffe_id import SpiffeId, TrustDomain
from sidecar.dev.jwk import public_jwk

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
KeyType = Literal["ec-p256", "rsa-2048"]

DEVELOPMENT_ONLY: Final = "DEVELOPMENT ONLY"
BACKDATED_S: Final = 10  # as SPIRE does: the clocks of two hosts never agree to the second
AUTHORITY_TTL_S: Final = 7 * 24 * 3600
X509_TTL_S: Final = 3600
JWT_TTL_S: Final = 300
BUNDLE_REFRESH_HINT_S: Final = 300

_DER: Final = serialization.Encoding.DER
_PEM: Final = serialization.Encoding.PEM


def new_key(key_type: KeyType) -> PrivateKey:
    """Make a private key."""
    if key_type == "rsa-2048":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def key_der(key: PrivateKey) -> bytes:
    """Encode a private key as PKCS#8 DER, not encrypted."""
    return key.private_bytes(_DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def key_pem(key: PrivateKey) -> bytes:
    """Encode a private key as PKCS#8 PEM, not encrypted."""
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


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
        return tuple(certificate.public_bytes(_DER) for certificate in self.chain)

    @property
    def key_der(self) -> bytes:
        """The private key as PKCS#8 DER."""
        return key_der(self.key)

    @property
    def chain_pem(self) -> bytes:
        """The certificates as PEM, leaf first."""
        return b"".join(certificate.public_bytes(_PEM) for certificate in self.chain)

    @property
    def key_pem(self) -> bytes:
        """The private key as PKCS#8 PEM."""
        return key_pem(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """One generation of a trust domain's keys: what signs X.509-SVIDs and what signs JWT-SVIDs."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)
    jwt_kid: str
    jwt_key: ec.EllipticCurvePrivateKey = field(repr=False)


class TrustDomainAuthority:
    """The development authority of one trust domain.

    ``rotate`` makes new keys for both kinds of SVID; the old ones stay in the bundle, so that what they signed is
    still believed, until ``drop_old`` takes them out.
    """

    def __init__(
        self, trust_domain: TrustDomain, *, key_type: KeyType = "ec-p256", authority: Authority | None = None
    ) -> None:
        self.trust_domain = trust_domain
        self.key_type: KeyType = key_type
        self.sequence = 1
        self._authorities = [authority or new_authority(trust_domain, key_type=key_type)]  # the current one is last

    @property
    def current(self) -> Authority:
        """The generation that signs. Its private keys are the trust domain: a test or a demo may take them."""
        return self._authorities[-1]

    @property
    def authorities(self) -> tuple[Authority, ...]:
        """All generations in the bundle, oldest first."""
        return tuple(self._authorities)

    def rotate(self) -> Authority:
        """Sign with new keys from now on."""
        self._authorities.append(new_authority(self.trust_domain, key_type=self.key_type))
        self.sequence += 1
        return self.current

    def drop_old(self) -> None:
        """Take every generation but the current one out of the bundle."""
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
        """Issue an X.509-SVID with a fresh key; never for longer than the authority itself lives.

        ``issued_at`` is in seconds since the epoch, now if None.

        Raises:
            ValueError: the SPIFFE ID is of another trust domain.
        """
        self._check_own(spiffe_id)
        issued_at = _now() if issued_at is None else issued_at
        signer = self.current
        key = new_key(self.key_type)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(spiffe_id)]
        names += [x509.DNSName(name) for name in dns_names]
        not_after = min(_utc(issued_at + ttl_s), signer.certificate.not_valid_after_utc)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        leaf = (
            # With no subject at all the names must be critical (RFC 5280 section 4.1.2.6): nobody can mistake a
            # common name for an identity.
            _builder(x509.Name([]), signer.certificate.subject, key, issued_at, not_after)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(_issuer_key_id(signer), critical=False)
            .sign(signer.key, hashes.SHA256())
        )
        return IssuedSvid(spiffe_id=spiffe_id, chain=(leaf,), key=key)

    def issue_jwt(
        self, spiffe_id: SpiffeId, audience: str, *, ttl_s: int = JWT_TTL_S, issued_at: int | None = None
    ) -> str:
        """Issue a JWT-SVID for one audience, signed with ES256 (JWT-SVID sections 2 and 3).

        Raises:
            ValueError: the SPIFFE ID is of another trust domain, or the audience is empty.
        """
        self._check_own(spiffe_id)
        if not audience:
            raise ValueError("a JWT-SVID has an audience")
        issued_at = _now() if issued_at is None else issued_at
        claims = {"sub": str(spiffe_id), "aud": [audience], "exp": issued_at + ttl_s, "iat": issued_at}
        signer = self.current
        return jwt.encode(claims, signer.jwt_key, algorithm="ES256", headers={"kid": signer.jwt_kid, "typ": "JWT"})

    def bundle_der(self) -> bytes:
        """The X.509 bundle, certificates concatenated as DER, as the Workload API carries it."""
        return b"".join(authority.certificate.public_bytes(_DER) for authority in self._authorities)

    def bundle_pem(self) -> bytes:
        """The X.509 bundle as PEM."""
        return b"".join(authority.certificate.public_bytes(_PEM) for authority in self._authorities)

    def jwt_bundle(self) -> bytes:
        """The JWT bundle as a JWK set, as the Workload API carries it."""
        return orjson.dumps({"keys": self._jwt_keys()})

    def bundle_document(self) -> bytes:
        """Both bundles in the form of a bundle endpoint (Trust Domain and Bundle section 4)."""
        return orjson.dumps(
            {
                "spiffe_sequence": self.sequence,
                "spiffe_refresh_hint": BUNDLE_REFRESH_HINT_S,
                "keys": [*map(_x509_jwk, self._authorities), *self._jwt_keys()],
            }
        )

    def _jwt_keys(self) -> list[dict[str, object]]:
        return [
            public_jwk(authority.jwt_key.public_key()) | {"kid": authority.jwt_kid, "use": "jwt-svid"}
            for authority in self._authorities
        ]

    def _check_own(self, spiffe_id: SpiffeId) -> None:
        if spiffe_id.trust_domain != self.trust_domain:
            raise ValueError("an authority vouches for its own trust domain only")


def new_authority(
    trust_domain: TrustDomain,
    *,
    key_type: KeyType = "ec-p256",
    ttl_s: int = AUTHORITY_TTL_S,
    issued_at: int | None = None,
) -> Authority:
    """Make the keys and the self-signed certificate of a trust domain, in the shape of SPIRE's own authorities."""
    issued_at = _now() if issued_at is None else issued_at
    key = new_key(key_type)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"SPIFFE {DEVELOPMENT_ONLY}"),
            # Each generation has a name of its own: path builders look issuers up by name.
            x509.NameAttribute(NameOID.SERIAL_NUMBER, secrets.token_hex(8)),
        ]
    )
    own_name = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")
    certificate = (
        _builder(subject, subject, key, issued_at, _utc(issued_at + ttl_s))
        .add_extension(x509.SubjectAlternativeName([own_name]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    jwt_key = ec.generate_private_key(ec.SECP256R1())
    return Authority(certificate=certificate, key=key, jwt_kid=secrets.token_urlsafe(12), jwt_key=jwt_key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, issued_at: int, not_after: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_utc(issued_at - BACKDATED_S))
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _issuer_key_id(signer: Authority) -> x509.AuthorityKeyIdentifier:
    key_id = signer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=not ca,
        data_encipherment=False,
        key_agreement=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _x509_jwk(authority: Authority) -> dict[str, object]:
    return public_jwk(authority.key.public_key()) | {
        "use": "x509-svid",
        "x5c": [base64.b64encode(authority.certificate.public_bytes(_DER)).decode()],
    }


def _utc(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _now() -> int:
    return int(time.time())
