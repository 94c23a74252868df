from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from delegation_core.bounded import _STALE_ENDS, ENTRY_BYTES, SWEPT_AT_ONCE, BoundedCache, bytes_of

ROOM = 1000 + ENTRY_BYTES  # the cost of one entry of 1000 bytes


def cache(entries: int = 3) -> BoundedCache[str, int]:
    return BoundedCache(entries * ROOM)


def filled(*keys: str, entries: int = 3, expires_at: float = 100) -> BoundedCache[str, int]:
    made = cache(entries)
    for number, key in enumerate(keys):
        assert made.keep(key, number, cost=1000, expires_at=expires_at)
    return made


def names(made: BoundedCache[str, int]) -> list[str]:
    return [key for key in ("a", "b", "c", "d") if key in made]


def test_a_value_is_found_by_its_key_and_look_ups_are_counted() -> None:
    made = filled("a", "b")
    assert (made.find("b"), made.find("b"), made.find("c")) == (1, 1, None)
    assert (made.hits, made.misses) == (2, 1)
    assert (made.get("a"), made.get("c")) == (0, None)
    assert (made.hits, made.misses) == (2, 1)


def test_the_bytes_are_those_of_the_entries() -> None:
    made = filled("a", "b")
    assert (made.bytes, len(made)) == (2 * ROOM, 2)
    made.drop("a")
    made.drop("a")
    assert made.bytes == ROOM
    made.clear()
    assert (made.bytes, len(made)) == (0, 0)


@pytest.mark.parametrize(("cost", "left"), [(1000, "bcd"), (1001, "cd"), (2000 + ENTRY_BYTES, "cd"), (2999, "d")])
def test_the_oldest_make_room_and_no_more_of_them_than_must(cost: int, left: str) -> None:
    made = filled("a", "b", "c")
    assert made.keep("d", 9, cost=cost, expires_at=100)
    assert names(made) == list(left)
    assert made.bytes <= made.max_bytes
    assert made.evicted == 4 - len(left)


@pytest.mark.parametrize(("over", "kept"), [(0, True), (1, False)])
def test_what_can_never_fit_is_not_kept_and_evicts_nothing(over: int, kept: bool) -> None:
    made = filled("a", "b", "c")
    assert made.keep("d", 9, cost=3 * ROOM - ENTRY_BYTES + over, expires_at=100) is kept
    assert names(made) == (["d"] if kept else ["a", "b", "c"])


@pytest.mark.parametrize(("cost", "fits"), [(1000, True), (1001, False)])
def test_whether_something_fits_is_told_without_an_eviction(cost: int, fits: bool) -> None:
    assert filled("a", "b").fits(cost) is fits


def test_a_key_kept_again_takes_one_place_and_becomes_the_youngest() -> None:
    made = filled("a", "b", "a")
    assert (len(made), made.bytes, made.get("a"), made.evicted) == (2, 2 * ROOM, 2, 0)
    made.shed(ROOM)
    assert names(made) == ["a"]


def test_a_touched_value_is_evicted_after_the_others() -> None:
    made = filled("a", "b")
    made.touch("a")
    made.shed(ROOM)
    assert names(made) == ["a"]


def test_a_replaced_value_keeps_its_cost_its_age_and_its_end() -> None:
    made = filled("a", "b")
    made.replace("a", 9)
    assert (made.get("a"), made.bytes) == (9, 2 * ROOM)
    assert made.shed(ROOM) == [("a", 9)]
    made.replace("b", 8)
    assert made.sweep(100) == [("b", 8)]


@pytest.mark.parametrize(("epoch", "found"), [((1, 1), 7), ((1, 2), None), ((2, 1), None), (None, None)])
def test_another_epoch_empties_it_for_good(epoch: Any, found: int | None) -> None:
    made: BoundedCache[str, int] = BoundedCache(10 * ROOM)
    made.turn_to((1, 1))
    assert made.keep("a", 7, cost=1000, expires_at=100, epoch=(1, 1))
    assert made.find("a", epoch) == found
    assert (len(made), made.bytes) == ((1, ROOM) if found else (0, 0))
    assert made.find("a", (1, 1)) == found


def test_a_value_of_another_epoch_is_not_kept() -> None:
    made = cache()
    made.turn_to((1, 2))
    assert not made.keep("a", 7, cost=1000, expires_at=100, epoch=(1, 1))
    assert len(made) == 0


# --- the end of an entry


@pytest.mark.parametrize(("now", "left"), [(99, "a"), (100, ""), (101, "")])
def test_what_has_ended_is_freed_though_nobody_asks(now: float, left: str) -> None:
    made = filled("a", expires_at=100)
    swept = made.sweep(now)
    assert (names(made), made.bytes) == (list(left), ROOM * len(left))
    assert swept == ([] if left else [("a", 0)])
    assert made.evicted == 0


def test_whoever_has_not_ended_stays() -> None:
    made = cache()
    for key, end in (("a", 30), ("b", 10), ("c", 20)):
        made.keep(key, end, cost=1000, expires_at=end)
    assert made.sweep(20) == [("b", 10), ("c", 20)]
    assert names(made) == ["a"]


@pytest.mark.parametrize("how", ["drop", "evict", "keep again"])
def test_the_end_of_what_is_gone_ends_nothing_else(how: str) -> None:
    made = filled("a", expires_at=10)
    if how == "drop":
        made.drop("a")
    elif how == "evict":
        made.shed(0)
    made.keep("a", 7, cost=1000, expires_at=20)
    assert made.sweep(10) == []
    assert made.sweep(20) == [("a", 7)]


