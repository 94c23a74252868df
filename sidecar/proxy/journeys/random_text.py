"""Unguessable text from the system's random bits, fetched in blocks.

Each bit comes from the kernel and is used once. A system call for each handle would cost as much as a third of the
whole decision: one block serves a hundred, and is encoded and cut at once.
"""

from __future__ import annotations

import os
import re
from binascii import b2a_base64
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import chain, islice, repeat
from typing import Final

_BLOCK_BYTES: Final = 4096
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


def texts(chars: int, spell: Callable[[bytes], str]) -> Callable[[], str]:
    """Make a source of texts of ``chars`` random characters; ``spell`` encodes octets.

    It is an endless iterator built from parts of the interpreter: no bytecode of ours runs for a text.
    """
    cut = re.compile(f".{{{chars}}}").findall
    endless = chain.from_iterable(map(cut, map(spell, map(os.urandom, repeat(_BLOCK_BYTES)))))
    in_a_block = len(cut(spell(bytes(_BLOCK_BYTES))))
    # A forked process must not return the same texts as its parent: it skips the block that they share.
    os.register_at_fork(after_in_child=lambda: deque(islice(endless, in_a_block), maxlen=0))
    return partial(next, endless)  # calls no method wrapper, unlike ``__next__``


def base64url(octets: bytes) -> str:
    """Encode octets in the alphabet of RFC 4648 section 5, without padding."""
    return b2a_base64(octets, newline=False).translate(_URL_SAFE, b"=").decode("ascii")


random_128: Final = texts(32, bytes.hex)  # 32 lower-case hex digits
random_258: Final = texts(43, base64url)  # 43 characters of base64url
