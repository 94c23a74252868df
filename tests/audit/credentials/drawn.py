"""Secrets that are drawn when the tests run: none is in the repository."""

from __future__ import annotations

import random
import string
from typing import Final

from tests.audit.credentials.labelled import text

_RNG: Final = random.Random(20260921)

PASSWORD: Final = text(_RNG, 20)
KEY: Final = text(_RNG, 32)
GITHUB: Final = f"ghp_{text(_RNG, 36)}"
AWS_ID: Final = "AKIA" + text(_RNG, 16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
AWS_KEY: Final = text(_RNG, 40)
HUGGING_FACE: Final = f"hf_{text(_RNG, 34, string.ascii_letters)}"
PEM: Final = (
    "-----BEGIN PRIVATE KEY-----\n" + "\n".join(text(_RNG, 64) for _ in range(4)) + "\n-----END PRIVATE KEY-----\n"
)
