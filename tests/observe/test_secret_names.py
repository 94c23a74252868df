"""Fingerprints of secrets in records: slow to guess, the same everywhere, and none of a short secret."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.observe import secret_names
from sidecar.observe.secret_names import MIN_BYTES, secret_fingerprint

SECRET = b"sk-0123456789abc"


def test_one_secret_has_one_fingerprint_in_every_process() -> None:
    code = f"from sidecar.observe.secret_names import secret_fingerprint; print(secret_fingerprint({SECRET!r}))"
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    assert done.stdout.strip() == secret_fingerprint(SECRET)
    assert secret_fingerprint(SECRET) == "04c144a485e1f51808fd78bbaa28b8a4"  # records of before must stay comparable
    assert secret_fingerprint(SECRET + b"d") != secret_fingerprint(SECRET)


def test_a_short_secret_has_none_and_the_next_longer_one_has() -> None:
    assert len(SECRET) == MIN_BYTES
    assert secret_fingerprint(SECRET[:-1]) is None
    assert len(secret_fingerprint(SECRET) or "") == 32


def test_it_is_no_plain_hash_that_could_be_guessed_fast() -> None:
    plain = {hashlib.new(name, SECRET).hexdigest()[:32] for name in ("md5", "sha1", "sha256", "sha512")}
    assert secret_fingerprint(SECRET) not in plain
    assert secret_names._COST * secret_names._BLOCK * 128 == 16 * 1024 * 1024


@pytest.mark.parametrize("error", [ValueError, MemoryError])
def test_no_call_fails_where_it_cannot_be_made(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> bytes:
        raise error

    monkeypatch.setattr(secret_names, "scrypt", failing)
    assert secret_fingerprint(SECRET) is None
