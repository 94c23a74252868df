"""Makes the X.509 certificates of a SPIFFE trust domain, as SPIRE makes them (X509-SVID sections 2 to 5)."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Sequence
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from delegation_core.spiffe_id import SpiffeId, TrustDomain

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
KeyType = Literal["ec-p256", "rsa-2048"]

DEVELOPMENT_ONLY: Final = "DEVELOPMENT ONLY"  # in every authority's name, to mark it as not for production
BACKDATED_S: Final = 10  # as SPIRE does: the clocks of two hosts never agree to the second

_USES: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def new_key(key_type: KeyType) -> PrivateKey:
    """Make a private key."""
    if key_type == "rsa-2048":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def key_der(key: PrivateKeyTypes) -> bytes:
    """Encode a private key as PKCS#8 DER, not encrypted."""
    return _pkcs8(key, serialization.Encoding.DER)


def key_pem(key: PrivateKeyTypes) -> bytes:
    """Encode a private key as PKCS#8 PEM, not encrypted."""
    return _pkcs8(key, serialization.Encoding.PEM)


def _pkcs8(key: PrivateKeyTypes, encoding: serialization.Encoding) -> bytes:
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def certificate_der(certificate: x509.Certificate) -> bytes:
    """Encode as DER."""
    return certificate.public_bytes(serialization.Encoding.DER)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Encode as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def authority_certificate(
    trust_domain: TrustDomain, key: PrivateKey, *, ttl_s: int, issued_at: int
) -> x509.Certificate:
    """Make the self-signed signing certificate of a trust domain. ``issued_at`` is in seconds since the epoch."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"SPIFFE {DEVELOPMENT_ONLY}"),
            # Each generation has a name of its own: path builders look issuers up by name.
            x509.NameAttribute(NameOID.SERIAL_NUMBER, secrets.token_hex(8)),
        ]
    )
    own_name = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")
    return (
        _builder(subject, subject, key, issued_at, at(issued_at + ttl_s))
        .add_extension(x509.SubjectAlternativeName([own_name]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def svid_certificate(
    spiffe_id: SpiffeId,
    key: PrivateKey,
    *,
    issuer: x509.Certificate,
    issuer_key: PrivateKey,
    dns_names: Sequence[str],
    ttl_s: int,
    issued_at: int,
) -> x509.Certificate:
    """Make the leaf of an X.509-SVID, valid no longer than its issuer.

    It has an empty subject, so that no common name can be mistaken for an identity; its subject alternative name is
    therefore critical (RFC 5280 section 4.1.2.6).
    """
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(spiffe_id)]
    names += [x509.DNSName(name) for name in dns_names]
    issuer_key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    not_after = min(at(issued_at + ttl_s), issuer.not_valid_after_utc)
    return (
        _builder(x509.Name([]), issuer.subject, key, issued_at, not_after)
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USES), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key_id), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, issued_at: int, not_after: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at(issued_at - BACKDATED_S))
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


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


def at(seconds: int) -> datetime.datetime:
    """Convert seconds since the epoch to a UTC time."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
