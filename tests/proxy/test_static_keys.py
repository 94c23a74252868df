from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import Reason, Unavailable
from sidecar.proxy.static_keys import AnswerScreen, StaticKeys, fingerprint_of

KEY = b"sk-abcabcabd"


def key_file(folder: Path, content: bytes = KEY + b"\n", mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_key_is_read_again_when_its_file_changes(tmp_path: Path) -> None:
    keys, path = StaticKeys(), str(key_file(tmp_path))
    first = keys.of(path)
    assert (first.value, first.fingerprint) == (KEY, fingerprint_of(KEY))
    assert keys.of(path) is first
    key_file(tmp_path, b"sk-another-key")
    assert keys.of(path).value == b"sk-another-key"
    Path(path).unlink()
    with pytest.raises(Unavailable):
        keys.of(path)
    key_file(tmp_path)
    assert keys.of(path).value == KEY


def test_a_key_is_in_no_text() -> None:
    keys = StaticKeys()
    assert KEY.decode() not in f"{keys!r}"


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        pytest.param(b"", 0o600, id="empty"),
        pytest.param(b"7 chars", 0o600, id="a space"),
        pytest.param(b"1234567", 0o600, id="too short"),
        pytest.param(b"k" * 4097, 0o600, id="too long"),
        pytest.param(KEY + b"\n" + KEY, 0o600, id="two lines"),
        pytest.param(b"sk-\r\nx: y12345", 0o600, id="a line break within"),
        pytest.param("sk-schlüssel".encode(), 0o600, id="not ASCII"),
        pytest.param(KEY, 0o644, id="open to others"),
    ],
)
def test_a_file_without_one_private_key_is_refused_without_quoting_it(
    content: bytes, mode: int, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable) as refusal:
        StaticKeys().of(str(key_file(tmp_path, content, mode)))
    assert refusal.value.reason is Reason.CREDENTIAL_UNAVAILABLE
    assert "sk-" not in str(refusal.value)


def test_a_missing_file_is_said_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="key is missing"):
        StaticKeys().of(str(tmp_path / "key"))


@given(
    before=st.text("sk-abcd", max_size=30).map(str.encode),
    after=st.text("sk-abcd", max_size=30).map(str.encode),
    cuts=st.lists(st.integers(0, 80), max_size=8),
    there=st.booleans(),
)
def test_a_key_is_found_however_the_answer_is_cut(before: bytes, after: bytes, cuts: list[int], there: bool) -> None:
    whole = before + (KEY if there else b"") + after
    screen, passed = AnswerScreen(KEY), b""
    for start, end in pairwise([0, *sorted(cuts), len(whole)]):
        part = screen.passed(whole[start:end])
        if part is None:
            assert KEY in whole
            assert KEY not in passed
            assert whole.startswith(passed)
            return
        passed += part
    assert KEY not in whole
    assert passed + screen.rest() == whole


def test_ordinary_content_is_not_held_back() -> None:
    screen = AnswerScreen(KEY)
    assert screen.passed(b'data: {"delta": "hello"}\n\n') == b'data: {"delta": "hello"}\n\n'
    assert screen.passed(b"data: sk-a") == b"data: "
    assert screen.passed(b"x") == b"sk-ax"
