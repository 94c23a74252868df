from __future__ import annotations

import pytest

from sidecar.exchange.refresh_schedule import refresh_at, retry_at

NEVER_ENDING = 10_000


@pytest.mark.parametrize(
    ("life", "spread", "ahead"),
    [
        pytest.param(300, 0.0, 60, id="the last fifth"),
        pytest.param(300, 1.0, 75, id="at most a quarter of that sooner"),
        pytest.param(25, 0.0, 5, id="five seconds at least"),
        pytest.param(20, 0.0, 5, id="five seconds of a short life"),
        pytest.param(8, 0.0, 4, id="half of a very short one"),
        pytest.param(8, 1.0, 4, id="never more than half"),
        pytest.param(1, 0.0, 0, id="hardly a life"),
    ],
)
def test_a_token_is_refreshed_in_the_last_part_of_its_life(life: int, spread: float, ahead: int) -> None:
    at = refresh_at(now=1000, usable_until=1000 + life, subject_until=NEVER_ENDING, spread=spread)
    assert at == 1000 + life - ahead


@pytest.mark.parametrize(("subject_until", "at"), [(1301, 1240), (1300, 1300), (1299, 1300)])
def test_a_token_that_ends_with_its_subject_token_has_no_successor(subject_until: int, at: int) -> None:
    assert refresh_at(now=1000, usable_until=1300, subject_until=subject_until, spread=0.0) == at


@pytest.mark.parametrize(
    ("left", "spread", "pause"),
    [
        pytest.param(60, 0.0, 15, id="a quarter of what is left"),
        pytest.param(60, 1.0, 18, id="and at most a quarter of that more"),
        pytest.param(8, 0.0, 2, id="never less than two seconds"),
        pytest.param(1, 0.0, 2, id="even past the end"),
    ],
)
def test_a_refresh_that_failed_is_tried_again_ever_closer_to_the_end(left: int, spread: float, pause: int) -> None:
    assert retry_at(now=1000, usable_until=1000 + left, spread=spread) == 1000 + pause
