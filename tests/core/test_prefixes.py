from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.prefixes import Prefixes


@pytest.mark.parametrize(
    ("path", "found"),
    [
        pytest.param("/", ("", "root"), id="root"),
        pytest.param("/x/y", ("", "root"), id="anything else"),
        pytest.param("/a", ("/a", "a"), id="the prefix itself"),
        pytest.param("/a/", ("/a", "a"), id="with a slash"),
        pytest.param("/ab", ("", "root"), id="whole segments only"),
        pytest.param("/a/x", ("/a", "a"), id="below"),
        pytest.param("/a/b/c", ("/a/b", "b"), id="the longest"),
        pytest.param("/a/bc", ("/a", "a"), id="the longest by whole segments"),
    ],
)
def test_the_longest_prefix_by_whole_segments_is_found(path: str, found: tuple[str, str]) -> None:
    assert Prefixes({"/": "root", "/a": "a", "/a/b": "b"}).longest(path) == found


def test_nothing_is_found_without_prefixes() -> None:
    assert Prefixes[str]({}).longest("/a") == ("", None)


PATHS = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=4).map(lambda segments: "/" + "/".join(segments))


@given(st.sets(PATHS, max_size=6), PATHS)
def test_the_search_agrees_with_trying_every_prefix(prefixes: set[str], path: str) -> None:
    covering = [prefix.rstrip("/") for prefix in prefixes if (path + "/").startswith(prefix.rstrip("/") + "/")]
    expected = max(covering, key=len, default=None)
    found, value = Prefixes({prefix: prefix.rstrip("/") or "/" for prefix in prefixes}).longest(path)
    assert value == (None if expected is None else expected or "/")
    assert found == (expected or "")
