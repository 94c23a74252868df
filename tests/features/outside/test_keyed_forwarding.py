"""The search for a key in an answer. Calls that carry one are in ``test_outside.py``."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sidecar.features.outside.keyed_forwarding import AnswerScreen

KEY = b"sk-abcabcabd"


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
        part = screen.feed(whole[start:end])
        if part is None:
            assert KEY in whole
            assert KEY not in passed
            assert whole.startswith(passed)
            return
        passed += part
    assert KEY not in whole
    assert passed + (screen.rest() or b"") == whole


def test_ordinary_content_is_not_held_back() -> None:
    screen = AnswerScreen(KEY)
    assert screen.feed(b'data: {"delta": "hello"}\n\n') == b'data: {"delta": "hello"}\n\n'
    assert screen.feed(b"data: sk-a") == b"data: "
    assert screen.feed(b"x") == b"sk-ax"
