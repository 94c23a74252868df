from __future__ import annotations

import asyncio
import logging

import pytest

from sidecar.background import PartEndedError, Parts, run_until_stopped


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def returns() -> None:
    """Done, as a task group of no tasks is."""


async def fails() -> None:
    raise ValueError("boom")


async def is_cancelled() -> None:
    """Await a task that another task has cancelled."""
    gone = asyncio.get_running_loop().create_future()
    gone.cancel()
    await gone


@pytest.mark.parametrize("work", [returns, fails, is_cancelled])
async def test_a_part_that_ends_by_itself_is_an_error_and_is_told(
    work: object, caplog: pytest.LogCaptureFixture
) -> None:
    parts = Parts()
    parts.start("other", forever())
    parts.start("keys", work())  # type: ignore[operator]
    with pytest.raises(PartEndedError, match="keys has ended by itself"):
        await parts.run_until(asyncio.Event())
    (said,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert said.part == "keys"  # type: ignore[attr-defined]
    assert ("boom" in caplog.text) == (work is fails)
    await parts.close()


async def test_a_part_that_is_stopped_is_none() -> None:
    parts, stop = Parts(), asyncio.Event()
    one = parts.start("one", forever())
    parts.start("two", forever())
    parts.stop(one)
    parts.stop(one)
    asyncio.get_running_loop().call_soon(stop.set)
    await parts.run_until(stop)
    await parts.close()
    assert parts.error is None
    assert one.cancelled()


async def test_a_part_that_ends_while_the_process_drains_is_noticed_too() -> None:
    parts, stop = Parts(), asyncio.Event()
    stop.set()
    await parts.run_until(stop)
    ended = parts.start("identity", returns())
    await ended
    await parts.close()
    assert parts.error is not None
    assert parts.error.part == "identity"


async def test_a_part_that_has_ended_cannot_be_stopped_quietly() -> None:
    parts = Parts()
    ended = parts.start("identity", returns())
    ended.remove_done_callback(parts._notice)
    await ended
    parts.stop(ended)
    assert parts.error is not None


async def test_work_until_a_stop_rests_afterwards_and_its_own_end_is_an_end() -> None:
    stop = asyncio.Event()
    resting = asyncio.ensure_future(run_until_stopped(forever(), stop))
    stop.set()
    done, _ = await asyncio.wait([resting], timeout=0.01)
    assert not done
    resting.cancel()
    await run_until_stopped(returns(), asyncio.Event())
    with pytest.raises(ValueError, match="boom"):
        await run_until_stopped(fails(), asyncio.Event())
