import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.histogram import bucket_of, merged, percentile, value_of


@pytest.mark.parametrize(
    ("value", "bucket"), [(0, 0), (63, 63), (64, 64), (65, 65), (127, 127), (128, 128), (130, 129)]
)
def test_buckets_are_as_the_load_generator_counts(value: int, bucket: int) -> None:
    assert bucket_of(value) == bucket


@given(st.integers(min_value=0, max_value=2**40))
def test_a_bucket_is_near_every_value_in_it(value: int) -> None:
    assert abs(value_of(bucket_of(value)) - value) <= max(1, value / 64)


@given(st.integers(min_value=0, max_value=2**40))
def test_buckets_are_in_the_order_of_their_values(value: int) -> None:
    assert bucket_of(value) <= bucket_of(value + 1)


def test_a_percentile_is_the_value_that_so_many_do_not_exceed() -> None:
    histogram = [(bucket_of(1000), 90), (bucket_of(5000), 9), (bucket_of(90_000), 1)]
    assert percentile(histogram, 0.5) == pytest.approx(1.0, rel=0.02)
    assert percentile(histogram, 0.99) == pytest.approx(5.0, rel=0.02)
    assert percentile(histogram, 1.0) == pytest.approx(90.0, rel=0.02)


def test_nothing_has_no_percentile() -> None:
    assert math.isnan(percentile([], 0.5))


def test_merging_adds_what_is_in_the_same_bucket() -> None:
    assert merged([[(1, 2), (3, 1)], [(3, 4)]]) == [(1, 2), (3, 5)]
