from __future__ import annotations

import asyncio
import socket

import pytest

from sidecar.wire.dialer import Race, connect, interleaved
from tests.wire.loopback import WAIT_S

AT_ONCE, NEVER = 0.001, 3600.0  # delays until the next address is tried beside the first


@pytest.mark.parametrize(
    ("addresses", "order"),
    [
        ("a b", "a b"),
        (":a :b c d", ":a c :b d"),
        ("a b :c :d", "a :c b :d"),
        (":a :b :c d", ":a d :b :c"),
        ("a :b :c :d", "a :b :c :d"),
        ("a", "a"),
        ("", ""),
    ],
)
def test_families_take_turns(addresses: str, order: str) -> None:
    assert interleaved(addresses.split()) == order.split()


class Course:
    """Connects when a test says so."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.sockets: dict[str, socket.socket] = {}
        self.results: dict[str, asyncio.Future[None]] = {}
        self._changed = asyncio.Event()

    async def connect(self, address: str) -> socket.socket:
        self.tried.append(address)
        self._changed.set()
        await self.result(address)
        self.sockets[address] = socket.socket()
        return self.sockets[address]

    def result(self, address: str) -> asyncio.Future[None]:
        return self.results.setdefault(address, asyncio.get_running_loop().create_future())

    def succeed(self, *addresses: str) -> None:
        for address in addresses:
            self.result(address).set_result(None)

    def fail(self, address: str, error: OSError | None = None) -> None:
        self.result(address).set_exception(error or ConnectionRefusedError())

    async def wait_for(self, *tried: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while self.tried != list(tried):
                self._changed.clear()
                await self._changed.wait()

    def close(self) -> None:
        for made in self.sockets.values():
            made.close()


def race(course: Course, addresses: str, delay_s: float) -> tuple[Race, asyncio.Task[tuple[str, socket.socket]]]:
    one = Race(addresses.split(), course.connect, delay_s=delay_s)
    return one, asyncio.get_running_loop().create_task(one.win())


async def test_while_the_first_address_has_its_time_no_other_is_tried() -> None:
    course = Course()
    one, winning = race(course, "a b", NEVER)
    await course.wait_for("a")
    course.succeed("a")
    assert await winning == ("a", course.sockets["a"])
    assert (course.tried, one.beaten) == (["a"], [])
    course.close()


async def test_when_it_fails_the_next_one_is_tried_at_once() -> None:
    course = Course()
    course.fail("a")
    course.succeed("b")
    one, winning = race(course, "a b c", NEVER)
    assert await winning == ("b", course.sockets["b"])
    assert (course.tried, one.beaten) == (["a", "b"], ["a"])
    course.close()


async def test_when_it_is_silent_the_next_one_is_tried_beside_it_and_the_loser_is_given_up() -> None:
    course = Course()
    one, winning = race(course, "a b", AT_ONCE)
    await course.wait_for("a", "b")
    course.succeed("b")
    assert await winning == ("b", course.sockets["b"])
    assert one.beaten == ["a"]
    assert course.results["a"].cancelled()
    course.close()


async def test_the_first_address_may_still_win() -> None:
    course = Course()
    _, winning = race(course, "a b", AT_ONCE)
    await course.wait_for("a", "b")
    course.succeed("a")
    assert await winning == ("a", course.sockets["a"])
    course.close()


async def test_of_two_that_connect_together_one_is_closed() -> None:
    course = Course()
    _, winning = race(course, "a b", AT_ONCE)
    await course.wait_for("a", "b")
    course.succeed("a", "b")
    address, won = await winning
    await asyncio.sleep(0)
    other = course.sockets["b" if address == "a" else "a"]
    assert won.fileno() != -1
    assert other.fileno() == -1
    course.close()


async def test_when_all_fail_the_last_failure_is_told() -> None:
    course = Course()
    course.fail("a")
    course.fail("b", OSError("no route"))
    one, winning = race(course, "a b", NEVER)
    with pytest.raises(OSError, match="no route"):
        await winning
    assert one.beaten == ["a", "b"]


async def test_a_race_that_is_given_up_leaves_nothing_running() -> None:
    course = Course()
    one, winning = race(course, "a b", AT_ONCE)
    await course.wait_for("a", "b")
    winning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await winning
    assert all(result.cancelled() for result in course.results.values())
    assert one.beaten == ["a", "b"]


async def test_a_bug_is_no_failed_address() -> None:
    course = Course()
    course.result("a").set_exception(RuntimeError("bug"))
    with pytest.raises(RuntimeError, match="bug"):
        await race(course, "a b", NEVER)[1]


async def test_a_port_nobody_listens_on_is_an_error_and_its_socket_is_closed() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(OSError):  # noqa: PT011 - whatever the system calls it
            await connect("127.0.0.1", unused.getsockname()[1])
