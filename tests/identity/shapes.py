"""Certificates of every shape, valid and invalid, with keys that a test run makes once."""

from __future__ import annotations

import datetime
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.identity.bounds import outline_of
from sidecar.identity.bundle import Presented

NOW = int(time.time())
HOUR = 3600

CURVES: dict[str, type[Any]] = {
    "p192": ec.SECP192R1,
    "p224": ec.SECP224R1,
    "p256": ec.SECP256R1,
    "p384": ec.SECP384R1,
    "p521": ec.SECP521R1,
    "k256": ec.SECP256K1,
}
Extension = tuple[x509.ExtensionType, bool] | None  # (value, critical); None leaves it out


@functools.cache
def new_key(kind: str, label: str) -> CertificateIssuerPrivateKeyTypes:
    """Return one key per kind and label for the whole run."""
    match kind:
        case "rsa":
            return rsa.generate_private_key(65537, 2048)
        case "rsa-1024":
            return rsa.generate_private_key(65537, 1024)
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return ec.generate_private_key(CURVES[kind]())


@dataclass(frozen=True)
class Issued:
    certificate: x509.Certificate
    key: Any

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def key_der(self) -> bytes:
        encoding, form = serialization.Encoding.DER, serialization.PrivateFormat.PKCS8
        return bytes(self.key.private_bytes(encoding, form, serialization.NoEncryption()))


def usage(*names: str) -> x509.KeyUsage:
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign"
        " crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: name in names for name in every.split()})


def uris(*values: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(value) for value in values])


def name_of(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def signing_hash(key: object) -> Any:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def issue(
    subject: str,
    key: CertificateIssuerPrivateKeyTypes,
    issuer: Issued | None,
    extensions: Mapping[str, Extension],
    *,
    not_before: int = NOW - HOUR,
    not_after: int = NOW + HOUR,
) -> Issued:
    signer: Any = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(name_of(subject))
        .issuer_name(issuer.certificate.subject if issuer else name_of(subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(not_before, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(not_after, datetime.UTC))
    )
    for extension in filter(None, extensions.values()):
        builder = builder.add_extension(*extension)
    return Issued(builder.sign(signer, signing_hash(signer)), key)


def authority(
    subject: str,
    issuer: Issued | None = None,
    *,
    kind: str = "p256",
    key: CertificateIssuerPrivateKeyTypes | None = None,
    extensions: Mapping[str, Extension] | None = None,
    not_before: int = NOW - 10 * HOUR,
    not_after: int = NOW + 100 * HOUR,
) -> Issued:
    """Make a CA like SPIRE's, except for the changes in ``extensions``."""
    key = key or new_key(kind, subject)
    public: Any = key.public_key()
    shape: dict[str, Extension] = {
        "bc": (x509.BasicConstraints(ca=True, path_length=None), True),
        "ku": (usage("key_cert_sign", "crl_sign"), True),
        "ski": (x509.SubjectKeyIdentifier.from_public_key(public), False),
        "aki": _aki(issuer),
    }
    shape |= extensions or {}
    return issue(subject, key, issuer, shape, not_before=not_before, not_after=not_after)


def leaf(
    issuer: Issued,
    spiffe_id: str = "spiffe://a.test/x",
    *,
    kind: str = "p256",
    subject: str = "leaf",
    extensions: Mapping[str, Extension] | None = None,
    not_before: int = NOW - HOUR,
    not_after: int = NOW + HOUR,
) -> Issued:
    """Make an X.509-SVID like SPIRE's, except for the changes in ``extensions``."""
    shape: dict[str, Extension] = {
        "san": (uris(spiffe_id), False),
        "bc": (x509.BasicConstraints(ca=False, path_length=None), True),
        "ku": (usage("digital_signature", "key_encipherment", "key_agreement"), True),
        "eku": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        "aki": _aki(issuer),
    }
    shape |= extensions or {}
    key = new_key(kind, "leaf")
    return issue(subject, key, issuer, shape, not_before=not_before, not_after=not_after)


def _aki(issuer: Issued | None) -> Extension:
    if issuer is None:
        return None
    try:
        ski = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except (x509.ExtensionNotFound, x509.UnsupportedGeneralNameType, ValueError):
        return None
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski), False


def der_of(*certificates: Issued) -> tuple[bytes, ...]:
    return tuple(certificate.der for certificate in certificates)


def presented(issued: Issued) -> Presented:
    """Return a certificate within bounds, as a bundle receives it."""
    outline = outline_of(issued.der)
    assert outline is not None
    return Presented(issued.certificate, outline)


def tlv(tag: int, content: bytes) -> bytes:
    """Encode a DER element."""
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def resigned(certificate: Issued, signer: Issued, edit: Sequence[tuple[bytes, bytes]]) -> Issued:
    """Return the certificate with signed bytes of equal length replaced, and a fitting signature."""
    tbs = certificate.certificate.tbs_certificate_bytes
    for old, new in edit:
        assert tbs.count(old) >= 1
        assert len(old) == len(new)
        tbs = tbs.replace(old, new)
    return signed(tbs, certificate, signer)


def signed(tbs: bytes, like: Issued, signer: Issued) -> Issued:
    """Sign the bytes, with an ECDSA-SHA256 signature."""
    algorithm = tlv(0x30, bytes.fromhex("06082a8648ce3d040302"))
    signature = signer.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return Issued(x509.load_der_x509_certificate(tlv(0x30, tbs + algorithm + tlv(0x03, b"\0" + signature))), like.key)


def version_1(subject: str) -> Issued:
    """Make a self-signed certificate of version 1, which has no extensions."""
    plain = issue(subject, new_key("p256", subject), None, {})
    tbs = plain.certificate.tbs_certificate_bytes
    header = 4 if tbs[1] == 0x82 else 3 if tbs[1] == 0x81 else 2
    without_version = tbs[header:].removeprefix(bytes.fromhex("a003020102"))
    return signed(tlv(0x30, without_version), plain, plain)
