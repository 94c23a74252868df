"""Unguessable text from the system's random bits, fetched in blocks.

Each bit comes from the kernel and is used once. A system call for each handle would cost as much as a third of the
whole decision: a block serves a hundred, and is spelled and cut in one go.
"""

from __future__ import annotations

import os
import re
from binascii import b2a_base64
from collections.abc import Callable
from typing import Final

_BLOCK_BYTES: Final = 4096
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


class Unguessable:
    """Texts of ``chars`` random characters each, in the spelling ``spell`` has for octets."""

    __slots__ = ("_cut", "_ready", "_spell")

    def __init__(self, chars: int, spell: Callable[[bytes], str]) -> None:
        self._cut = re.compile(f".{{{chars}}}").findall
        self._spell = spell
        self._ready: list[str] = []
        os.register_at_fork(after_in_child=self.forget)

    def take(self) -> str:
        """A text never given before."""
        if not self._ready:
            self._ready = self._cut(self._spell(os.urandom(_BLOCK_BYTES)))
        return self._ready.pop()

    def forget(self) -> None:
        """Fetch anew next time: a forked process must not give what its parent gives."""
        self._ready = []


def base64url(octets: bytes) -> str:
    """Octets in the alphabet of RFC 4648 section 5, without padding."""
    return b2a_base64(octets, newline=False).translate(_URL_SAFE, b"=").decode("ascii")


random_128: Final = Unguessable(32, bytes.hex).take  # 32 lower-case hex digits
random_258: Final = Unguessable(43, base64url).take  # 43 characters of base64url
