from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Final

import pytest

from delegation_agent import carry, handle, serving
from delegation_agent.handles import require_isolated_threads, sole

USERS: Final = [f"handle-{number}" for number in range(200)]


def test_there_is_a_handle_within_a_request_alone() -> None:
    assert handle() is None
    with serving("alice"):
        assert handle() == "alice"
    assert handle() is None


def test_a_request_without_a_handle_does_not_find_that_of_another() -> None:
    with serving("alice"):
        with serving(None):
            assert handle() is None
        assert handle() == "alice"


def test_a_request_that_fails_leaves_no_handle() -> None:
    with pytest.raises(KeyError), serving("alice"):
        raise KeyError
    assert handle() is None


async def test_200_requests_at_once_keep_their_own_handles() -> None:
    async def call() -> str | None:
        return handle()

    async def request(held: str) -> list[str | None]:
        with serving(held):
            seen = [handle()]
            for _ in range(5):
                await asyncio.sleep(0)
                seen += [handle(), await asyncio.create_task(call()), await asyncio.to_thread(handle)]
            return seen

    found = await asyncio.gather(*map(request, USERS))
    assert [set(seen) for seen in found] == [{held} for held in USERS]


async def test_a_task_that_outlives_its_request_keeps_the_handle_of_that_request() -> None:
    answered = asyncio.Event()

    async def work() -> str | None:
        await answered.wait()
        return handle()

    with serving("alice"):
        task = asyncio.create_task(work())
    with serving("bob"):
        answered.set()
        assert await task == "alice"


async def test_an_executor_has_no_handle_except_the_one_that_work_carries() -> None:
    """The pool's one thread is made while alice is served."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        with serving("alice"):
            assert await loop.run_in_executor(pool, handle) is None
            assert await loop.run_in_executor(pool, carry(handle)) == "alice"
        with serving("bob"):
            assert await loop.run_in_executor(pool, handle) is None
            assert await loop.run_in_executor(pool, carry(handle)) == "bob"
        assert await loop.run_in_executor(pool, handle) is None


def test_200_users_on_a_pool_of_threads_keep_their_own_handles() -> None:
    def work(held: str) -> tuple[str, str | None]:
        return held, handle()

    futures = []
    with ThreadPoolExecutor(8) as pool:
        for held in USERS:
            with serving(held):
                futures.append(pool.submit(carry(work), held))
    assert [future.result() for future in futures] == [(held, held) for held in USERS]


def test_carried_work_of_no_request_hides_the_handle_where_it_runs() -> None:
    work = carry(handle)
    with serving("alice"):
        assert work() is None
        assert handle() == "alice"


async def test_a_coroutine_function_is_carried_until_its_end() -> None:
    async def work() -> str | None:
        await asyncio.sleep(0)
        return handle()

    with serving("alice"):
        carried = carry(work)
    with serving("bob"):
        assert await carried() == "alice"
        assert handle() == "bob"


async def test_a_worker_begun_in_a_request_keeps_its_handle_unless_it_is_begun_outside_of_one() -> None:
    """As documented: a shared worker is begun at start-up or under ``serving(None)``, and its items are carried."""

    async def worker(jobs: asyncio.Queue[object], seen: list[str | None]) -> None:
        while (job := await jobs.get()) is not None:
            assert callable(job)
            seen.append(job())

    async def run(*, outside: bool, carried: bool) -> list[str | None]:
        jobs: asyncio.Queue[object] = asyncio.Queue()
        seen: list[str | None] = []
        with serving("alice"), serving(None if outside else handle()):
            task = asyncio.create_task(worker(jobs, seen))
        with serving("bob"):
            jobs.put_nowait(carry(handle) if carried else handle)
        jobs.put_nowait(None)
        await task
        return seen

    assert await run(outside=False, carried=False) == ["alice"]
    assert await run(outside=True, carried=False) == [None]
    assert await run(outside=True, carried=True) == ["bob"]


@pytest.mark.parametrize(
    ("values", "held"),
    [
        (["aZ0-_~.+/=="], "aZ0-_~.+/=="),
        ([" a "], "a"),
        ([], None),
        ([""], None),
        (["a", "a"], None),
        (["a", "b"], None),
        (["a,b"], None),
        (["a, b"], None),
        (["a b"], None),
        (["a\r\nX: b"], None),
        (["ä"], None),
    ],
)
def test_only_one_well_formed_value_is_a_handle(values: list[str], held: str | None) -> None:
    assert sole(values) == held


def test_an_interpreter_whose_threads_inherit_a_handle_is_refused_with_the_fix() -> None:
    require_isolated_threads(SimpleNamespace(thread_inherit_context=0))
    require_isolated_threads(SimpleNamespace())
    with pytest.raises(RuntimeError, match="-X thread_inherit_context=0"):
        require_isolated_threads(SimpleNamespace(thread_inherit_context=1))
