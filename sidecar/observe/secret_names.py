"""Fingerprints that name long-lived secrets in records, such as API keys and client secrets.

A reader of records can try guesses against a fingerprint. One guess costs as much as one fingerprint: 16 MiB and some
hundredths of a second, about a million times the cost of a plain hash. A short secret gets no fingerprint, because it
is easy to guess. There is no key, so that one secret has one fingerprint at every sidecar, in every run. Signed or
short-lived tokens are named by a plain hash, because they cannot be guessed.
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
    """Return a 128-bit fingerprint in hex; None for a short secret or if scrypt fails. Slow: call it in a thread."""
    if len(secret) < MIN_BYTES:
        return None
    with _one_at_a_time:
        try:
            return scrypt(secret, salt=_SALT, n=_COST, r=_BLOCK, p=1, dklen=_BYTES).hex()
        except (ValueError, MemoryError):  # a libcrypto without scrypt, or no memory: no call fails for want of a name
            return None
