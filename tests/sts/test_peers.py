from __future__ import annotations

import pytest

from sidecar.sts.peers import SILENT_S, Peers


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def peers(*ages: float | None, own: bool = False) -> Peers:
    """Return peers that were heard so long ago (None: never), by a clock that stands."""
    clock = Clock()
    made = Peers(alone=False, monotonic=clock)
    made.follow([str(number) for number in range(len(ages))] + ["own"] * own)
    for number, age in enumerate(ages):
        if age is not None:
            made.heard(str(number), clock.now - age)
    if own:
        made.answered_ourselves("own")
    return made


@pytest.mark.parametrize(
    ("ages", "silence_s"),
    [
        ((), 0),
        ((None,), None),
        ((7.0,), 7),
        ((7.0, None), 7),
        ((None, None), None),
        ((7.0, 9.0, None), 9),
        ((7.0, None, None), None),
        ((7.0, 9.0, None, None), 9),
    ],
)
@pytest.mark.parametrize("own", [False, True])
def test_the_silence_is_that_of_the_majority_to_which_our_own_address_adds_nobody(
    ages: tuple[float | None, ...], silence_s: float | None, own: bool
) -> None:
    assert peers(*ages, own=own).silence_s() == silence_s


def test_before_the_names_are_looked_up_nothing_is_known_except_by_a_single_replica() -> None:
    assert Peers(alone=False).silence_s() is None
    assert Peers(alone=True).silence_s() == 0


def test_a_replica_that_left_the_names_counts_no_more_and_one_that_came_is_unheard() -> None:
    known = peers(7.0, 9.0)
    known.follow(["0", "new"])
    assert known.counts() == {"heard": 1, "silent": 1}
    known.follow(["new"])
    assert known.silence_s() is None
    known.follow([])
    assert known.silence_s() == 0


def test_another_replica_at_an_address_that_was_ours_counts() -> None:
    known = peers(own=True)
    assert known.counts() == {"heard": 0, "silent": 0}
    known.heard("own", 1000.0)
    assert known.counts() == {"heard": 1, "silent": 0}


def test_a_replica_is_silent_after_six_rounds() -> None:
    known = peers(0.0)
    known.monotonic = lambda: 1000.0 + SILENT_S
    assert known.counts()["silent"] == 0
    known.monotonic = lambda: 1000.1 + SILENT_S
    assert known.counts()["silent"] == 1


def test_times_are_told_by_the_clock_of_readers_and_one_that_was_never_heard_is_zero() -> None:
    assert peers(7.0, None, 9.0).heard_times(5000.9) == (0, 4991, 4993)


def test_what_could_not_be_kept_is_told_until_it_is() -> None:
    known = peers(7.0, 9.0)
    known.not_kept("0", "the disk is full")
    assert known.unkept() == "the disk is full"
    known.heard("1", 1000.0)
    assert known.unkept(), "another replica's orders are no sign of these"
    known.heard("0", 1000.0)
    assert known.unkept() is None
    known.not_kept("0", "the disk is full")
    known.kept_again(["0", "1"])
    assert (known.unkept(), known.silence_s()) == (None, 0)
    known.not_kept("0", "the disk is full")
    known.follow(["1"])
    assert known.unkept() is None
