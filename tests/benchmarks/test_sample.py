import pytest

from tests.benchmarks.samples import sample


def test_the_figure_is_cpu_time_by_requests() -> None:
    assert sample(75.0).cpu_us == pytest.approx(75.0)


def test_without_an_answer_there_is_no_figure() -> None:
    assert sample(75.0, requests=0, statuses={}).cpu_us is None


@pytest.mark.parametrize(("wrong", "counts"), [(10, True), (11, False)])
def test_with_more_than_one_wrong_answer_in_a_hundred_no_figure_counts(wrong: int, *, counts: bool) -> None:
    seen = sample(75.0, statuses={"200": 1000 - wrong, "503": wrong})
    assert seen.errors == {"503": wrong}
    assert (seen.cpu_us is not None) is counts


def test_a_lost_connection_is_a_wrong_answer() -> None:
    seen = sample(75.0, lost={"connect": 0, "tls": 1, "answer": 50})
    assert seen.errors == {"lost tls": 1, "lost answer": 50}
    assert seen.cpu_us is None


def test_a_refusal_that_was_expected_is_right() -> None:
    assert sample(75.0, expected=403, statuses={"403": 1000}).cpu_us is not None
    assert sample(75.0, expected=403).cpu_us is None


def test_throughput_counts_both_directions() -> None:
    assert sample(1.0).megabytes_per_second == pytest.approx(100.0)


@pytest.mark.parametrize(("used", "reused"), [(16, False), (17, True)])
def test_tokens_that_were_used_twice_are_told(used: int, *, reused: bool) -> None:
    assert sample(1.0, tokens_used=used).reused is reused


def test_where_only_streams_were_asked_for_the_delay_of_their_events_counts() -> None:
    assert sample(1.0, latency=[], event_delay=[[7, 3]]).delays == [(7, 3)]
    assert sample(1.0, latency=[[5, 1]], event_delay=[[7, 3]]).delays == [(5, 1)]
