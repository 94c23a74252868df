from __future__ import annotations

import pytest

from sidecar.proxy.listening.memory_pressure import CALM_LOOKS, Memory


class Used:
    """Memory in use, set by the test."""

    def __init__(self) -> None:
        self.now: int | None = 0

    def __call__(self) -> int | None:
        return self.now


@pytest.mark.parametrize(
    ("seen", "short"),
    [
        pytest.param([800], False, id="at the mark"),
        pytest.param([801], True, id="above it"),
        pytest.param([801, 701], True, id="hardly less"),
        pytest.param([801, 700], False, id="enough again"),
        pytest.param([801, 700, 800], False, id="more again"),
        pytest.param([2000], True, id="more than there is"),
        pytest.param([801, None], True, id="nobody can tell, when it was short"),
        pytest.param([None], False, id="nobody can tell"),
    ],
)
def test_it_is_short_above_one_mark_until_it_is_below_another(seen: list[int | None], short: bool) -> None:
    used = Used()
    memory = Memory(1000, used)
    assert not memory.short
    for used.now in seen:
        told = memory.look()
    assert (told, memory.short) == (short, short)


def test_what_does_not_come_back_is_no_shortage_for_ever() -> None:
    """A flood leaves a heap with holes: used for the kernel, and free for the next caller."""
    used = Used()
    memory = Memory(1000, used)
    for used.now in (801, *[750] * (CALM_LOOKS - 1)):
        assert memory.look()
    for used.now in (801, *[750] * (CALM_LOOKS - 1)):
        assert memory.look()
    used.now = 750
    assert not memory.look()
    assert memory.nearly_short


def test_it_says_what_was_used_when_that_could_be_told() -> None:
    used = Used()
    memory = Memory(1000, used)
    for used.now in (500, None):
        memory.look()
    assert memory.used_bytes == 500


@pytest.mark.parametrize(
    ("seen", "nearly_short", "hardly_any"),
    [
        pytest.param([600], False, False, id="plenty"),
        pytest.param([601], True, False, id="soon perhaps"),
        pytest.param([850], True, False, id="short"),
        pytest.param([851], True, True, id="hardly any"),
        pytest.param([801, 750], True, False, id="less"),
        pytest.param([801, 600], False, False, id="there is some again"),
    ],
)
def test_it_is_nearly_short_before_it_is_short_and_there_is_hardly_any_later(
    seen: list[int], nearly_short: bool, hardly_any: bool
) -> None:
    used = Used()
    memory = Memory(1000, used)
    for used.now in seen:
        memory.look()
    assert (memory.nearly_short, memory.hardly_any) == (nearly_short, hardly_any)
