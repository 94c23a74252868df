from __future__ import annotations

from itertools import accumulate

import pytest

from sidecar.proxy.listening.trim import AFTER_BYTES, IDLE_FILE_BYTES, IDLE_LOOKS, Trim


@pytest.mark.parametrize(
    ("seen", "given"),
    [
        pytest.param([0, 1.0, 2.0], 0, id="more and more"),
        pytest.param([1.0, 0], 1, id="all freed"),
        pytest.param([1.0, 0.01], 0, id="too little freed"),
        pytest.param([2.0, 1.01, 1.0], 1, id="freed bit by bit"),
        pytest.param([2.0, 1.0, 0], 2, id="freed in two bursts"),
        pytest.param([1.0, 0, 0, 0], 1, id="nothing since"),
        pytest.param([1.0, 0, 1.0, 0], 2, id="and again"),
        pytest.param([0.9, 0.5, 0.5], 1, id="less freed, and nothing moves"),
        pytest.param([0.9, 0.5, 0.5, 0.5], 1, id="nothing since, and nothing moves"),
        pytest.param([0.9, 0.5, 0.4, 0.5], 0, id="less freed, and allocation moves"),
        pytest.param([0.9, 0.8, 0.8], 0, id="too little freed, and nothing moves"),
        pytest.param([1.0, None, 0], 1, id="not told for a while"),
        pytest.param([None, None], 0, id="never told"),
    ],
)
def test_memory_goes_back_once_much_less_is_allocated_or_less_at_rest(seen: list[float | None], given: int) -> None:
    gifts: list[bool] = []
    told = iter([None if one is None else int(one * AFTER_BYTES) for one in seen])
    trim = Trim(allocated=lambda: next(told), give=lambda: gifts.append(True), forget=lambda: None)
    for _ in seen:
        trim.look()
    assert len(gifts) == given


@pytest.mark.parametrize(
    ("seen", "forgotten"),
    [
        pytest.param([0, 0, 0, 0], 0, id="no burst"),
        pytest.param([0, 2.0, 0, 0, 0], 1, id="once after a burst"),
        pytest.param([0, 2.0, 2.0, 2.0], 1, id="once after connections came, that stay"),
        pytest.param([0, 0.1, 0.1], 0, id="a few connections"),
        pytest.param([0, 0.1, 0.2, 0.2], 1, id="a few after a few"),
        pytest.param([0, 2.0, 0, 0.5, 0.9], 0, id="not while allocation moves"),
        pytest.param([0, 2.0, 0, 0, 2.0, 0, 0], 2, id="after each burst"),
    ],
)
def test_code_is_unmapped_once_allocation_rests_after_it_has_moved(seen: list[float], forgotten: int) -> None:
    times: list[bool] = []
    told = iter([int(one * AFTER_BYTES) for one in seen])
    trim = Trim(allocated=lambda: next(told), give=lambda: None, forget=lambda: times.append(True))
    for _ in seen:
        trim.look()
    assert len(times) == forgotten


REST = [0] * IDLE_LOOKS


@pytest.mark.parametrize(
    ("requests", "files", "forgotten"),
    [
        pytest.param([5, *REST], 2.0, 1, id="once it is idle"),
        pytest.param([5, *REST, *REST, *REST], 2.0, 1, id="once in each time without requests"),
        pytest.param([5, *REST, 1, *REST], 2.0, 2, id="again after the next request"),
        pytest.param([5, *REST[1:], 1, *REST[1:]], 2.0, 0, id="not while requests come, however few"),
        pytest.param([5, *REST], 1.0, 0, id="not if little is resident"),
        pytest.param([5, *REST], None, 0, id="not told"),
    ],
)
def test_code_is_unmapped_once_no_request_has_come_for_a_while(
    requests: list[int], files: float | None, forgotten: int
) -> None:
    times: list[bool] = []
    so_far = iter(accumulate(requests))
    trim = Trim(
        allocated=lambda: 0,
        give=lambda: None,
        forget=lambda: times.append(True),
        resident_files=lambda: None if files is None else int(files * IDLE_FILE_BYTES),
        requests=lambda: next(so_far),
    )
    for _ in requests:
        trim.look()
    assert len(times) == forgotten
