"""Certificates that cost their receiver more than their sender. No trusted authority signed any of them."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from sidecar.identity.generation import _file_in_memory
from tests.identity.shapes import Issued, authority, new_key, tlv

RSA = bytes.fromhex("06092a864886f70d0101010500")
EC = bytes.fromhex("06072a8648ce3d0201")
P256 = bytes.fromhex("06082a8648ce3d030107")
_SIGNED_WITH = tlv(0x30, bytes.fromhex("06082a8648ce3d040302"))
_NO_SIGNATURE = tlv(0x03, b"\0" + tlv(0x30, bytes.fromhex("020101020101")))

# A prime: square roots modulo it take 0.1 s, and OpenSSL computes two when it reads a compressed point and generator.
FIELD = 141 * 2**640 + 1


def offer_group(context: ssl.SSLContext, group: str) -> None:
    """Let a context offer one group of TLS 1.3 alone. Skip the test if this Python has no name for the group."""
    try:
        context.set_ecdh_curve(group)
    except (ValueError, ssl.SSLError):  # 3.11.2 knows only the curves of OpenSSL's EC
        pytest.skip(f"this Python cannot choose the group {group}")


def integer(number: int) -> bytes:
    return tlv(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def rsa_spki(bits: int, exponent: int = 65537) -> bytes:
    """Return a key without an owner: any odd modulus works."""
    return tlv(0x30, tlv(0x30, RSA) + tlv(0x03, b"\0" + tlv(0x30, integer(2 ** (bits - 1) + 1) + integer(exponent))))


def ec_spki(parameters: bytes, point: bytes) -> bytes:
    return tlv(0x30, tlv(0x30, EC + parameters) + tlv(0x03, b"\0" + point))


def own_curve_spki() -> bytes:
    """Return a point on a custom curve, both compressed."""
    size = (FIELD.bit_length() + 7) // 8
    x, y = 2, 4
    b = (y * y - x**3 - x) % FIELD
    point = b"\2" + x.to_bytes(size, "big")
    field = tlv(0x30, bytes.fromhex("06072a8648ce3d0101") + integer(FIELD))
    curve = tlv(0x30, tlv(0x04, (1).to_bytes(size, "big")) + tlv(0x04, b.to_bytes(size, "big")))
    order = integer(2 ** (FIELD.bit_length() - 1) + 1)
    return ec_spki(tlv(0x30, integer(1) + field + curve + tlv(0x04, point) + order), point)


def with_spki(spki: bytes, like: Issued) -> bytes:
    """Return the DER of a certificate with another public key, and no signature."""
    tbs = like.certificate.tbs_certificate_bytes
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    own = like.certificate.public_key().public_bytes(serialization.Encoding.DER, form)
    header = 4 if tbs[1] == 0x82 else 3
    return tlv(0x30, tlv(0x30, tbs[header:].replace(own, spki)) + _SIGNED_WITH + _NO_SIGNATURE)


def authority_with(spki: bytes, subject: str = "hostile") -> bytes:
    return with_spki(spki, authority(subject))


def extension(oid: str, value: bytes) -> dict[str, Any]:
    return {oid: (x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), False)}


def alternative_names(count: int) -> bytes:
    return tlv(0x30, tlv(0x82, b"a") * count)


def name_constraints(permitted: int, excluded: int = 0) -> bytes:
    subtree = tlv(0x30, tlv(0x82, b"a"))
    lists = [tlv(tag, subtree * count) for tag, count in ((0xA0, permitted), (0xA1, excluded)) if count]
    return tlv(0x30, b"".join(lists))


def presenting(chain: Sequence[bytes], *, server: bool = False, key: Any = None) -> ssl.SSLContext:
    """Return an end that presents any certificates; the first has the key of every leaf here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    held: Any = key or new_key("p256", "leaf")
    pem = held.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for der in chain:
        pem += b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"
    with _file_in_memory(pem) as path:
        context.load_cert_chain(path)
    return context
