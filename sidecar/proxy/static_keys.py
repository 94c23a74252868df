"""Static keys that the sidecar holds for its agent, each from a file that is read again when it changes.

A key is never in a log, a record, an error or a status: only its fingerprint is, the first 128 bits of its SHA-256.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from sidecar.errors import Reason, Unavailable
from sidecar.identity.file_reader import Present, Seen, Watched, look_at

MIN_BYTES: Final = 8  # less could not be told from ordinary content of an answer
_KEY: Final = re.compile(rb"[!-~]{8,4096}")


@dataclass(frozen=True, slots=True)
class StaticKey:
    """One key as it is now."""

    value: bytes = field(repr=False)
    fingerprint: str


class StaticKeys:
    """The keys of all routes, by file."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}
        self._keys: dict[str, StaticKey] = {}

    def of(self, file: str) -> StaticKey:
        """Return the key in ``file``, as it is there now.

        Raises:
            Unavailable: CREDENTIAL_UNAVAILABLE, the file is missing, open to others, or holds no key.
        """
        before = self._seen.get(file)
        seen = look_at(Watched(Path(file), private=True), before)
        if seen is before and file in self._keys:
            return self._keys[file]
        self._seen[file] = seen
        self._keys.pop(file, None)
        if not isinstance(seen, Present):
            raise Unavailable(Reason.CREDENTIAL_UNAVAILABLE, seen.why)
        value = seen.content.removesuffix(b"\n").removesuffix(b"\r")
        if not _KEY.fullmatch(value):
            raise Unavailable(Reason.CREDENTIAL_UNAVAILABLE, f"{file} does not hold one key of 8 to 4096 characters")
        key = self._keys[file] = StaticKey(value, fingerprint_of(value))
        return key


def fingerprint_of(value: bytes) -> str:
    """Return the first 128 bits of the SHA-256 of a credential, in hex."""
    return sha256(value).hexdigest()[:32]


class AnswerScreen:
    """Looks for a key in an answer, whatever the pieces in which it arrives.

    Bytes that may be the beginning of the key are held back until what follows shows that they are not.
    """

    __slots__ = ("_held", "_key")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._held = b""

    def passed(self, data: bytes) -> bytes | None:
        """Return the bytes that may go on; None: the key is in them."""
        key, data = self._key, self._held + data
        if key in data:
            return None
        held = self._beginning_at_end_of(data)
        self._held = data[len(data) - held :]
        return data[: len(data) - held]

    def rest(self) -> bytes:
        """Return the bytes held back, at the end of the answer."""
        held, self._held = self._held, b""
        return held

    def _beginning_at_end_of(self, data: bytes) -> int:
        """Return how many of the last bytes are the first ones of the key."""
        key = self._key
        at = data.find(key[:1], max(0, len(data) - len(key) + 1))
        while at >= 0:
            if key.startswith(data[at:]):
                return len(data) - at
            at = data.find(key[:1], at + 1)
        return 0
