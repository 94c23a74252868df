"""Follows one stream of the Workload API for ever: connect, take messages, wait a little after each failure."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn

from sidecar.identity.base_source import Pause
from sidecar.identity.workload_client import WorkloadApiClient, WorkloadApiError

_MAX_QUEUED: Final = 16
_END: Final = object()


class Backoff:
    """Waits that double from the shortest to the longest, each shortened at random by up to half."""

    def __init__(self, shortest_s: float, longest_s: float) -> None:
        self._shortest_s = shortest_s
        self._longest_s = longest_s
        self._next_s = shortest_s

    def next_s(self) -> float:
        """Return the seconds to wait now."""
        wait_s = self._next_s
        self._next_s = min(2 * wait_s, self._longest_s)
        return wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret

    def reset(self) -> None:
        """Start over with the shortest wait."""
        self._next_s = self._shortest_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """One stream and its messages. ``take`` puts a message in place and returns True if it was good."""

    name: str
    method: str
    request: Any
    reply_type: Any
    take: Callable[[Any], Awaitable[bool]]
    lost: Callable[[WorkloadApiError], None]


async def follow(client: WorkloadApiClient, stream: Subscription, backoff: Backoff, pause: Pause) -> NoReturn:
    """Keep a stream open until cancelled. Every failure is retried, PERMISSION_DENIED too: entries come back.

    Messages are processed in order, and all of them before a failure is reported. This happens outside of the call:
    grpclib would cancel the processing halfway when the connection is lost.
    """
    while True:
        arrived: asyncio.Queue[Any] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:  # an error of either ends both
            group.create_task(_take_all(stream, arrived, backoff))
            failure = await client.stream(stream.method, stream.request, stream.reply_type, partial(_put, arrived))
            arrived.put_nowait(_END)
        stream.lost(failure)
        await pause(backoff.next_s())


async def _take_all(stream: Subscription, arrived: asyncio.Queue[Any], backoff: Backoff) -> None:
    while (message := await arrived.get()) is not _END:
        if await stream.take(message):
            backoff.reset()


def _put(arrived: asyncio.Queue[Any], message: Any) -> None:
    """Queue a message. Each is the full state, so the oldest may be dropped for it."""
    if arrived.qsize() >= _MAX_QUEUED:
        arrived.get_nowait()
    arrived.put_nowait(message)
