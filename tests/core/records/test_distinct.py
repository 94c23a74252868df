from __future__ import annotations

import pytest

from delegation_core.records.distinct import Distinct, estimate


@pytest.mark.parametrize("count", [0, 1, 3, 50, 1000, 100_000])
def test_the_estimate_is_close(count: int) -> None:
    distinct = Distinct()
    for number in range(count):
        distinct.add(f"spiffe://acme.example/agent/{number}")
    assert estimate(distinct) == pytest.approx(count, rel=0.04, abs=0.5)


def test_the_same_thing_is_counted_once() -> None:
    distinct = Distinct()
    for _ in range(1000):
        distinct.add("spiffe://acme.example/agent/front")
    assert estimate(distinct) == 1


def test_the_union_counts_each_value_once() -> None:
    one, other = Distinct(), Distinct()
    for number in range(100):
        one.add(str(number))
        other.add(str(number + 50))
    assert estimate(one, other) == pytest.approx(150, rel=0.03)
