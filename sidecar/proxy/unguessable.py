"""Unguessable text from the system's random bits, fetched in blocks.

Each bit comes from the kernel and is used once. A system call for each handle would cost as much as a third of the
whole decision: a block serves a hundred.
"""

from __future__ import annotations

import os
from binascii import b2a_base64
from typing import Final

_BLOCK_BYTES: Final = 4096
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


class _Block:
    """What is left of the block fetched last."""

    __slots__ = ("_at", "_octets")

    def __init__(self) -> None:
        self._octets = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        """The next ``count`` octets, never given before."""
        end = self._at + count
        if end > len(self._octets):
            self._octets = os.urandom(max(_BLOCK_BYTES, count))
            self._at, end = 0, count
        taken = self._octets[self._at : end]
        self._at = end
        return taken

    def forget(self) -> None:
        """Fetch anew next time: a forked process must not give what its parent gives."""
        self._octets = b""
        self._at = 0


_block: Final = _Block()
os.register_at_fork(after_in_child=_block.forget)


def random_hex(count: int) -> str:
    """``count`` random octets as lower-case hex, two digits each."""
    return _block.take(count).hex()


def random_base64url(count: int) -> str:
    """``count`` random octets in the alphabet of RFC 4648 section 5, without padding."""
    return b2a_base64(_block.take(count), newline=False).translate(_URL_SAFE, b"=").decode("ascii")
