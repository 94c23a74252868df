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
    made = Peers(["names"], monotonic=clock)
    made.follow([str(number) for number in range(len(ages))] + ["own"] * own)
    for number, age in enumerate(ages):
        if age is not None:
            made.note_heard(str(number), clock.now - age)
    if own:
        made.note_own_address("own")
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
    assert Peers(["https://names"]).silence_s() is None
    assert Peers([]).silence_s() == 0
    assert Peers(["https://names"]).without("x") == ["https://names"]
    assert Peers(["https://names"]).unacknowledged(["x"]) == 1
    assert Peers([]).majority_holds("x")


def test_no_majority_holds_an_order_before_the_names_are_looked_up() -> None:
    known = Peers(["https://names"])
    known.note_acknowledged("https://names", ["x"])
    known.note_heard("https://names", 1000.0, lacks=())
    assert not known.majority_holds("x")
    known.follow(["https://names"])
    assert known.majority_holds("x")


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
    known.note_heard("own", 1000.0)
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
    known.note_not_kept("0", "the disk is full")
    assert known.unkept() == "the disk is full"
    known.note_heard("1", 1000.0)
    assert known.unkept(), "another replica's orders are no sign of these"
    known.note_heard("0", 1000.0)
    assert known.unkept() is None
    known.note_not_kept("0", "the disk is full")
    known.note_kept(["0", "1"])
    assert (known.unkept(), known.silence_s()) == (None, 0)
    known.note_not_kept("0", "the disk is full")
    known.follow(["1"])
    assert known.unkept() is None


def test_an_order_is_acknowledged_once_every_other_replica_is_known_to_hold_it() -> None:
    known = peers(7.0, 9.0, own=True)
    known.note_gained(["x"])
    assert (known.unacknowledged(["x", "y"]), known.majority_holds("x")) == (1, False)
    assert (known.without("x"), known.without("y")) == (["0", "1"], [])
    known.note_acknowledged("0", ["x"])
    assert (known.unacknowledged(["x"]), known.majority_holds("x"), known.without("x")) == (1, True, ["1"])
    known.note_heard("1", 1000.0)
    assert known.unacknowledged(["x"]) == 1, "an answer that nothing changed there is no acknowledgement"
    known.note_heard("1", 1000.0, [])
    assert (known.unacknowledged(["x"]), known.without("x")) == (0, [])
    known.note_heard("0", 1000.0, ["x"])
    assert known.unacknowledged(["x"]) == 1, "it has lost it"


def test_of_a_replica_that_was_never_heard_nothing_is_known() -> None:
    known = peers(7.0, None)
    known.note_acknowledged("1", ["x"])
    assert (known.without("x"), known.unacknowledged(["x"]), known.behind()) == (["1"], 1, [])
    assert known.majority_holds("x")
    assert not Peers(["https://names"]).majority_holds("x"), "before the names are looked up"
    assert Peers([]).majority_holds("x")


def test_only_replicas_that_are_heard_are_given_orders() -> None:
    known = peers(7.0, SILENT_S + 1)
    assert known.behind() == []
    known.note_gained(["x"])
    assert known.behind() == ["0"]
