"""Converts PEM text (RFC 7468) into DER for the rest of this package. Pure, and stricter than the library."""

from __future__ import annotations

import re
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from sidecar.identity.bundle import CERTIFICATE_ERRORS

_BEGIN: Final = b"-----BEGIN "
_BLOCK: Final = re.compile(rb"-----BEGIN [^\n-]*-----(?:(?!-----BEGIN ).)*?-----END [^\n-]*-----", re.DOTALL)


class PemError(ValueError):
    """The text is malformed. The message never quotes it."""


def may_be_unfinished(text: bytes) -> bool:
    """Return True if the text may be half-written: empty, or ending within a block or a block's boundary.

    A text cut between two blocks is indistinguishable from a whole one.
    """
    rest = _BLOCK.sub(b"", text).rstrip()
    return not text.strip() or b"-----" in rest or rest.endswith(b"-")


def certificates_of(text: bytes) -> tuple[bytes, ...]:
    """Read the certificates of a PEM text, in order; white space alone gives none.

    Raises:
        PemError: the text has an invalid certificate or anything else, such as a private key. So half a file cannot
            pass as a shorter one.
    """
    if not text.strip():
        return ()
    try:
        found = x509.load_pem_x509_certificates(text)
    except CERTIFICATE_ERRORS as error:
        raise PemError("it holds something that is not a PEM certificate") from error
    if text.count(_BEGIN) != len(found):
        raise PemError("it holds something beside whole PEM certificates")
    return tuple(certificate.public_bytes(serialization.Encoding.DER) for certificate in found)


def private_key_of(text: bytes) -> bytes:
    """Read the one private key of a PEM text, as PKCS#8 DER.

    Raises:
        PemError: there is no key or more than one, or it is encrypted or of an unknown kind.
    """
    if text.count(_BEGIN) != 1:
        raise PemError("it does not hold exactly one PEM private key")
    try:
        return serialization.load_pem_private_key(text, password=None).private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):  # the library quotes the input in its errors
        raise PemError("it holds no unencrypted PEM private key") from None
