from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from delegation_core.errors import Reason
from sidecar.proxy.journeys.deadlines import Wheel, end_of


@dataclass
class Times:
    """A forwarding that began at 10 with a token that expires at 100, behind a peer whose certificate does at 200."""

    endless: bool = False
    uploading: bool = False
    began_at: float = 10.0
    answered_at: float | None = None
    token_expires_at: float = 100.0
    login_expires_at: float = float("inf")
    peer_expires_at: float = 200.0
    max_upload_s: float = 30.0
    max_stream_s: float = 50.0
    max_life_s: float = float("inf")
    max_wait_s: float = float("inf")
    deadline_s: float = float("inf")


def end(*, wall: float = 10.0, passed: float = 10.0, **times: Any) -> tuple[float, Reason] | None:
    found = end_of(Times(**times), wall=wall, passed=passed)
    return None if found is None else (found.left_s, found.reason)


ENDS: dict[str, tuple[dict[str, Any], tuple[float, Reason] | None]] = {
    "a stream: its token": ({"endless": True, "answered_at": 10.0}, (90.0, Reason.TOKEN_EXPIRED)),
    "a stream: its peer's certificate": (
        {"endless": True, "answered_at": 10.0, "peer_expires_at": 50.0},
        (40.0, Reason.SVID_EXPIRED),
    ),
    "a stream: its user's login": (
        {"endless": True, "answered_at": 10.0, "login_expires_at": 60.0},
        (50.0, Reason.STEP_UP_REQUIRED),
    ),
    "an answer: its user's login": (
        {"answered_at": 10.0, "login_expires_at": 80.0},
        (70.0, Reason.TIMEOUT),
    ),
    "an answer past its user's login: max_stream_s": (
        {"answered_at": 30.0, "login_expires_at": 20.0, "passed": 35.0, "wall": 35.0},
        (45.0, Reason.TIMEOUT),
    ),
    "an upload: its user's login": ({"uploading": True, "login_expires_at": 60.0}, (50.0, Reason.TIMEOUT)),
    "a stream: no limit beyond": (
        {"endless": True, "answered_at": 10.0, "passed": 10_000.0, "uploading": True},
        (90.0, Reason.TOKEN_EXPIRED),
    ),
    "a tunnel: its token": (
        {"endless": True, "answered_at": 10.0, "max_life_s": 100.0},
        (90.0, Reason.TOKEN_EXPIRED),
    ),
    "a tunnel: its longest life": (
        {"endless": True, "answered_at": 10.0, "max_life_s": 80.0},
        (80.0, Reason.TIMEOUT),
    ),
    "a tunnel of no known request: its longest life": (
        {
            "endless": True,
            "answered_at": 10.0,
            "max_life_s": 80.0,
            "passed": 91.0,
            "token_expires_at": float("inf"),
            "peer_expires_at": float("inf"),
        },
        (-1.0, Reason.TIMEOUT),
    ),
    "an answer: its token": ({"answered_at": 10.0}, (90.0, Reason.TIMEOUT)),
    "an answer past its token: max_stream_s": (
        {"answered_at": 90.0, "passed": 95.0, "wall": 105.0},
        (45.0, Reason.TIMEOUT),
    ),
    "an answer: its peer's certificate is not matter": (
        {"answered_at": 10.0, "peer_expires_at": 5.0},
        (90.0, Reason.TIMEOUT),
    ),
    "an upload: its token": ({"uploading": True}, (90.0, Reason.TIMEOUT)),
    "an upload past its token: max_upload_s": (
        {"uploading": True, "token_expires_at": 15.0},
        (30.0, Reason.TIMEOUT),
    ),
    "an upload past both": (
        {"uploading": True, "token_expires_at": 15.0, "passed": 41.0, "wall": 41.0},
        (-1.0, Reason.TIMEOUT),
    ),
    "an upload that is being answered: the earlier end": (
        {"uploading": True, "answered_at": 35.0, "token_expires_at": 15.0, "passed": 36.0, "wall": 36.0},
        (4.0, Reason.TIMEOUT),
    ),
    "the wait for an answer: none": ({"token_expires_at": 0.0}, None),
}


@pytest.mark.parametrize(("times", "expected"), ENDS.values(), ids=ENDS.keys())
def test_each_kind_ends_with(times: dict[str, Any], expected: tuple[float, Reason] | None) -> None:
    assert end(**times) == expected


def taken(wheel: Wheel[str], now: float) -> set[str]:
    return set(wheel.turn(now))


def test_members_come_at_their_time_and_never_before() -> None:
    wheel: Wheel[str] = Wheel(100.0)
    for name, due in (("a", 100.1), ("b", 100.3), ("c", 200.0), ("over", 3.0)):
        wheel.put(name, due)
    assert taken(wheel, 100.0) == set()
    assert taken(wheel, 100.24) == set()
    assert taken(wheel, 100.25) == {"a", "over"}
    assert taken(wheel, 100.49) == set()
    assert taken(wheel, 100.5) == {"b"}
    assert taken(wheel, 1000.0) == {"c"}
    assert len(wheel) == 0


def test_one_that_is_put_again_comes_once_and_one_that_is_dropped_never() -> None:
    wheel: Wheel[str] = Wheel(0.0)
    wheel.put("moved", 1.0)
    wheel.put("moved", 2.0)
    wheel.put("dropped", 1.0)
    wheel.drop("dropped")
    wheel.drop("never there")
    assert taken(wheel, 1.5) == set()
    assert taken(wheel, 3.0) == {"moved"}
    assert not wheel._slots


def test_members_may_go_and_come_while_others_are_taken() -> None:
    wheel: Wheel[str] = Wheel(0.0)
    for name in ("a", "b", "c"):
        wheel.put(name, 1.0)
    turning = wheel.turn(1.0)
    first = next(turning)
    second = min({"a", "b", "c"} - {first})
    wheel.drop(second)
    wheel.put(first, 1.0)
    assert list(turning) == [*({"a", "b", "c"} - {first, second})]
    assert taken(wheel, 1.25) == {first}
