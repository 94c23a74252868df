"""Names of the credentials that an agent shows: made once for each, off the loop, and not for a flood of them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sidecar.features.observing import shown_credentials
from sidecar.features.observing.shown_credentials import AT_ONCE, PER_S, ShownCredentials
from sidecar.observe.secret_names import secret_fingerprint
from sidecar.proxy.journeys.journey import Drive, Journey
from sidecar.wire.message import Request
from tests.proxy.agent_calls import Awaited
from tests.wire.written import request_with


class Shown:
    """The credentials of requests, one after another, and which thread made each fingerprint."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[int] = []
        self.now = 100.0
        self.tasks = Awaited()
        self.credentials = ShownCredentials(self.tasks, monotonic=lambda: self.now)
        monkeypatch.setattr(shown_credentials, "secret_fingerprint", self._made)

    def _made(self, secret: bytes) -> str | None:
        self.threads.append(threading.get_ident())
        return f"named-{secret.decode()}"

    async def of(self, *fields: tuple[bytes, bytes]) -> str | None:
        told: list[str | None] = []

        def journey() -> Journey[None]:
            told.append((yield from self.credentials.of(request_with(fields))))

        Drive(journey()).resume(None)
        await self.tasks.done()
        return told[0]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    return Shown(monkeypatch)


def key(number: int = 0) -> tuple[bytes, bytes]:
    return b"x-api-key", b"a-key-of-the-agent-%d" % number


async def test_a_fingerprint_is_made_once_in_a_thread_and_found_afterwards(shown: Shown) -> None:
    for _ in range(3):
        assert await shown.of(key()) == "x-api-key:named-a-key-of-the-agent-0"
    assert len(shown.threads) == 1
    assert threading.get_ident() not in shown.threads
    assert len(shown.tasks) == 0


async def test_no_secret_is_kept(shown: Shown) -> None:
    await shown.of(key())
    assert key()[1] not in shown.credentials._known
    assert len(shown.credentials._known) == 1


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ([], None),
        ([(b"x-api-key", b"short")], "x-api-key"),
        ([(b"authorization", b"Basic dXNlcjphLWxvbmctcGFzc3dvcmQ=")], "basic"),
        ([(b"cookie", b"session=a-long-value-of-it")], "cookie"),
        ([(b"x-functions-key", b"a-long-value-of-it")], "x-functions-key"),
    ],
)
async def test_what_could_be_guessed_or_differs_in_each_call_is_named_by_its_kind(
    shown: Shown, fields: list[tuple[bytes, bytes]], told: str | None
) -> None:
    assert await shown.of(*fields) == told
    assert shown.threads == []


async def test_a_flood_of_new_credentials_costs_little_and_known_ones_keep_their_names(shown: Shown) -> None:
    for number in range(1000):
        await shown.of(key(number))
    assert len(shown.threads) == AT_ONCE
    assert await shown.of(key(0)) == "x-api-key:named-a-key-of-the-agent-0"
    assert await shown.of(key(999)) == "x-api-key"
    shown.now += 1 / PER_S
    assert await shown.of(key(999)) == "x-api-key:named-a-key-of-the-agent-999"
    assert await shown.of(key(998)) == "x-api-key"


async def test_without_a_thread_it_is_named_by_its_kind(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(asyncio, "to_thread", failing)
    assert await shown.of(key()) == "x-api-key"


async def test_the_name_is_that_of_the_same_key_in_a_file() -> None:
    tasks = Awaited()
    told: list[str | None] = []

    def journey(credentials: ShownCredentials, head: Request) -> Journey[None]:
        told.append((yield from credentials.of(head)))

    Drive(journey(ShownCredentials(tasks), request_with([key()]))).resume(None)
    await tasks.done()
    assert told == [f"x-api-key:{secret_fingerprint(key()[1])}"]
