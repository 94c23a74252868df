from __future__ import annotations

from itertools import count

import pytest

from sidecar.exchange.circuit import (
    FIRST_PAUSE_S,
    FORGET_AFTER_S,
    MAX_KNOWN,
    MAX_PAUSE_S,
    OPEN_AFTER,
    OPEN_AFTER_S,
    Circuit,
    Failure,
    Pause,
)

NEW = "a subject without a failure"
ALICE = "alice"
SPREAD = [number * OPEN_AFTER_S / (OPEN_AFTER - 2) for number in range(OPEN_AFTER)]  # a second from the second failure
_users = count()


def circuit() -> Circuit:
    return Circuit(spread=lambda: 0.0)


def silent(one: Circuit, *times: float, subject: str | None = None, probe: Pause | None = None) -> None:
    """Let calls get no answer, each of another user unless one is named."""
    for now in times:
        one.record_failure(now, subject or f"user-{next(_users)}", Failure.SILENT, probe=probe)


def opened() -> Circuit:
    one = circuit()
    silent(one, *SPREAD)
    assert one.open
    return one


def test_a_failure_sends_calls_elsewhere_for_a_pause_and_refuses_none() -> None:
    one = circuit()
    assert (one.should_avoid(0.0, NEW), one.admits(0.0, NEW)) == (False, True)
    silent(one, 0.0)
    assert (one.should_avoid(FIRST_PAUSE_S - 0.01, NEW), one.should_avoid(FIRST_PAUSE_S, NEW)) == (True, False)
    assert one.admits(0.0, NEW)


def test_one_call_after_the_pause_is_the_probe() -> None:
    one = circuit()
    silent(one, 0.0)
    assert not one.begin(0.1, NEW, at_most_s=2.0), "within the pause"
    assert one.begin(FIRST_PAUSE_S, NEW, at_most_s=2.0)
    assert not one.begin(FIRST_PAUSE_S, NEW, at_most_s=2.0)
    assert one.should_avoid(FIRST_PAUSE_S + 1.9, NEW)
    assert one.begin(FIRST_PAUSE_S + 2.0, NEW, at_most_s=2.0), "one that never ended does not block the next"


def test_an_endpoint_that_works_needs_no_probe() -> None:
    assert not circuit().begin(0.0, NEW, at_most_s=2.0)


@pytest.mark.parametrize("prober", [NEW, ALICE], ids=["others", "one without an answer"])
def test_failed_probes_double_the_pause_up_to_a_limit(prober: str) -> None:
    one, now, pauses = circuit(), 0.0, []
    silent(one, now, subject=ALICE)
    for _ in range(6):
        began = now
        while one.should_avoid(now, prober):
            now += 0.125
        pauses.append(now - began)
        probe = one.begin(now, prober, at_most_s=2.0)
        assert probe
        one.record_failure(now, prober, Failure.UNREACHED, probe=probe)
    assert pauses == [FIRST_PAUSE_S, 1.0, 2.0, MAX_PAUSE_S, MAX_PAUSE_S, MAX_PAUSE_S]


def test_calls_that_were_under_way_lengthen_no_pause() -> None:
    one = circuit()
    silent(one, 0.0, 0.1, 0.2)
    assert not one.should_avoid(FIRST_PAUSE_S, NEW)


@pytest.mark.parametrize("failure", [Failure.SILENT, Failure.UNREACHED])
@pytest.mark.parametrize(
    ("times", "is_open"),
    [
        pytest.param([0.0] * (4 * OPEN_AFTER), False, id="many at once"),
        pytest.param([0.0] + [30.0] * (4 * OPEN_AFTER), False, id="many at once, long after another"),
        pytest.param([0.0, 0.5, 1.5, 5.0], False, id="too few"),
        pytest.param([0.0, 0.1, 0.4, 0.6, 0.1 + OPEN_AFTER_S], True, id="enough for long enough"),
    ],
)
def test_it_opens_after_failures_in_a_row_over_a_time(times: list[float], is_open: bool, failure: Failure) -> None:
    one = circuit()
    for number, now in enumerate(times):
        one.record_failure(now, f"user {number}", failure, probe=None)
    assert one.open is is_open


def test_the_silence_of_few_never_opens_it_however_often_they_ask() -> None:
    one = circuit()
    for second in range(1000):
        for user in range(OPEN_AFTER - 1):
            silent(one, float(second), subject=f"hanging {user}")
    assert not one.open
    silent(one, 1000.0, subject=f"hanging {OPEN_AFTER}")
    assert one.open, "one more is enough"


