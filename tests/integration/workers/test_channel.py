from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from sidecar.workers.channel import UP, SilentError, ToParent, ToWorker

pytestmark = pytest.mark.integration

WAIT_S = 5.0


class Pair:
    def __init__(self, parent: ToWorker, listening: asyncio.Future[None]) -> None:
        self.parent = parent
        self.listening = listening
        self.orders: asyncio.Queue[str] = asyncio.Queue()
        self.worker: asyncio.Future[None]


@asynccontextmanager
async def pair(*, answering: bool = True) -> AsyncIterator[Pair]:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    parent = ToWorker(writer)
    made = Pair(parent, asyncio.ensure_future(parent.listen(reader)))
    worker = ToParent(theirs)
    if answering:
        answers = {"big": lambda: "x" * 1_000_000, "small": lambda: ["y"]}
        orders = {"stop": lambda: made.orders.put_nowait("stop")}
        made.worker = asyncio.ensure_future(worker.serve(answers, orders))
    yield made
    made.listening.cancel()
    if answering:
        made.worker.cancel()
        with suppress(asyncio.CancelledError):
            await made.worker
    theirs.close()
    with suppress(asyncio.CancelledError):
        await made.listening


async def test_questions_are_answered_each_with_its_own_answer() -> None:
    async with pair() as made:
        big, small = await asyncio.gather(made.parent.ask("big", WAIT_S), made.parent.ask("small", WAIT_S))
        assert (len(big), small) == (1_000_000, ["y"])
        assert made.parent.heard == {UP}


async def test_orders_are_obeyed() -> None:
    async with pair() as made:
        made.parent.tell("stop")
        assert await asyncio.wait_for(made.orders.get(), WAIT_S) == "stop"


async def test_who_gives_no_answer_is_silent() -> None:
    async with pair(answering=False) as made:
        with pytest.raises(SilentError):
            await made.parent.ask("small", 0.05)


async def test_a_worker_that_is_gone_is_silent_at_once() -> None:
    async with pair() as made:
        await made.parent.ask("small", WAIT_S)
        made.worker.cancel()
        with suppress(asyncio.CancelledError):
            await made.worker
        with pytest.raises(SilentError):
            await asyncio.wait_for(made.parent.ask("small", 60.0), WAIT_S)


async def test_a_worker_learns_that_its_parent_is_gone() -> None:
    async with pair() as made:
        await made.parent.ask("small", WAIT_S)
        made.listening.cancel()
        await asyncio.wait_for(made.worker, WAIT_S)
