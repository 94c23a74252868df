"""Secrecy of the output: a secret leaves as a keyed fingerprint, and texts from outside leave masked.

A fingerprint tells that two places hold the same secret and nothing else. Without the key nobody can try guesses
against it, so that even a weak password stays unknown. Runs with the same key can be compared.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final

MASK: Final = "[masked]"
SPAN: Final = 6  # characters: a text that shares so many in a row with a secret is masked
MIN_KEY_BYTES: Final = 16
_MAX_KEY_BYTES: Final = 4096
_DIGITS: Final = 32
_GROUP: Final = 4
_WORDS: Final = 12
_BEGINNING: Final = 16
_WORDY: Final = re.compile(r"[a-z./_ -]+")
_PARTS: Final = re.compile(r"([ ,/])")
_MAX_MASKED: Final = 16_384  # characters of a secret that are compared: a private key has fewer


class KeyFileError(ValueError):
    """The file of the key cannot be used; the message has the fix."""


class Fingerprints:
    """Keyed fingerprints of one run, or of all runs with one key file."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = secrets.token_bytes(32) if key is None else key

    def of(self, *parts: str) -> str:
        """Return 32 hex digits in groups that stand for a secret, or for the names of one that is not in the file.

        In groups, so that no digits of a fingerprint can be taken for those of a secret.
        """
        digest = hmac.new(self._key, digestmod=sha256)
        for part in parts:
            content = part.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(content) + content)
        digits = digest.hexdigest()
        return ":".join(digits[at : at + _GROUP] for at in range(0, _DIGITS, _GROUP))


def read_key(path: Path) -> bytes:
    """Read the key that makes runs comparable.

    Raises:
        KeyFileError: the file cannot be read, or the key is too short.
    """
    try:
        with path.open("rb") as file:
            key = file.read(_MAX_KEY_BYTES).strip()
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read ({error.strerror}); name a readable file of random bytes") from None
    if len(key) < MIN_KEY_BYTES:
        raise KeyFileError(
            f"{path}: the key is shorter than {MIN_KEY_BYTES} bytes; make one: openssl rand -hex 32 > {path}"
        )
    return key


class Masker:
    """Masks texts from a file that repeat a part of a secret of the same file, such as a name made from a key.

    A span of lower-case words counts from ``_WORDS`` characters on: a weak password may hold the word "secret", and the
    name of the file ``secrets.yaml`` reveals nothing of it.
    """

    def __init__(self) -> None:
        self._spans: set[str] = set()
        self._words: set[str] = set()

    def learn(self, values: Iterable[str]) -> None:
        """Remember secrets."""
        for value in values:
            value = value[:_MAX_MASKED]
            spans = (value[at : at + SPAN] for at in range(len(value) - SPAN + 1))
            self._spans.update(span for span in spans if not _WORDY.fullmatch(span))
            self._words.update(value[at : at + _WORDS] for at in range(len(value) - _WORDS + 1))

    def text(self, text: str) -> str:
        """Return the text, with each part between separators masked that shares a span with a secret."""
        if not self._holds(text):
            return text
        masked = "".join(MASK if self._holds(part) else part for part in _PARTS.split(text))
        return MASK if self._holds(masked.replace(MASK, " ")) else masked

    def _holds(self, text: str) -> bool:
        return any(text[at : at + SPAN] in self._spans for at in range(len(text) - SPAN + 1)) or any(
            text[at : at + _WORDS] in self._words for at in range(len(text) - _WORDS + 1)
        )


class NameMasker(Masker):
    """Masks names that hold a whole secret of any file of the run, by its first ``_BEGINNING`` characters.

    Shorter secrets are masked in texts of their own file alone: as a part of a name, one is also a common word.
    """

    def learn(self, values: Iterable[str]) -> None:
        """Remember secrets."""
        beginnings = (value[:_BEGINNING] for value in values if len(value) >= _BEGINNING)
        self._spans.update(beginning for beginning in beginnings if not _WORDY.fullmatch(beginning))

    def _holds(self, text: str) -> bool:
        return any(text[at : at + _BEGINNING] in self._spans for at in range(len(text) - _BEGINNING + 1))
