"""Limits on received certificates, checked on their bytes before any library verifies or parses them. Pure.

The sender of a certificate chooses the work of its reader. Parsing one elliptic-curve key with explicit parameters
takes OpenSSL 0.2 s; an RSA-3072 key with a full-length exponent costs 6 ms for each signature; names times name
constraints multiply. None of them needs a trusted signature. So each certificate is checked here first, in time linear
in its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from delegation_core.errors import Denied, Reason
from sidecar.identity.der import SEQUENCE, DerError, element_at, elements_in

MAX_CERTIFICATES: Final = 10
MAX_CERTIFICATE_BYTES: Final = 8192
MAX_CHAIN_BYTES: Final = 32768
MAX_RSA_BITS: Final = 8192
MAX_RSA_EXPONENT: Final = 65537
MAX_NAME_BYTES: Final = 1024  # of a subject or issuer
MAX_EXTENSIONS: Final = 32
MAX_ALTERNATIVE_NAMES: Final = 256  # of a chain
MAX_CONSTRAINTS: Final = 32  # subtrees of a certificate
MAX_NAME_CHECKS: Final = 4096  # alternative names of a chain times its subtrees

_INTEGER, _BIT_STRING, _OCTET_STRING, _OID = 0x02, 0x03, 0x04, 0x06
_VERSION, _EXTENSIONS = 0xA0, 0xA3  # context tags in TBSCertificate (RFC 5280 section 4.1)
_MAX_FIELDS: Final = 10  # of TBSCertificate
_RSA: Final = bytes.fromhex("2a864886f70d010101")
_EC: Final = bytes.fromhex("2a8648ce3d0201")
_ED25519: Final = bytes.fromhex("2b6570")
_CURVES: Final = {  # named curves, and the bytes of a coordinate
    bytes.fromhex("2a8648ce3d030107"): 32,
    bytes.fromhex("2b81040022"): 48,
    bytes.fromhex("2b81040023"): 66,
}
_SUBJECT_KEY_ID: Final = bytes.fromhex("551d0e")
_ALTERNATIVE_NAME: Final = bytes.fromhex("551d11")
_NAME_CONSTRAINTS: Final = bytes.fromhex("551d1e")
_AUTHORITY_KEY_ID: Final = bytes.fromhex("551d23")


class _BoundError(Exception):
    """A certificate exceeds a limit, or is of a kind that is not accepted. The text is fixed."""


@dataclass(frozen=True, slots=True)
class Outline:
    """The fields used to search a path, as bytes of the certificate. Unverified."""

    issuer: bytes = field(repr=False)
    subject: bytes = field(repr=False)
    key_id: bytes | None = field(repr=False)  # of its own key
    issuer_key_id: bytes | None = field(repr=False)  # of the key that signed it
    names: int
    constraints: int


def check_chain(chain: Sequence[bytes]) -> list[Outline]:
    """Check a presented chain (DER, leaf first) against every limit.

    Raises:
        Denied: NO_CLIENT_CERT: the chain is empty; UNTRUSTED_CHAIN: the chain, or a certificate above the leaf, exceeds
        a limit; BAD_SVID: the leaf exceeds a limit, or an element is not a certificate. The detail names the limit.
    """
    if not chain:
        raise Denied(Reason.NO_CLIENT_CERT)
    if len(chain) > MAX_CERTIFICATES:
        raise Denied(Reason.UNTRUSTED_CHAIN, f"the chain is too long: more than {MAX_CERTIFICATES} certificates")
    if sum(map(len, chain)) > MAX_CHAIN_BYTES:
        raise Denied(Reason.UNTRUSTED_CHAIN, f"the chain is too large: more than {MAX_CHAIN_BYTES} bytes")
    outlines = []
    for number, der in enumerate(chain):
        try:
            outlines.append(_outline(der))
        except _BoundError as error:
            raise Denied(
                Reason.UNTRUSTED_CHAIN if number else Reason.BAD_SVID, f"certificate {number}: {error}"
            ) from None
        except DerError:
            raise Denied(Reason.BAD_SVID, f"certificate {number} cannot be read") from None
        if sum(one.names for one in outlines) > MAX_ALTERNATIVE_NAMES:
            raise Denied(Reason.UNTRUSTED_CHAIN, f"the chain has more than {MAX_ALTERNATIVE_NAMES} alternative names")
    if sum(one.names for one in outlines) * sum(one.constraints for one in outlines) > MAX_NAME_CHECKS:
        raise Denied(Reason.UNTRUSTED_CHAIN, f"the product of names and name constraints exceeds {MAX_NAME_CHECKS}")
    return outlines


def outline_of(der: bytes) -> Outline | None:
    """Outline one certificate; None if it exceeds a limit, or is unreadable or of an unsupported kind."""
    try:
        return _outline(der)
    except (_BoundError, DerError):
        return None


def _outline(der: bytes) -> Outline:
    """Walk a certificate (RFC 5280 section 4.1)."""
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise _BoundError(f"more than {MAX_CERTIFICATE_BYTES} bytes")
    tag, start, end = element_at(der, 0, len(der))
    if tag != SEQUENCE or end != len(der):
        raise DerError("not one DER sequence")
    parts = elements_in(der, start, end, 3)
    if [one[0] for one in parts] != [SEQUENCE, SEQUENCE, _BIT_STRING]:
        raise DerError("not the parts of a certificate")
    fields = elements_in(der, *parts[0][1:], _MAX_FIELDS)
    if fields and fields[0][0] == _VERSION:
        del fields[0]
    if [one[0] for one in fields[:6]] != [_INTEGER, *[SEQUENCE] * 5]:
        raise DerError("not the fields of a certificate")
    _, _, issuer, _, subject, key = fields[:6]
    for _, start, end in (issuer, subject):
        if end - start > MAX_NAME_BYTES:
            raise _BoundError(f"a name of more than {MAX_NAME_BYTES} bytes")
    _check_key(der, *key[1:])
    found = _extensions(der, fields[6:])
    return Outline(
        issuer=der[issuer[1] : issuer[2]],
        subject=der[subject[1] : subject[2]],
        key_id=_key_id(der, found.get(_SUBJECT_KEY_ID), of_issuer=False),
        issuer_key_id=_key_id(der, found.get(_AUTHORITY_KEY_ID), of_issuer=True),
        names=_names(der, found.get(_ALTERNATIVE_NAME)),
        constraints=_constraints(der, found.get(_NAME_CONSTRAINTS)),
    )


def _check_key(der: bytes, start: int, end: int) -> None:
    """Require in SubjectPublicKeyInfo: RSA of bounded size and exponent, a point on a named curve, or Ed25519."""
    parts = elements_in(der, start, end, 2)
    if [one[0] for one in parts] != [SEQUENCE, _BIT_STRING]:
        raise DerError("no public key")
    algorithm = elements_in(der, *parts[0][1:], 2)
    if not algorithm or algorithm[0][0] != _OID:
        raise DerError("no algorithm of a public key")
    kind = der[algorithm[0][1] : algorithm[0][2]]
    start, end = parts[1][1] + 1, parts[1][2]  # after the number of unused bits
    if kind == _RSA:
        _check_rsa(der, start, end)
    elif kind == _EC:
        _check_point(der, algorithm, start, end)
    elif kind != _ED25519 or end - start != 32:
        raise _BoundError("a key that is not RSA, ECDSA or Ed25519")


def _check_rsa(der: bytes, start: int, end: int) -> None:
    tag, start, end = element_at(der, start, end)
    numbers = elements_in(der, start, end, 2)
    if tag != SEQUENCE or [one[0] for one in numbers] != [_INTEGER, _INTEGER]:
        raise DerError("no RSA key")
    (_, start, end), exponent = numbers
    if (end - start - 1) * 8 > MAX_RSA_BITS or int.from_bytes(der[start:end], "big").bit_length() > MAX_RSA_BITS:
        raise _BoundError(f"an RSA key of more than {MAX_RSA_BITS} bits")
    if exponent[2] - exponent[1] > 4 or int.from_bytes(der[exponent[1] : exponent[2]], "big") > MAX_RSA_EXPONENT:
        raise _BoundError(f"an RSA key whose exponent is more than {MAX_RSA_EXPONENT}")


def _check_point(der: bytes, algorithm: list[tuple[int, int, int]], start: int, end: int) -> None:
    """Require a named curve: OpenSSL computes with explicit parameters while it parses them."""
    size = None
    if len(algorithm) == 2 and algorithm[1][0] == _OID:
        size = _CURVES.get(der[algorithm[1][1] : algorithm[1][2]])
    if size is None:
        raise _BoundError("an ECDSA key whose curve is not P-256, P-384 or P-521 by name")
    if (der[start : start + 1], end - start) not in ((b"\4", 1 + 2 * size), (b"\2", 1 + size), (b"\3", 1 + size)):
        raise DerError("no point of the curve")


def _extensions(der: bytes, fields: list[tuple[int, int, int]]) -> dict[bytes, tuple[int, int]]:
    """Return the bounds of each extension's value, by object identifier."""
    found: dict[bytes, tuple[int, int]] = {}
    for tag, start, end in fields:
        if tag != _EXTENSIONS:
            continue
        _, start, end = element_at(der, start, end)
        try:
            extensions = elements_in(der, start, end, MAX_EXTENSIONS)
        except DerError as error:
            raise _BoundError(f"more than {MAX_EXTENSIONS} extensions, or unreadable ones") from error
        for one in extensions:
            parts = elements_in(der, *one[1:], 3)
            if len(parts) < 2 or parts[0][0] != _OID or parts[-1][0] != _OCTET_STRING:
                raise DerError("no extension")
            name = der[parts[0][1] : parts[0][2]]
            if name in found:
                raise DerError("an extension is repeated")
            found[name] = parts[-1][1:]
    return found


