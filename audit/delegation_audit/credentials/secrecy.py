"""Keeps secrets out of the output: replaces them by keyed fingerprints, and masks texts from audited files.

Equal fingerprints show that two places hold the same secret, and reveal nothing else. Without the key, guesses cannot
be tested against a fingerprint, so even a weak password stays unknown. Runs with the same key can be compared.
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
SPAN: Final = 6  # characters: a text that shares this many consecutive ones with a secret is masked
MIN_KEY_BYTES: Final = 16
_MAX_KEY_BYTES: Final = 4096
_DIGITS: Final = 32
_GROUP: Final = 4
_WORDS: Final = 12
_BEGINNING: Final = 16
_WORDY: Final = re.compile(r"[a-z./_ -]+")
_PARTS: Final = re.compile(r"([ ,/])")
_MAX_MASKED: Final = 16_384  # characters of a secret that are compared: more than a private key has


class KeyFileError(ValueError):
    """The key file cannot be used; the message has the fix."""


class Fingerprints:
    """Keyed fingerprints of one run, or of all runs with one key file."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = secrets.token_bytes(32) if key is None else key

    def compute(self, *parts: str) -> str:
        """Return the fingerprint of a secret, or of the identity of a secret that is not in the file: 32 hex digits.

        The digits are grouped by colons, so that they cannot be mistaken for those of a secret.
        """
        digest = hmac.new(self._key, digestmod=sha256)
        for part in parts:
            content = part.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(content) + content)
        digits = digest.hexdigest()
        return ":".join(digits[at : at + _GROUP] for at in range(0, _DIGITS, _GROUP))


def read_key(path: Path) -> bytes:
    """Read the key for fingerprints, which makes runs comparable.

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
    """Masks texts from a file that share a span of SPAN characters with a secret of the same file.

    A span of lower-case words counts only from ``_WORDS`` characters: a weak password may hold the word "secret", but
    the file name ``secrets.yaml`` reveals nothing about it.
    """

    def __init__(self) -> None:
        self._spans: set[str] = set()
        self._words: set[str] = set()

    def learn(self, values: Iterable[str]) -> None:
        """Add secrets to mask."""
        for value in values:
            value = value[:_MAX_MASKED]
            spans = (value[at : at + SPAN] for at in range(len(value) - SPAN + 1))
            self._spans.update(span for span in spans if not _WORDY.fullmatch(span))
            self._words.update(value[at : at + _WORDS] for at in range(len(value) - _WORDS + 1))

    def text(self, text: str) -> str:
        """Return the text with MASK for each part that shares a span with a secret; MASK if a span joins parts."""
        if not self._holds(text):
            return text
        masked = "".join(MASK if self._holds(part) else part for part in _PARTS.split(text))
        return MASK if self._holds(masked.replace(MASK, " ")) else masked

    def _holds(self, text: str) -> bool:
        return any(text[at : at + SPAN] in self._spans for at in range(len(text) - SPAN + 1)) or any(
            text[at : at + _WORDS] in self._words for at in range(len(text) - _WORDS + 1)
        )


class NameMasker(Masker):
    """Masks names that hold the first ``_BEGINNING`` characters of a secret of any file of the run.

    Shorter secrets are masked only in texts of their own file: in names, they may be common words.
    """

    def learn(self, values: Iterable[str]) -> None:
        """Add secrets to mask."""
        beginnings = (value[:_BEGINNING] for value in values if len(value) >= _BEGINNING)
        self._spans.update(beginning for beginning in beginnings if not _WORDY.fullmatch(beginning))

    def _holds(self, text: str) -> bool:
        return any(text[at : at + _BEGINNING] in self._spans for at in range(len(text) - _BEGINNING + 1))
