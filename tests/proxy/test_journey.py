from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from sidecar.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.proxy.journey import Async, Drive, Journey, Tasks, Wait, Waiter


class Later:
    """A wait that the test ends by hand."""

    def __init__(self) -> None:
        self.waiter: Waiter | None = None
        self.cancelled = False

    def begin(self, waiter: Waiter) -> None:
        self.waiter = waiter

    def cancel(self) -> None:
        self.cancelled = True


class Traveller:
    """A journey that writes down what happens to it."""

    def __init__(self, wait: Wait) -> None:
        self.wait = wait
        self.seen: list[object] = []

    def journey(self) -> Journey[None]:
        try:
            self.seen.append((yield self.wait))
        except SidecarError as error:
            self.seen.append(error.reason)
        finally:
            self.seen.append("closed")


def test_a_journey_goes_on_with_what_it_waited_for() -> None:
    wait = Later()
    traveller = Traveller(wait)
    Drive(traveller.journey()).resume(None)
    assert traveller.seen == []
    assert wait.waiter is not None
    wait.waiter.resume("key")
    assert traveller.seen == ["key", "closed"]


def test_an_error_arrives_at_the_place_of_the_wait() -> None:
    wait = Later()
    traveller = Traveller(wait)
    Drive(traveller.journey()).resume(None)
    assert wait.waiter is not None
    wait.waiter.fail(Denied(Reason.UNKNOWN_KEY))
    assert traveller.seen == [Reason.UNKNOWN_KEY, "closed"]


def test_a_vanished_peer_cancels_the_wait_and_closes_the_record() -> None:
    wait = Later()
    traveller = Traveller(wait)
    drive = Drive(traveller.journey())
    drive.resume(None)
    drive.gone()
    assert wait.cancelled
    assert traveller.seen == [Reason.PEER_GONE, "closed"]


def test_what_arrives_after_the_end_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    wait = Later()
    traveller = Traveller(wait)
    drive = Drive(traveller.journey())
    drive.resume(None)
    drive.gone()
    drive.resume("late")
    drive.fail(Denied(Reason.TIMEOUT))
    drive.gone()
    assert traveller.seen == [Reason.PEER_GONE, "closed"]
    assert caplog.records == []


def test_a_request_that_must_end_is_told_why() -> None:
    wait = Later()
    traveller = Traveller(wait)
    drive = Drive(traveller.journey())
    drive.resume(None)
    drive.stop(Unavailable(Reason.DRAINING))
    assert wait.cancelled
    assert traveller.seen == [Reason.DRAINING, "closed"]


class BrokenWait(Later):
    """Cannot even begin."""

    def begin(self, waiter: Waiter) -> None:
        raise ZeroDivisionError


def test_a_bug_at_the_start_of_a_wait_ends_the_journey_like_any_other(caplog: pytest.LogCaptureFixture) -> None:
    wait = BrokenWait()
    traveller = Traveller(wait)
    drive = Drive(traveller.journey())
    with caplog.at_level(logging.ERROR):
        drive.resume(None)
    assert traveller.seen == ["closed"]
    assert "ZeroDivisionError" in caplog.text
    drive.gone()
    assert not wait.cancelled


class EndlessWait(Later):
    """A wait that cannot be given up."""

    def cancel(self) -> None:
        raise RuntimeError("a bug")


def test_a_bug_at_the_end_of_a_wait_keeps_no_request_open(caplog: pytest.LogCaptureFixture) -> None:
    traveller = Traveller(EndlessWait())
    drive = Drive(traveller.journey())
    drive.resume(None)
    with caplog.at_level(logging.ERROR, logger="sidecar.journey"):
        drive.stop(Unavailable(Reason.DRAINING))
    assert traveller.seen == [Reason.DRAINING, "closed"]
    assert caplog.records[0].exc_info is not None


def test_a_bug_ends_one_request_and_stays_visible(caplog: pytest.LogCaptureFixture) -> None:
    closed: list[str] = []

    def journey() -> Journey[None]:
        try:
            yield Later()
            raise ZeroDivisionError
        finally:
            closed.append("record")

    drive = Drive(journey())
    drive.resume(None)
    with caplog.at_level(logging.ERROR):
        drive.resume(None)
    assert closed == ["record"]
    assert "ZeroDivisionError" in caplog.text


async def test_a_coroutine_resumes_its_journey() -> None:
    tasks = Tasks()
    ended = asyncio.Event()

    async def find_key() -> str:
        return "key"

    traveller = Traveller(Async(tasks, find_key))

    def journey() -> Journey[None]:
        yield from traveller.journey()
        ended.set()

    Drive(journey()).resume(None)
    await asyncio.wait_for(ended.wait(), 5)
    assert traveller.seen == ["key", "closed"]
    await tasks.close()


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        pytest.param(Unavailable(Reason.KEYS_UNAVAILABLE), Reason.KEYS_UNAVAILABLE, id="an error of ours"),
        pytest.param(ZeroDivisionError(), Reason.INTERNAL, id="a bug"),
    ],
)
async def test_a_failing_coroutine_fails_its_journey(raised: Exception, reason: Reason) -> None:
    tasks = Tasks()
    ended = asyncio.Event()

    async def fail() -> str:
        raise raised

    traveller = Traveller(Async(tasks, fail))

    def journey() -> Journey[None]:
        yield from traveller.journey()
        ended.set()

    Drive(journey()).resume(None)
    await asyncio.wait_for(ended.wait(), 5)
    assert traveller.seen == [reason, "closed"]
    await tasks.close()


async def test_cancelling_a_wait_cancels_its_task() -> None:
    tasks = Tasks()
    cancelled = asyncio.Event()

    async def hang() -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    traveller = Traveller(Async(tasks, hang))
    drive = Drive(traveller.journey())
    drive.resume(None)
    await asyncio.sleep(0)
    drive.gone()
    await asyncio.wait_for(cancelled.wait(), 5)
    await asyncio.sleep(0)
    assert len(tasks) == 0
    assert traveller.seen == [Reason.PEER_GONE, "closed"]