def _key_id(der: bytes, value: tuple[int, int] | None, *, of_issuer: bool) -> bytes | None:
    """Return the identifier in SubjectKeyIdentifier, or in AuthorityKeyIdentifier if it has one."""
    if value is None:
        return None
    try:
        tag, start, end = element_at(der, *value)
        if of_issuer:
            tag, start, end = element_at(der, start, end) if start < end else (0, 0, 0)
    except DerError:
        raise _BoundError("a key identifier that cannot be read") from None
    return der[start:end] if tag == (0x80 if of_issuer else _OCTET_STRING) else None


def _names(der: bytes, value: tuple[int, int] | None) -> int:
    return 0 if value is None else _count(der, value, MAX_ALTERNATIVE_NAMES, "alternative names")


def _constraints(der: bytes, value: tuple[int, int] | None) -> int:
    """Count the subtrees in permittedSubtrees and excludedSubtrees together (RFC 5280 section 4.2.1.10)."""
    if value is None:
        return 0
    try:
        _, start, end = element_at(der, *value)
        lists = elements_in(der, start, end, 2)
    except DerError:
        raise _BoundError("name constraints that cannot be read") from None
    count = sum(_count_in(der, start, end, MAX_CONSTRAINTS, "name constraints") for _, start, end in lists)
    if count > MAX_CONSTRAINTS:
        raise _BoundError(f"more than {MAX_CONSTRAINTS} name constraints")
    return count


def _count(der: bytes, value: tuple[int, int], most: int, of_what: str) -> int:
    try:
        _, start, end = element_at(der, *value)
    except DerError:
        raise _BoundError(f"{of_what} that cannot be read") from None
    return _count_in(der, start, end, most, of_what)


def _count_in(der: bytes, start: int, end: int, most: int, of_what: str) -> int:
    count = 0
    try:
        while start < end and count <= most:
            # Most are short: their length is one byte, so their head need not be parsed.
            short = start + 1 < end and der[start + 1] < 0x80 and der[start] & 0x1F != 0x1F
            start = start + 2 + der[start + 1] if short else element_at(der, start, end)[2]
            count += 1
    except DerError:
        count = most + 1
    if count > most or start > end:
        raise _BoundError(f"more than {most} {of_what}, or unreadable ones")
    return count
