from __future__ import annotations

from pathlib import Path

import pytest

from delegation_audit.credentials.secrecy import MASK, MIN_KEY_BYTES, Fingerprints, KeyFileError, Masker, read_key
from tests.audit.credentials.drawn import KEY, PASSWORD


def test_one_key_gives_one_fingerprint_and_another_key_another() -> None:
    one = Fingerprints(b"a" * 32)
    assert one.compute(KEY) == Fingerprints(b"a" * 32).compute(KEY)
    assert one.compute(KEY) != Fingerprints(b"b" * 32).compute(KEY)
    assert one.compute(KEY) != one.compute(KEY + "x")


def test_without_a_key_two_runs_differ() -> None:
    assert Fingerprints().compute(KEY) != Fingerprints().compute(KEY)


def test_parts_are_kept_apart() -> None:
    one = Fingerprints(b"a" * 32)
    assert one.compute("ab", "c") != one.compute("a", "bc")


def test_a_key_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"k" * MIN_KEY_BYTES + b"\n")
    assert read_key(file) == b"k" * MIN_KEY_BYTES


def test_a_short_key_is_refused_with_the_fix(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"k" * (MIN_KEY_BYTES - 1) + b"\n")
    with pytest.raises(KeyFileError, match="openssl rand"):
        read_key(file)


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="absent"):
        read_key(tmp_path / "absent")


def test_a_part_of_a_secret_in_a_name_is_masked_and_the_rest_stays() -> None:
    masker = Masker()
    masker.learn([PASSWORD])
    assert masker.text(f"deploy/{PASSWORD[3:9]}.yaml") == f"deploy/{MASK}"
    assert masker.text("deploy/agent.yaml, env PASSWORD") == "deploy/agent.yaml, env PASSWORD"


def test_a_secret_across_separators_masks_the_whole_text() -> None:
    masker = Masker()
    masker.learn(["A1b/C2d/E3f"])
    assert masker.text("A1b/C2d") == MASK


def test_a_word_in_a_weak_secret_does_not_hide_a_files_name() -> None:
    masker = Masker()
    masker.learn(["mysecretpassword"])
    assert masker.text("deploy/secrets.yaml") == "deploy/secrets.yaml"
    assert masker.text("deploy/mysecretpassword.yaml") == f"deploy/{MASK}"
