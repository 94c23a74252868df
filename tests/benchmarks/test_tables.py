import dataclasses

import pytest

from benchmarks.histogram import bucket_of
from benchmarks.sample import Sample
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.tables import table_of
from tests.benchmarks.samples import sample

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
INBOUND = BY_NAME["inbound"]
PEERS = ("haproxy", "sidecar", "nginx")


def two_rounds(base: tuple[float, float], own: tuple[float, float], scenario: Scenario = INBOUND) -> list[Sample]:
    columns = (("haproxy", base), ("sidecar", own))
    return [
        sample(value, scenario=scenario.name, peer=peer, number=number)
        for peer, values in columns
        for number, value in enumerate(values)
    ]


def test_a_ratio_is_told_with_its_spread() -> None:
    base, own = table_of(two_rounds((100.0, 104.0), (200.0, 312.0)), INBOUND, PEERS).rows
    assert base.ratio is not None
    assert base.ratio.middle == pytest.approx(1.0)
    assert own.ratio is not None
    assert own.ratio.lowest == pytest.approx(2.0)
    assert own.ratio.highest == pytest.approx(3.0)


def test_where_the_base_spreads_too_wide_no_ratio_is_told_but_figures_are() -> None:
    table = table_of(two_rounds((100.0, 200.0), (200.0, 400.0)), INBOUND, PEERS)
    assert table.refusal is not None
    assert [row.ratio for row in table.rows] == [None, None]
    assert [row.figure is None for row in table.rows] == [False, False]


def test_one_round_tells_no_ratio() -> None:
    table = table_of([sample(1.0, peer="haproxy"), sample(2.0)], INBOUND, PEERS)
    assert table.refusal is not None
    assert "once" in table.refusal


def test_who_was_not_measured_has_no_row() -> None:
    assert [row.peer for row in table_of([sample(2.0)], INBOUND, PEERS).rows] == ["sidecar"]


def test_what_went_wrong_is_remarked() -> None:
    (row,) = table_of([sample(2.0, statuses={"200": 900, "503": 100}, late=7)], INBOUND, PEERS).rows
    assert row.figure is None
    assert row.remarks == (
        "not as expected: 100 x 503",
        "a round with more than 1 % of wrong answers has no figure",
        "7 requests left late",
    )


def test_tokens_used_twice_are_remarked_only_where_each_was_to_be_new() -> None:
    fresh = BY_NAME["fresh-token"]
    (row,) = table_of([sample(2.0, scenario="fresh-token", tokens_used=17)], fresh, PEERS).rows
    assert row.remarks == ("there were too few new tokens: some were used twice",)
    (row,) = table_of([sample(2.0, tokens_used=17)], INBOUND, PEERS).rows
    assert row.remarks == ()


def test_memory_at_rest_is_that_of_the_first_round() -> None:
    memory = BY_NAME["memory-0"]
    first = sample(1.0, scenario=memory.name)
    later = dataclasses.replace(first, round=1, rss_mib=90.0)
    (row,) = table_of([later, first], memory, PEERS).rows
    assert row.figure is not None
    assert row.figure.middle == 60.0


def after(*milliseconds: int) -> list[list[int]]:
    """Return latencies of 1,000 requests, equally many of each."""
    return [[bucket_of(value * 1_000_000), 1000 // len(milliseconds)] for value in milliseconds]


@pytest.mark.parametrize(
    ("name", "told"),
    [("silent", True), ("silent-narrow", True), ("busy", True), ("inbound-200", True), ("inbound", False)],
)
def test_where_tails_matter_the_p99_is_compared_with_the_base_in_the_same_round(name: str, told: bool) -> None:
    samples = [
        sample(1.0, scenario=name, peer="haproxy", latency=after(1)),
        sample(2.0, scenario=name, latency=after(3)),
        sample(1.0, scenario=name, peer="haproxy", number=1, latency=after(2)),
        sample(2.0, scenario=name, number=1, latency=after(2)),
    ]
    base, own = table_of(samples, BY_NAME[name], PEERS).rows
    assert (base.p99_ratio is not None, own.p99_ratio is not None) == (told, told)
    if own.p99_ratio is not None:
        assert (own.p99_ratio.lowest, own.p99_ratio.highest) == pytest.approx((1.0, 3.0), rel=0.02)
    (alone,) = table_of([samples[1], samples[3]], BY_NAME[name], PEERS).rows
    assert alone.p99_ratio is None


def test_the_p99_above_a_direct_call_is_a_difference_in_the_same_round() -> None:
    name = "varied-all-500"
    samples = [
        sample(1.0, scenario=name, peer="direct", latency=after(1)),
        sample(2.0, scenario=name, latency=after(3)),
    ]
    own, direct = table_of(samples, BY_NAME[name], ("sidecar", "direct")).rows
    assert own.added_p99_us is not None
    assert own.added_p99_us.middle == pytest.approx(2000, rel=0.02)
    assert direct.added_p99_us is not None
    assert direct.added_p99_us.middle == 0
    (alone,) = table_of(samples[1:], BY_NAME[name], ("sidecar", "direct")).rows
    assert alone.added_p99_us is None


def test_beside_a_flood_each_lawful_call_is_told_as_answered_or_not() -> None:
    silent = BY_NAME["silent"]
    (row,) = table_of([sample(2.0, scenario="silent", reopened=1300)], silent, PEERS).rows
    assert row.remarks == ("all 1,000 calls answered", "1,300 connections of the flood were opened again")
    (row,) = table_of([sample(2.0, scenario="silent", calls_answered=995)], silent, PEERS).rows
    assert "5 of 1,000 calls not answered" in row.remarks
    assert row.figure is not None


def test_a_round_with_many_calls_unanswered_has_no_figure() -> None:
    (row,) = table_of([sample(2.0, scenario="silent", calls=1100)], BY_NAME["silent"], PEERS).rows
    assert "100 of 1,100 calls not answered" in row.remarks
    assert row.figure is None
