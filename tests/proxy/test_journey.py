from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.proxy.journeys.journey import Async, Drive, Journey, Tasks, Wait, Waiter
from sidecar.proxy.journeys.whole_body import BodyUpTo
from sidecar.wire.message import Edits, Response
from sidecar.wire.pool import Origin
from sidecar.wire.pump import Pump
from sidecar.wire.stream import Stream
from tests.proxy.warm import OneConnection
from tests.wire.bench import Served
from tests.wire.written import AS_THEY_ARE


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
    """A journey that records its events."""

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
    """Fails when it begins."""

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
    """A wait that cannot be cancelled."""

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


# --- a journey that judges a body

LIMIT = 10
POST = b"POST /a HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
ALL = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (b"ju", b"dged")) + b"0\r\n\r\n"


class Passing(Pump):
    """Forwards a request as it is."""

    __slots__ = ()

    def rewrite(self, head: Response) -> Edits:
        return AS_THEY_ARE

    def unfinished(self, head: Response) -> None:
        pass

    def done(self, error: SidecarError | None) -> None:
        pass


class Judge:
    """A journey that reads a body, refuses one that is bad, and forwards every other."""

    def __init__(self) -> None:
        self.pool = OneConnection()
        self.judged: list[bytes] = []
        self.refused: list[Reason] = []
        self.served = Served(lambda stream: Drive(self.journey(stream)).resume(None))

    @property
    def forwarded(self) -> bytes:
        """The bytes that went upstream."""
        self.pool.connections.writes.write_all()
        return bytes(self.pool.transport.written)

    def journey(self, stream: Stream) -> Journey[None]:
        try:
            body = yield BodyUpTo(stream, LIMIT)
            self.judged.append(body)
            if b"bad" in body:
                raise Denied(Reason.NO_ROUTE)
            assert stream.head is not None
            origin = Origin("127.0.0.1", 1, "key")
            Passing(stream, stream.head, self.pool, origin, b"/a", AS_THEY_ARE).start()
        except SidecarError as error:
            self.refused.append(error.reason)
            stream.answer(error.answer.status or 400, [], b"")


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    "request_", [CHUNKED + ALL, POST + b"Content-Length: 6\r\n\r\njudged"], ids=["chunked", "length"]
)
async def test_the_bytes_that_are_judged_are_the_bytes_that_are_forwarded(request_: bytes, size: int) -> None:
    judge = Judge()
    for at in range(0, len(request_), size):
        assert judge.forwarded == b""
        judge.served.receive(request_[at : at + size])
    assert judge.judged == [b"judged"]
    assert judge.forwarded.endswith(b"\r\ncontent-length: 6\r\n\r\njudged")
    assert judge.forwarded.count(b"judged") == 1


@pytest.mark.parametrize("head", [CHUNKED + b"0\r\n\r\n", POST + b"\r\n", POST + b"Content-Length: 0\r\n\r\n"])
async def test_a_request_without_content_is_judged_as_an_empty_body(head: bytes) -> None:
    judge = Judge()
    judge.served.receive(head)
    assert judge.judged == [b""]
    assert judge.forwarded.endswith(b"content-length: 0\r\n\r\n")


async def test_a_body_that_is_judged_bad_is_forwarded_nowhere() -> None:
    judge = Judge()
    judge.served.receive(POST + b"Content-Length: 3\r\n\r\n")
    judge.served.receive(b"bad")
    assert (judge.judged, judge.refused, judge.forwarded) == ([b"bad"], [Reason.NO_ROUTE], b"")


@pytest.mark.parametrize("length", [LIMIT, LIMIT + 1])
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_over_the_limit_is_refused_and_never_judged(chunked: bool, length: int) -> None:
    judge = Judge()
    body = b"x" * length
    if chunked:
        judge.served.receive(CHUNKED)
        judge.served.receive(b"%x\r\n%b\r\n0\r\n\r\n" % (length, body))
    else:
        judge.served.receive(POST + b"Content-Length: %d\r\n\r\n" % length)
        judge.served.receive(body)
    if length > LIMIT:
        assert (judge.judged, judge.refused, judge.forwarded) == ([], [Reason.TOO_LARGE], b"")
        judge.served.connections.writes.write_all()
        assert judge.served.transport.written.startswith(b"HTTP/1.1 413 ")
    else:
        assert (judge.judged, judge.refused) == ([body], [])


async def test_a_peer_that_waits_for_100_continue_is_invited_to_send_what_is_judged() -> None:
    judge = Judge()
    judge.served.receive(POST + b"Expect: 100-continue\r\nContent-Length: 6\r\n\r\n")
    judge.served.connections.writes.write_all()
    assert judge.served.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    judge.served.receive(b"judged")
    assert judge.judged == [b"judged"]


async def test_a_malformed_body_is_refused() -> None:
    judge = Judge()
    judge.served.receive(CHUNKED + b"x\r\n")
    assert (judge.judged, judge.refused) == ([], [Reason.BAD_REQUEST])
