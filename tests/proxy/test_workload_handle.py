"""The workload handle's periods: each handle counts in its own one and for a little of the next."""

from __future__ import annotations

import re

import pytest

from sidecar.proxy.journeys.workload_handle import OVERLAP_S, WorkloadHandle

SECRET = bytes(32)
OTHER = bytes(31) + b"\1"
ROTATE_S = 300.0


class Clock:
    def __init__(self) -> None:
        self.now = 900.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(clock: Clock, secret: bytes = SECRET, rotate_s: float = ROTATE_S) -> WorkloadHandle:
    return WorkloadHandle(secret, rotate_s, monotonic=clock)


def test_a_handle_is_like_that_of_a_request_and_every_worker_with_the_secret_knows_it(clock: Clock) -> None:
    handle = made(clock).current.handle
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", handle)
    assert made(clock).accepts(handle)
    assert not made(clock, OTHER).accepts(handle)


@pytest.mark.parametrize(
    ("later_s", "counts"),
    [(0.0, True), (ROTATE_S - 0.1, True), (ROTATE_S + OVERLAP_S - 0.1, True), (ROTATE_S + OVERLAP_S, False)],
)
def test_a_handle_counts_in_its_period_and_for_the_overlap(clock: Clock, later_s: float, counts: bool) -> None:
    own = made(clock)
    handle = own.current.handle
    clock.now += later_s
    assert own.accepts(handle) is counts


def test_the_next_one_counts_only_once_its_period_has_begun(clock: Clock) -> None:
    own = made(clock)
    clock.now += ROTATE_S
    handle = own.current.handle
    assert own.accepts(handle)
    clock.now -= 0.1
    assert not own.accepts(handle)


def test_it_says_how_long_it_counts_and_when_the_next_one_comes(clock: Clock) -> None:
    own = made(clock)
    assert (own.current.expires_in, own.renews_in) == (330, 300.0)
    clock.now += 100.5
    assert (own.current.expires_in, own.renews_in) == (229, 199.5)
    assert made(clock, rotate_s=10.0).current.expires_in <= 20


@pytest.mark.parametrize("shown", ["", "x" * 43, "ü" * 43, "\udc80"])
def test_nothing_else_is_accepted(clock: Clock, shown: str) -> None:
    assert not made(clock).accepts(shown)
