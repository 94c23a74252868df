from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.identity.workload_client import WorkloadApiClient, WorkloadApiError
from sidecar.identity.workload_stream import Backoff, Subscription, follow


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(0.1, 1.0)
    for longest in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        assert longest / 2 <= backoff.next_s() <= longest


def test_a_good_update_starts_the_waits_over() -> None:
    backoff = Backoff(0.1, 1.0)
    for _ in range(5):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() <= 0.1


def test_waits_of_many_do_not_march_in_step() -> None:
    assert len({Backoff(0.1, 1.0).next_s() for _ in range(20)}) > 10


@given(st.integers(min_value=1, max_value=60))
def test_no_wait_is_longer_than_the_longest(number: int) -> None:
    backoff = Backoff(0.1, 1.0)
    assert all(0 < backoff.next_s() <= 1.0 for _ in range(number))


class Streaming:
    """A client whose stream yields some messages, then fails or stays open."""

    def __init__(self, messages: list[object], *, ends: bool) -> None:
        self._messages = messages
        self._ends = ends

    async def stream(self, _method: str, _request: object, _type: object, put: Callable[[Any], None]) -> Any:
        for message in self._messages:
            put(message)
        if not self._ends:
            await asyncio.Event().wait()
        return WorkloadApiError("lost")


def following(client: Streaming, happened: list[object], *, fails_at: object = None) -> Coroutine[Any, Any, NoReturn]:
    async def take(message: object) -> bool:
        await asyncio.sleep(0)
        if message == fails_at:
            raise OSError(errno.EMFILE, "too many open files")
        happened.append(message)
        return True

    async def pause(_seconds: float) -> None:
        raise asyncio.CancelledError

    stream = Subscription(
        name="x", method="m", request=None, reply_type=None, take=take, lost=lambda error: happened.append(str(error))
    )
    return follow(cast("WorkloadApiClient", client), stream, Backoff(0.1, 1.0), pause)


async def test_messages_are_taken_in_order_and_all_of_them_before_the_loss_is_told() -> None:
    happened: list[object] = []
    with pytest.raises(asyncio.CancelledError):
        await following(Streaming([1, 2, 3], ends=True), happened)
    assert happened == [1, 2, 3, "lost"]


async def test_of_many_messages_the_newest_are_taken() -> None:
    happened: list[object] = []
    with pytest.raises(asyncio.CancelledError):
        await following(Streaming(list(range(1000)), ends=True), happened)
    *taken, lost = happened
    assert lost == "lost"
    assert taken == list(range(1000))[-len(taken) :]
    assert len(taken) < 20


@pytest.mark.parametrize("usable", [True, False])
async def test_only_a_usable_message_starts_the_waits_over(usable: bool) -> None:
    async def take(_message: object) -> bool:
        return usable

    waits: list[float] = []

    async def pause(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 5:
            raise asyncio.CancelledError

    stream = Subscription(name="x", method="m", request=None, reply_type=None, take=take, lost=lambda _: None)
    client = cast("WorkloadApiClient", Streaming([1], ends=True))
    with pytest.raises(asyncio.CancelledError):
        await follow(client, stream, Backoff(0.1, 1.0), pause)
    assert all(wait <= 0.1 for wait in waits) is usable


async def test_an_unexpected_error_ends_the_stream_and_is_raised() -> None:
    """Otherwise the stream would stay open, and no update would be processed any more."""
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(following(Streaming([1, 2], ends=False), [], fails_at=2), 10)
    assert raised.group_contains(OSError)
