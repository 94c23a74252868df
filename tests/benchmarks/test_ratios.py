import math

import pytest

from benchmarks.ratios import Spread, ratios, refusal, spread


def test_a_spread_is_the_median_with_the_lowest_and_the_highest() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf]])
def test_what_was_not_measured_has_no_spread(values: list[float]) -> None:
    assert spread(values) is None


def test_the_width_is_that_of_the_furthest_round() -> None:
    known = spread([10.0, 9.0, 13.0])
    assert known is not None
    assert known.width == pytest.approx(0.3)


def test_a_ratio_is_taken_within_one_round() -> None:
    assert ratios([20.0, 300.0], [10.0, 100.0]) == [2.0, 3.0]


def test_a_round_that_lacks_one_side_has_no_ratio() -> None:
    assert ratios([20.0, None, 30.0], [10.0, 10.0, None]) == [2.0]


def test_a_base_of_nothing_makes_no_ratio() -> None:
    assert ratios([20.0], [0.0]) == []


@pytest.mark.parametrize(
    ("base", "why"),
    [
        pytest.param([100.0, 104.0, 96.0], None, id="calm"),
        pytest.param([100.0, 125.0, 100.0], None, id="just-calm-enough"),
        pytest.param([100.0, 126.0, 100.0], "spreads by 26%", id="too-wide"),
        pytest.param([100.0, 100.0, 70.0], "spreads by 30%", id="too-wide-downwards"),
        pytest.param([100.0], "once", id="one-round"),
        pytest.param([100.0, None], "once", id="one-round-that-worked"),
        pytest.param([], "not measured", id="nothing"),
        pytest.param([None, None], "not measured", id="nothing-worked"),
    ],
)
def test_nothing_is_told_where_the_base_itself_is_not_known(base: list[float | None], why: str | None) -> None:
    said = refusal(base)
    assert said is None if why is None else said is not None and why in said
