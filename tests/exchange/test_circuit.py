from __future__ import annotations

import pytest

from sidecar.exchange.circuit import FIRST_PAUSE_S, FORGET_AFTER_S, MAX_PAUSE_S, OPEN_AFTER, OPEN_AFTER_S, Circuit


def circuit() -> Circuit:
    return Circuit(spread=lambda: 0.0)


def silent(one: Circuit, *times: float, probe: bool = False) -> None:
    for now in times:
        one.failed(now, probe=probe, answered=False)


def opened() -> Circuit:
    one = circuit()
    silent(one, *[number * OPEN_AFTER_S / (OPEN_AFTER - 1) for number in range(OPEN_AFTER)])
    return one


def test_a_failure_sends_calls_elsewhere_for_a_pause_and_refuses_none() -> None:
    one = circuit()
    assert (one.avoided(0.0), one.admits(0.0)) == (False, True)
    silent(one, 0.0)
    assert (one.avoided(FIRST_PAUSE_S - 0.01), one.avoided(FIRST_PAUSE_S)) == (True, False)
    assert one.admits(0.0)


def test_one_call_after_the_pause_is_the_probe() -> None:
    one = circuit()
    silent(one, 0.0)
    assert not one.begin(0.1, at_most_s=2.0), "within the pause"
    assert one.begin(FIRST_PAUSE_S, at_most_s=2.0)
    assert not one.begin(FIRST_PAUSE_S, at_most_s=2.0)
    assert one.avoided(FIRST_PAUSE_S + 1.9)
    assert one.begin(FIRST_PAUSE_S + 2.0, at_most_s=2.0), "one that never ended does not block the next"


def test_an_endpoint_that_works_needs_no_probe() -> None:
    assert not circuit().begin(0.0, at_most_s=2.0)


def test_failed_probes_double_the_pause_up_to_a_limit() -> None:
    one, now, pauses = circuit(), 0.0, []
    silent(one, now)
    for _ in range(6):
        began = now
        while one.avoided(now):
            now += 0.125
        pauses.append(now - began)
        assert one.begin(now, at_most_s=2.0)
        silent(one, now, probe=True)
    assert pauses == [FIRST_PAUSE_S, 1.0, 2.0, MAX_PAUSE_S, MAX_PAUSE_S, MAX_PAUSE_S]


def test_calls_that_were_under_way_lengthen_no_pause() -> None:
    one = circuit()
    silent(one, 0.0, 0.1, 0.2)
    assert not one.avoided(FIRST_PAUSE_S)


@pytest.mark.parametrize(
    ("times", "is_open"),
    [
        pytest.param([0.0] * (4 * OPEN_AFTER), False, id="many at once"),
        pytest.param([0.0, 0.5, 1.0, 5.0], False, id="too few"),
        pytest.param([0.0, 0.2, 0.4, 0.6, OPEN_AFTER_S], True, id="enough for long enough"),
    ],
)
def test_it_opens_after_failures_in_a_row_over_a_time(times: list[float], is_open: bool) -> None:
    one = circuit()
    silent(one, *times)
    assert one.open is is_open


def test_an_open_one_gets_the_probe_alone() -> None:
    one = opened()
    silent(one, 1.0, probe=True)  # the pause begins here
    assert not one.admits(1.1)
    now = 1.0 + 2 * FIRST_PAUSE_S
    assert one.admits(now)
    assert one.begin(now, at_most_s=2.0)
    assert not one.admits(now)


def test_a_success_ends_everything() -> None:
    one = opened()
    one.succeeded()
    assert (one.open, one.failing_since, one.avoided(0.0), one.admits(0.0)) == (False, None, False, True)
    silent(one, 10.0)
    assert not one.open
    assert not one.avoided(10.0 + FIRST_PAUSE_S), "the pause is the first one again"


def test_a_failure_is_forgotten_where_no_call_goes() -> None:
    one = opened()
    one.forget(OPEN_AFTER_S + FORGET_AFTER_S)
    assert one.open
    silent(one, 10.0)
    one.forget(OPEN_AFTER_S + FORGET_AFTER_S + 1.0)
    assert one.open
    one.forget(10.0 + FORGET_AFTER_S + 1.0)
    assert (one.open, one.failing_since) == (False, None)


def test_an_answer_that_it_cannot_serve_never_opens_it() -> None:
    one = circuit()
    for number in range(10 * OPEN_AFTER):
        one.failed(float(number), probe=True, answered=True)
    assert not one.open
    assert one.avoided(10 * OPEN_AFTER - 1.0)
    one = opened()
    one.failed(2.0, probe=True, answered=True)
    assert not one.open


def test_replicas_of_a_workload_probe_at_different_times() -> None:
    early, late = Circuit(spread=lambda: 0.0), Circuit(spread=lambda: 1.0)
    silent(early, 0.0)
    silent(late, 0.0)
    assert (early.avoided(FIRST_PAUSE_S), late.avoided(FIRST_PAUSE_S)) == (False, True)
    assert not late.avoided(1.25 * FIRST_PAUSE_S)
