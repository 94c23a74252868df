"""Hash chain over the lines of one run: each line holds the SHA-256 of the line before it.

A line that is changed, removed, inserted or moved no longer fits its neighbours; ``sidecar audit verify`` reports the
place. An attacker who can rewrite all lines can also recompute the chain. Therefore the token service countersigns its
head from time to time (``checkpoint``); countersigned lines cannot be rewritten unnoticed.

A record that was lost before it was encoded is not a link: its number is missing, and the chain is whole. So a loss
that the process admitted differs from a line that somebody removed.
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from delegation_core.records.record import FIELDS, Record

_NULL: Final = -len(b"null}")  # the end of an encoded line: ``prev`` is the last key

if FIELDS[-1] != "prev":
    raise AssertionError("the key prev must be the last of a record: the hash is spliced into the end of the line")


Encode = Callable[[Sequence[Record]], Sequence[bytes]]
Link = Callable[[Sequence[Record], Encode, bytes], tuple[bytes, bytes]]
"""Encodes records as lines linked to the hash before them; returns also the hash of the last one, in hex."""


class HashChain:
    """Encodes records as linked lines. ``encode`` makes lines, without newlines, in which ``prev`` is null.

    ``link``: the native engine's implementation, which also encodes the records of its own requests.
    """

    __slots__ = ("_encode", "_head", "_link")

    def __init__(self, encode: Encode, link: Link | None = None) -> None:
        self._encode = encode
        self._link = link
        self._head: tuple[int, bytes] | None = None  # replaced as a whole: other threads read it

    @property
    def head(self) -> tuple[int, str] | None:
        """Number of the last linked record and the hash of its line, in hex; None before the first. In any thread."""
        head = self._head
        return None if head is None else (head[0], head[1].decode())

    def __call__(self, records: Sequence[Record]) -> bytes:
        """Encode records in the order of their numbers. If it raises, the chain has not moved."""
        if not records:
            return b""
        linked = []
        before = b"" if self._head is None else self._head[1]
        if self._link is not None:
            lines, before = self._link(records, self._encode, before)
            self._head = records[-1]["seq"], before
            return lines
        for line in self._encode(records):
            if before:
                line = b"".join((line[:_NULL], b'"', before, b'"}'))  # copies a line least often: all records pay
            linked.append(line)
            before = hexlify(sha256(line).digest())
        self._head = records[-1]["seq"], before
        linked.append(b"")
        return b"\n".join(linked)


def line_hash(line: bytes) -> str:
    """Return the SHA-256 of a line without its newline, in hex."""
    return sha256(line).hexdigest()