def test_connections_that_fail_open_it_whoever_asks() -> None:
    one = circuit()
    for now in SPREAD:
        one.record_failure(now, ALICE, Failure.UNREACHED, probe=None)
    assert one.open


def test_a_subject_without_an_answer_neither_takes_nor_delays_the_probe_of_others() -> None:
    one = opened()
    silent(one, 1.4, subject=ALICE)
    now = 10.0
    probe = one.begin(now, ALICE, at_most_s=2.0)
    assert probe
    assert not one.admits(now, ALICE)
    assert one.admits(now, NEW), "while that probe is under way"
    silent(one, now + 2.0, subject=ALICE, probe=probe)
    assert not one.admits(now + 2.0, ALICE)
    assert one.begin(now + 2.0, NEW, at_most_s=2.0)
    assert not one.admits(now + 2.0, "another")


def test_an_answer_makes_every_subject_like_the_others_again() -> None:
    one = circuit()
    silent(one, 0.0, subject=ALICE)
    one.record_success()
    silent(one, 1.0)
    assert one.begin(2.0, ALICE, at_most_s=2.0)
    assert one.should_avoid(2.0, NEW)


def test_a_probe_from_before_an_answer_lengthens_nothing() -> None:
    one = circuit()
    silent(one, 0.0)
    probe = one.begin(1.0, NEW, at_most_s=2.0)
    assert probe
    one.record_success()
    silent(one, 2.0)
    silent(one, 2.1, subject=NEW, probe=probe)
    assert not one.should_avoid(2.0 + FIRST_PAUSE_S, "another")


def test_the_subjects_it_knows_are_bounded() -> None:
    one = circuit()
    for number in range(2 * MAX_KNOWN):
        silent(one, 0.0, subject=f"hanging {number}")
    probe = one.begin(FIRST_PAUSE_S, f"hanging {MAX_KNOWN - 1}", at_most_s=2.0)
    assert probe
    assert not one.should_avoid(FIRST_PAUSE_S, f"hanging {MAX_KNOWN}"), "it is like one without a failure"


def test_an_open_one_gets_the_probe_alone() -> None:
    one = opened()
    now = SPREAD[-1]
    probe = one.begin(now, NEW, at_most_s=2.0)
    silent(one, now, probe=probe)  # the pause begins here
    assert not one.admits(now + 0.1, NEW)
    now += 2 * FIRST_PAUSE_S
    assert one.admits(now, NEW)
    assert one.begin(now, NEW, at_most_s=2.0)
    assert not one.admits(now, NEW)


def test_a_success_ends_everything() -> None:
    one = opened()
    one.record_success()
    assert (one.open, one.failing_since, one.should_avoid(0.0, NEW), one.admits(0.0, NEW)) == (False, None, False, True)
    silent(one, 10.0)
    assert not one.open
    assert not one.should_avoid(10.0 + FIRST_PAUSE_S, NEW), "the pause is the first one again"


def test_a_failure_is_forgotten_where_no_call_goes() -> None:
    one = opened()
    one.forget(SPREAD[-1] + FORGET_AFTER_S)
    assert one.open
    silent(one, 10.0)
    one.forget(SPREAD[-1] + FORGET_AFTER_S + 1.0)
    assert one.open
    one.forget(10.0 + FORGET_AFTER_S + 1.0)
    assert (one.open, one.failing_since) == (False, None)


def test_an_answer_that_it_cannot_serve_never_opens_it() -> None:
    one = circuit()
    for number in range(10 * OPEN_AFTER):
        probe = one.begin(float(number), NEW, at_most_s=0.0)
        one.record_failure(float(number), NEW, Failure.ANSWERED, probe=probe)
    assert not one.open
    assert one.should_avoid(10 * OPEN_AFTER - 1.0, NEW)
    one = opened()
    one.record_failure(2.0, NEW, Failure.ANSWERED, probe=None)
    assert not one.open


def test_replicas_of_a_workload_probe_at_different_times() -> None:
    early, late = Circuit(spread=lambda: 0.0), Circuit(spread=lambda: 1.0)
    silent(early, 0.0)
    silent(late, 0.0)
    assert (early.should_avoid(FIRST_PAUSE_S, NEW), late.should_avoid(FIRST_PAUSE_S, NEW)) == (False, True)
    assert not late.should_avoid(1.25 * FIRST_PAUSE_S, NEW)
