"""Bodies that nobody reads: what is discarded, and what ends their streams."""

from __future__ import annotations

import pytest

from sidecar.wire.h2_frames import Code
from sidecar.wire.h2_unread import MAX_DISCARDED, UnreadBodies, UnreadBody


def bodies_with(expected: int | None, received: int = 0) -> UnreadBodies:
    bodies = UnreadBodies(2)
    assert bodies.add(1, UnreadBody(received, expected, 0.0))
    return bodies


@pytest.mark.parametrize("expected", [10, None])
def test_a_body_that_ends_as_its_head_says_is_forgotten_without_a_reset(expected: int | None) -> None:
    bodies = bodies_with(expected, received=4)
    assert bodies.receive(1, 5, ends=False) is None
    assert 1 in bodies
    assert bodies.receive(1, 1, ends=True) is None
    assert 1 not in bodies


@pytest.mark.parametrize(("size", "ends"), [(11, False), (11, True), (9, True)])
def test_one_that_is_longer_or_shorter_is_malformed(size: int, ends: bool) -> None:
    bodies = bodies_with(10)
    assert bodies.receive(1, size, ends=ends) == Code.PROTOCOL_ERROR
    assert 1 not in bodies


@pytest.mark.parametrize(("size", "ends", "code"), [(1, False, Code.NO_ERROR), (1, True, None), (0, False, None)])
def test_only_a_little_is_discarded_before_a_reset_without_error(size: int, ends: bool, code: Code | None) -> None:
    bodies = bodies_with(None, received=MAX_DISCARDED)
    assert bodies.receive(1, size, ends=ends) == code


def test_content_of_another_stream_resets_nothing() -> None:
    assert bodies_with(10).receive(3, 11, ends=True) is None


def test_there_are_at_most_so_many() -> None:
    bodies = bodies_with(None)
    assert bodies.add(3, UnreadBody(0, None, 0.0))
    assert not bodies.add(5, UnreadBody(0, None, 0.0))
    bodies.forget(1)
    assert bodies.add(5, UnreadBody(0, None, 0.0))
    bodies.clear()
    assert 3 not in bodies


def test_those_that_are_late_are_told_once() -> None:
    bodies = bodies_with(None)
    bodies.add(3, UnreadBody(0, None, 2.0))
    assert bodies.late(4.0, 4.0) == []
    assert bodies.late(4.5, 4.0) == [1]
    assert bodies.late(4.5, 4.0) == []
    assert 3 in bodies
