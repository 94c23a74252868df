"""The benchmark's flood: the requested number of connections, reopened when they are closed."""

from __future__ import annotations

from benchmarks.crowd import said


def test_a_crowd_says_what_it_is_named_for() -> None:
    hello = said("hello")
    assert (hello[0], len(said("hello begun")), said("nothing")) == (22, len(hello) - 1, b"")
    assert said("clear text").startswith(b"GET ")
