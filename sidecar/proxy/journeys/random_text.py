"""Unguessable text from the kernel's random bytes, fetched in blocks.

Each random bit is used once. A system call per handle would cost a third of a whole decision, so one block serves about
a hundred handles; it is encoded and cut in one step.
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
    """Make a function that returns a new text of ``chars`` random characters; ``spell`` encodes octets.

    It consists of the interpreter's own iterators, so a text runs no Python bytecode.
    """
    cut = re.compile(f".{{{chars}}}").findall
    endless = chain.from_iterable(map(cut, map(spell, map(os.urandom, repeat(_BLOCK_BYTES)))))
    in_a_block = len(cut(spell(bytes(_BLOCK_BYTES))))
    # A forked process must not return its parent's texts: it skips the block that both hold.
    os.register_at_fork(after_in_child=lambda: deque(islice(endless, in_a_block), maxlen=0))
    return partial(next, endless)  # calls no method wrapper, unlike ``__next__``


def base64url(octets: bytes) -> str:
    """Encode octets in the alphabet of RFC 4648 section 5, without padding."""
    return b2a_base64(octets, newline=False).translate(_URL_SAFE, b"=").decode("ascii")


random_128: Final = texts(32, bytes.hex)  # 32 lower-case hex digits
random_258: Final = texts(43, base64url)  # 43 characters of base64url
