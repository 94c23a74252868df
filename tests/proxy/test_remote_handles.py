from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.proxy.journeys.handles import MARKS, Handles, ServedRequest
from sidecar.proxy.journeys.remote_handles import MAX_WAITING_BYTES, Inbox, RemoteHandles, new_inbox
from tests.core.world import INBOUND_CLAIMS, NOW, SEARCH, delegation
from tests.fakes.guard import FakeGuard
from tests.proxy.test_handles import REST_S, Clock, served


class Worker:
    def __init__(self, number: int, inboxes: list[Inbox], clock: Clock) -> None:
        self.handles = Handles(clock=clock, monotonic=clock, mark=MARKS[number])
        self.remote = RemoteHandles(self.handles, inboxes, number, prove=self._prove, timeout_s=0.2)
        self.trusts = True

    def _prove(self, chain: tuple[bytes, ...], now: int) -> FakeGuard:
        guard = FakeGuard(fingerprint=chain[0].decode())
        guard.withdrawn = not self.trusts
        guard.check(now)
        return guard


class Workers:
    """Two workers in one loop; a third has its inbox and is not there."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.inboxes = [new_inbox() for _ in range(3)]
        self.first, self.second = (Worker(number, self.inboxes, self.clock) for number in range(2))

    def open(self, request: ServedRequest) -> str:
        return self.first.handles.open(request)

    async def ask(self, handle: str, *, owner: int = 0, count: bool = False) -> Reason | None:
        """Return the reason why the second worker gets no usable answer."""
        try:
            found = await self.second.remote.resolve(owner, handle)
            counting = found.count_call()
            if count and counting is not None:
                await counting()
        except SidecarError as error:
            return error.reason
        return None


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers()
    for worker in (workers.first, workers.second):
        worker.remote.open()
    yield workers
    for worker in (workers.first, workers.second):
        worker.remote.close()
    for inbox in workers.inboxes:
        inbox.read.close()
        inbox.write.close()


async def test_a_handle_says_which_other_worker_made_it(workers: Workers) -> None:
    handle = workers.open(served())
    assert workers.second.remote.owner_of(handle) == 0
    assert workers.first.remote.owner_of(handle) is None
    assert workers.second.remote.owner_of("A" + handle) is None
    assert workers.second.remote.owner_of(handle[1:]) is None
    assert workers.second.remote.owner_of("") is None
    assert workers.second.remote.owner_of("D" + handle[1:]) is None  # there are three
    assert workers.second.remote.owner_of("~" + handle[1:]) is None  # no worker has this mark


async def test_the_request_of_a_handle_is_found_at_its_worker(workers: Workers) -> None:
    request = served()
    found = await workers.second.remote.resolve(0, workers.open(request))
    assert found.delegation == request.delegation
    assert (found.call_in, found.ended_at, found.count_call()) == (None, None, None)


async def test_a_handle_that_its_worker_does_not_know_is_refused(workers: Workers) -> None:
    handle = workers.open(served())
    assert await workers.ask(handle[:-1] + ("x" if handle[-1] != "x" else "y")) is Reason.NO_REQUEST_CONTEXT


async def test_a_handle_dies_with_its_request_at_once(workers: Workers) -> None:
    handle = workers.open(served())
    assert await workers.ask(handle) is None
    workers.first.handles.end(handle)
    assert await workers.ask(handle) is Reason.NO_REQUEST_CONTEXT


async def test_a_handle_dies_with_its_token(workers: Workers) -> None:
    handle = workers.first.handles.keep(served())
    assert await workers.ask(handle) is None
    workers.clock.now += REST_S
    assert await workers.ask(handle) is Reason.NO_REQUEST_CONTEXT


async def test_a_lingering_handle_is_said_to_be_one(workers: Workers) -> None:
    handle = workers.open(served(linger_s=5.0))
    workers.first.handles.end(handle)
    assert (await workers.second.remote.resolve(0, handle)).ended_at == workers.clock.now


async def test_a_request_at_one_worker_renews_its_chains_handles_at_another_and_no_others(workers: Workers) -> None:
    def of(txn: str) -> ServedRequest:
        shown = delegation(INBOUND_CLAIMS | {"txn": txn}, came_by=SEARCH.mark)
        return ServedRequest(shown, None, 30.0, call_in=None)

    renewed, other = (workers.open(of(txn)) for txn in ("renewed", "other"))
    for handle in (renewed, other):
        workers.first.handles.end(handle)
    workers.clock.now += 29
    again = of("renewed")
    workers.second.handles.open(again)
    workers.second.handles.let_in(again, 30.0)
    assert await workers.ask(renewed) is None  # packets arrive in order
    workers.clock.now += 1
    assert [await workers.ask(handle) for handle in (renewed, other)] == [None, Reason.NO_REQUEST_CONTEXT]


async def test_calls_are_counted_where_the_request_is_and_looking_is_no_call(workers: Workers) -> None:
    request = served(max_calls=2)
    handle = workers.open(request)
    assert await workers.ask(handle) is None
    request.count_call()
    assert await workers.ask(handle, count=True) is None
    assert await workers.ask(handle, count=True) is Reason.CALLS_EXHAUSTED
    assert request.calls_left == 0


async def test_a_request_that_ends_between_look_and_count_is_not_called_for(workers: Workers) -> None:
    handle = workers.open(served(max_calls=2))
    found = await workers.second.remote.resolve(0, handle)
    workers.first.handles.end(handle)
    counting = found.count_call()
    assert counting is not None
    with pytest.raises(Denied) as refused:
        await counting()
    assert refused.value.reason is Reason.NO_REQUEST_CONTEXT


async def test_a_worker_that_does_not_answer_is_no_permission(workers: Workers) -> None:
    with pytest.raises(Unavailable) as refused:
        await workers.second.remote.resolve(2, "C" + "x" * 43)
    assert refused.value.reason is Reason.NOT_READY


async def test_more_than_an_inbox_holds_waits_and_is_answered(workers: Workers) -> None:
    workers.second.remote.timeout_s = 30.0
    workers.inboxes[0].write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel gives its least
    handle = workers.open(served())
    asked = asyncio.gather(*(workers.ask(handle) for _ in range(200)))
    await asyncio.sleep(0)
    assert workers.second.remote._waiting[0]
    assert await asked == [None] * 200
    assert not workers.second.remote._waiting[0]


async def test_what_finds_a_full_inbox_of_one_who_never_reads_is_refused_and_nobody_is_stopped(
    workers: Workers,
) -> None:
    handle = "C" + "x" * 43
    refused = await asyncio.gather(*(workers.ask(handle, owner=2) for _ in range(6000)))
    assert set(refused) == {Reason.NOT_READY}
    assert await workers.ask(workers.open(served())) is None


async def test_what_waits_for_one_who_never_reads_is_bounded_in_bytes(workers: Workers) -> None:
    large = "x" * 100_000
    await asyncio.gather(*(workers.ask(large, owner=2) for _ in range(100)))
    waiting = sum(map(len, workers.second.remote._waiting[2]))
    assert 0.9 * MAX_WAITING_BYTES < waiting <= MAX_WAITING_BYTES


async def test_the_peer_of_a_request_is_proven_again_where_the_call_is_made(workers: Workers) -> None:
    request = served()
    request.guard = FakeGuard(fingerprint="ab" * 32)
    found = await workers.second.remote.resolve(0, workers.open(request))
    assert found.guard is not None
    assert found.guard.peer == request.guard.peer


async def test_a_peer_that_is_not_trusted_there_opens_nothing(workers: Workers) -> None:
    request = served()
    request.guard = FakeGuard()
    workers.second.trusts = False
    assert await workers.ask(workers.open(request)) is Reason.NO_REQUEST_CONTEXT
    assert await workers.ask(workers.open(served())) is None


async def test_a_handle_that_may_do_nothing_more_is_known_until_its_request_ends(workers: Workers) -> None:
    request = served()
    request.guard = FakeGuard()
    workers.second.trusts = False
    handle = workers.open(request)
    assert await workers.ask(handle) is Reason.NO_REQUEST_CONTEXT
    await workers.second.remote.find(0, handle)
    workers.first.handles.end(handle)
    with pytest.raises(Denied, match="no_request_context"):
        await workers.second.remote.find(0, handle)


async def test_a_request_goes_on_though_its_peers_certificate_has_run_out(workers: Workers) -> None:
    request = served()
    request.guard = FakeGuard(until=NOW - 1)
    assert await workers.ask(workers.open(request)) is None


async def test_the_largest_request_fits_into_a_packet(workers: Workers) -> None:
    request = served()
    request.guard = FakeGuard()
    request.guard.chain = (b"00" * 32, *(b"x" * 10_000 for _ in range(10)))
    assert await workers.ask(workers.open(request)) is None
