"""Fingerprints by which records name a secret that somebody keeps, such as an API key or a client's secret.

A reader of records can try guesses against a fingerprint. One guess costs as much as one fingerprint: 16 MiB and some
hundredths of a second, about a million times the cost of a plain hash. A short secret has none: its guesses are few.
There is no key, so that one secret has one fingerprint at every sidecar, in every run. Tokens that are signed or live
shortly are named by a plain hash: nobody guesses those.
"""

from __future__ import annotations

import threading
from hashlib import scrypt
from typing import Final

MIN_BYTES: Final = 16
UNNAMED: Final = "unnamed"  # in place of the fingerprint of a secret that has none
_SALT: Final = b"delegation-sidecar: a secret's name in records"  # public, and the same everywhere
_COST: Final = 1 << 14
_BLOCK: Final = 8
_BYTES: Final = 16

_one_at_a_time: Final = threading.Lock()  # each takes 16 MiB


def secret_fingerprint(secret: bytes) -> str | None:
    """Return 128 bits in hex that name a secret; None: it is too short to be named. Blocks: for a thread."""
    if len(secret) < MIN_BYTES:
        return None
    with _one_at_a_time:
        try:
            return scrypt(secret, salt=_SALT, n=_COST, r=_BLOCK, p=1, dklen=_BYTES).hex()
        except (ValueError, MemoryError):  # a libcrypto without scrypt, or no memory: no call fails for want of a name
            return None
