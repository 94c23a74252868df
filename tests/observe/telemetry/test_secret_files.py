from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.observe.telemetry.secret_files import read_secret, read_subject_key


def written(folder: Path, content: bytes, mode: int = 0o640) -> Path:
    path = folder / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_secret_is_the_one_line_of_its_file(tmp_path: Path) -> None:
    assert read_secret(written(tmp_path, b"Bearer abc\n")) == "Bearer abc"


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb", b"a\rb", "é".encode(), b"a\0", b"x" * 9000])
def test_anything_else_is_no_secret(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(OSError, match="not one line"):
        read_secret(written(tmp_path, content))


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="chmod o="):
        read_secret(written(tmp_path, b"Bearer abc\n", 0o644))


def test_a_key_that_could_be_guessed_is_refused(tmp_path: Path) -> None:
    assert read_subject_key(written(tmp_path, b"0123456789abcdef\n")) == b"0123456789abcdef"
    with pytest.raises(OSError, match="openssl rand"):
        read_subject_key(written(tmp_path, b"0123456789abcde\n"))
