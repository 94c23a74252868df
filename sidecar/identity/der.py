"""Concatenated DER, which is how the Workload API sends chains and bundles, cut into its pieces. Pure."""

from __future__ import annotations

from typing import Final

MAX_BYTES: Final = 1 << 20
MAX_PIECES: Final = 500


class DerError(ValueError):
    """The bytes are not whole DER sequences. The message never quotes them."""


def split_der(der: bytes) -> list[bytes]:
    """Cut concatenated DER sequences apart.

    Raises:
        DerError: anything but whole sequences of definite, minimal length, or too much.
    """
    if len(der) > MAX_BYTES:
        raise DerError("too many bytes")
    pieces: list[bytes] = []
    start = 0
    while start < len(der):
        end = _end_of_sequence(der, start)
        pieces.append(der[start:end])
        if len(pieces) > MAX_PIECES:
            raise DerError("too many pieces")
        start = end
    return pieces


def _end_of_sequence(der: bytes, start: int) -> int:
    """Where the DER SEQUENCE at ``start`` ends (X.690 sections 8.1.3 and 10.1)."""
    head = der[start : start + 2]
    if len(head) < 2 or head[0] != 0x30:
        raise DerError("not a DER sequence")
    length, body = head[1], start + 2
    if length >= 0x80:
        octets = der[body : body + (length & 0x7F)]
        body += len(octets)
        length = int.from_bytes(octets, "big")
        if not 1 <= len(octets) <= 4 or octets[0] == 0 or length < 0x80:
            raise DerError("the DER length is not minimal")
    if body + length > len(der):
        raise DerError("the DER sequence is cut short")
    return body + length
