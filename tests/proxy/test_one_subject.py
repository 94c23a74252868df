"""One subject at a time: counted are requests in progress and handles that linger."""

from __future__ import annotations

from typing import Any

import pytest

from delegation_core.errors import Denied, Reason, Unavailable
from sidecar.proxy.journeys.handles import ServedRequest
from sidecar.proxy.journeys.one_subject import OneSubject
from tests.core.world import INBOUND_CLAIMS, NOW, delegation


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def of(subject: str = "alice", *, issuer: str | None = None, linger_s: float = 0.0) -> ServedRequest:
    claims = INBOUND_CLAIMS | {"sub": subject, "jti": f"of {subject}"}
    if issuer is not None:
        claims["iss"] = issuer
    return ServedRequest(delegation(claims), None, linger_s, call_in=None)


def made(clock: Clock | None = None, **options: Any) -> OneSubject:
    clock = clock or Clock()
    return OneSubject(clock=clock, monotonic=clock, **options)


def is_busy(handles: OneSubject, served: ServedRequest) -> bool:
    try:
        handles.end(handles.open(served))
    except Unavailable as error:
        return error.reason is Reason.SUBJECT_BUSY
    return False


def test_a_second_subject_is_refused_while_a_request_of_the_first_is_in_progress() -> None:
    handles = made()
    first = handles.open(of("alice"))
    assert is_busy(handles, of("bob"))
    handles.end(first)
    assert not is_busy(handles, of("bob"))


def test_the_same_subject_passes_as_often_as_it_likes() -> None:
    handles = made()
    opened = [handles.open(of("alice")) for _ in range(3)]
    for handle in opened[:-1]:
        handles.end(handle)
        assert is_busy(handles, of("bob"))
    handles.end(opened[-1])
    assert not is_busy(handles, of("bob"))


def test_the_subject_is_the_pair_of_issuer_and_sub() -> None:
    handles = made()
    handles.open(of("alice"))
    assert is_busy(handles, of("alice", issuer="https://other.example"))
    assert not is_busy(handles, of("alice"))


@pytest.mark.parametrize(("later_s", "busy"), [(29.0, True), (30.0, False)])
def test_a_lingering_handle_counts_as_long_as_it_lives(later_s: float, busy: bool) -> None:
    clock = Clock()
    handles = made(clock)
    handles.end(handles.open(of("alice", linger_s=30)))
    clock.now += later_s
    assert is_busy(handles, of("bob")) is busy


def test_a_request_counts_even_if_its_handle_has_ended_before_it() -> None:
    clock = Clock()
    handles = made(clock)
    first = handles.open(of("alice"))
    clock.now += 290
    with pytest.raises(Denied, match="no_request_context"):
        handles.resolve(first)
    assert is_busy(handles, of("bob"))
    handles.end(first)
    assert not is_busy(handles, of("bob"))


def test_a_refused_subject_changes_nothing() -> None:
    handles = made()
    first = handles.open(of("alice"))
    for _ in range(2):
        assert is_busy(handles, of("bob"))
        handles.end("")  # the end of the refused request's journey
    assert not is_busy(handles, of("alice"))
    handles.end(first)
    assert len(handles) == 0
    assert not is_busy(handles, of("bob"))


def test_an_evicted_lingering_handle_does_not_count() -> None:
    handles = made()
    handles.end(handles.open(of("alice", linger_s=30)))
    assert is_busy(handles, of("bob"))
    handles.shed(0)
    assert not is_busy(handles, of("bob"))
