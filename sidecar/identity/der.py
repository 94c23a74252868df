"""Splits concatenated DER, the form in which the Workload API sends chains and bundles. Pure."""

from __future__ import annotations

from typing import Final

MAX_BYTES: Final = 1 << 20
MAX_PIECES: Final = 500

SEQUENCE: Final = 0x30


class DerError(ValueError):
    """The bytes are not whole DER sequences. The message never quotes them."""


def split_der(der: bytes) -> list[bytes]:
    """Split concatenated DER sequences.

    Raises:
        DerError: the bytes are not whole sequences of definite, minimal length, or exceed a limit.
    """
    if len(der) > MAX_BYTES:
        raise DerError("too many bytes")
    pieces: list[bytes] = []
    start = 0
    while start < len(der):
        tag, _, end = element_at(der, start, len(der))
        if tag != SEQUENCE:
            raise DerError("not a DER sequence")
        pieces.append(der[start:end])
        if len(pieces) > MAX_PIECES:
            raise DerError("too many pieces")
        start = end
    return pieces


def element_at(der: bytes, start: int, end: int) -> tuple[int, int, int]:
    """Read the head of the DER element at ``start``: its tag, and the start and end of its content.

    Raises:
        DerError: the element does not fit before ``end``, has a multi-byte tag, or no definite, minimal length.
    """
    if start + 2 > end or der[start] & 0x1F == 0x1F:
        raise DerError("no DER element")
    length, body = der[start + 1], start + 2
    if length >= 0x80:
        octets = der[body : min(body + (length & 0x7F), end)]
        body += len(octets)
        length = int.from_bytes(octets, "big")
        if not 1 <= len(octets) <= 4 or octets[0] == 0 or length < 0x80:
            raise DerError("the DER length is not minimal")
    if body + length > end:
        raise DerError("the DER element is cut short")
    return der[start], body, body + length


def elements_in(der: bytes, start: int, end: int, most: int) -> list[tuple[int, int, int]]:
    """Read the elements of a content: tag, start and end of each.

    Raises:
        DerError: as ``element_at``, or there are more than ``most``.
    """
    found: list[tuple[int, int, int]] = []
    while start < end:
        if len(found) == most:
            raise DerError("too many elements")
        found.append(element_at(der, start, end))
        start = found[-1][2]
    return found