def test_a_sweep_frees_so_many_at_a_time_and_the_next_one_the_rest() -> None:
    made: BoundedCache[int, int] = BoundedCache(4 * SWEPT_AT_ONCE * ENTRY_BYTES)
    for number in range(SWEPT_AT_ONCE + 1):
        made.keep(number, number, cost=0, expires_at=10)
    assert [len(made.sweep(10)) for _ in range(3)] == [SWEPT_AT_ONCE, 1, 0]


def test_ends_of_what_is_gone_do_not_pile_up() -> None:
    """The next end is far away, so no sweep would find them."""
    made = cache()
    for number in range(100 * _STALE_ENDS):
        made.keep(f"{number}", number, cost=1000, expires_at=1e9)
    assert len(made._ends) <= 2 * len(made) + _STALE_ENDS
    assert len(made.sweep(1e9)) == 3


@pytest.mark.parametrize(("to_bytes", "left"), [(3 * ROOM, "abc"), (3 * ROOM - 1, "bc"), (ROOM, "c"), (0, "")])
def test_shedding_evicts_the_oldest_down_to_what_is_left(to_bytes: int, left: str) -> None:
    made = filled("a", "b", "c")
    made.shed(to_bytes)
    assert names(made) == list(left)
    assert made.evicted == 3 - len(left)


# --- the estimate


def taken(make: Callable[[int], object], count: int = 50) -> float:
    """Return the bytes of each of this many objects, as the interpreter counts its own allocations."""
    make(0)
    gc.freeze()  # what is there already need not be scanned
    gc.collect()  # empties the free lists
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        held = [make(number) for number in range(count)]
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(held) == count
    return (after - before) / count


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda n: "x" * (12_500 + n), id="text"),
        pytest.param(lambda n: b"x" * (12_500 + n), id="bytes"),
        pytest.param(lambda n: [[] for _ in range(1000)], id="empty lists: 56 bytes for 3 of JSON"),
        pytest.param(lambda n: {f"claim{n}-{i}": f"value{i}" for i in range(300)}, id="many claims"),
        pytest.param(lambda n: frozenset(f"s{n}-{i}" for i in range(1000)), id="many scopes"),
        pytest.param(lambda n: {"a": {"b": {"c": [f"{n}", f"{n}x"]}}}, id="nested"),
    ],
)
def test_the_estimate_is_what_the_interpreter_takes(make: Callable[[int], object]) -> None:
    assert taken(make) == pytest.approx(bytes_of(make(0)), rel=0.15, abs=200)


def test_an_object_that_comes_twice_counts_once() -> None:
    text = "x" * 10_000
    assert bytes_of([text, text, {"a": text}]) < 11_000


def test_the_bookkeeping_of_an_entry_is_within_what_is_accounted() -> None:
    made: BoundedCache[int, None] = BoundedCache(10_000 * ENTRY_BYTES)

    def keep(number: int) -> None:
        made.keep(number, None, cost=0, expires_at=number)

    assert 0.5 * ENTRY_BYTES < taken(keep, count=1000) <= ENTRY_BYTES


def test_entries_are_carried_into_another_epoch_but_for_those_to_drop() -> None:
    made = filled("a", "b", "c")
    made.carry(7, drop=lambda value: value == 1)
    assert (names(made), made.bytes) == (["a", "c"], 2 * ROOM)
    assert not made.keep("d", 9, cost=1000, expires_at=100), "it was decided in the epoch before"
    assert [made.find(key, 7) for key in "abc"] == [0, None, 2]


# --- worth the eviction of others


def in_turn(made: BoundedCache[int, int], keys: range, *, turns: int) -> list[float]:
    """Look keys up in turn, keep those that are missing if they are worth it; return the found part of each turn."""
    shares = []
    for _ in range(turns):
        found = 0
        for key in keys:
            if made.find(key) is not None:
                found += 1
            elif made.worth(0):
                made.keep(key, key, cost=0, expires_at=1)
        shares.append(found / len(keys))
    return shares


@pytest.mark.parametrize(("keys", "least"), [(100, 1.0), (110, 0.85), (130, 0.65), (200, 0.4), (400, 0.2)])
def test_most_entries_are_found_where_more_are_used_in_turn_than_fit(keys: int, least: float) -> None:
    made: BoundedCache[int, int] = BoundedCache(100 * ENTRY_BYTES)
    shares = in_turn(made, range(keys), turns=20)
    assert min(shares[1:]) >= least
    assert made.bytes <= made.max_bytes


def test_other_entries_take_the_places_of_those_that_are_used_no_more() -> None:
    made: BoundedCache[int, int] = BoundedCache(100 * ENTRY_BYTES)
    in_turn(made, range(100), turns=2)
    assert in_turn(made, range(1000, 1075), turns=10)[-1] == 1.0


def test_every_new_entry_is_worth_the_oldest_while_others_are_found() -> None:
    made: BoundedCache[int, int] = BoundedCache(100 * ENTRY_BYTES)
    in_turn(made, range(100), turns=2)
    for key in range(1000, 1050):
        assert made.worth(0)
        made.keep(key, key, cost=0, expires_at=1)
        assert made.find(key) == key
    assert not any(key in made for key in range(50))
