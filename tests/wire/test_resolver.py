from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from delegation_core.errors import Reason, Unavailable
from sidecar.wire.resolver import MAX_ADDRESSES, Lookup, Resolver, ResolverSettings, is_address, look_up, new_counts
from tests.wire.bench import Clock
from tests.wire.loopback import WAIT_S

NAME = "crm.mesh"
GONE = socket.gaierror(socket.EAI_NONAME, "no such name")
NO_ANSWER = socket.gaierror(socket.EAI_AGAIN, "try again")


class Names:
    """A name server under a test's control. A name that is held is not answered until it is released."""

    def __init__(self) -> None:
        self.answers: dict[str, Sequence[str] | Exception] = {NAME: ["10.0.0.1", "10.0.0.2"]}
        self.asked: list[str] = []
        self.held: dict[str, threading.Event] = {}

    def hold(self, host: str = NAME) -> threading.Event:
        return self.held.setdefault(host, threading.Event())

    def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host in self.held:
            assert self.held[host].wait(WAIT_S)
        answer = self.answers.get(host, GONE)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Bench:
    def __init__(self, *, lookup: Lookup | None = None, **settings: Any) -> None:
        self.names = Names()
        self.clock = Clock()
        self.counts = new_counts()
        self.resolver = Resolver(
            ResolverSettings(**settings), counts=self.counts, clock=self.clock, lookup=lookup or self.names
        )

    async def ask(self, host: str = NAME) -> tuple[str, ...]:
        async with asyncio.timeout(WAIT_S):
            return await self.resolver.addresses(host)

    async def reason(self, host: str = NAME) -> Reason:
        with pytest.raises(Unavailable) as refused:
            await self.ask(host)
        return refused.value.reason

    async def idle(self) -> None:
        async with asyncio.timeout(WAIT_S):
            while self.resolver.running:  # noqa: ASYNC110 - a thread tells nobody
                await asyncio.sleep(0.001)


async def test_a_name_is_looked_up_once_while_its_addresses_are_fresh() -> None:
    bench = Bench(cache_s=30)
    assert await bench.ask() == ("10.0.0.1", "10.0.0.2")
    bench.clock.now += 29.9
    assert await bench.ask() == ("10.0.0.1", "10.0.0.2")
    assert bench.names.asked == [NAME]


async def test_of_a_name_with_thousands_of_addresses_some_are_kept() -> None:
    bench = Bench()
    bench.names.answers[NAME] = [f"10.0.{number // 250}.{number % 250}" for number in range(4000)]
    assert await bench.ask() == tuple(f"10.0.0.{number}" for number in range(MAX_ADDRESSES))


async def test_addresses_in_doubt_are_looked_up_anew_and_not_more_often_than_a_failure() -> None:
    bench = Bench(cache_s=30, failure_cache_s=1)
    assert await bench.ask() == ("10.0.0.1", "10.0.0.2")
    bench.resolver.doubt(NAME)
    assert await bench.ask() == ("10.0.0.1", "10.0.0.2")
    assert bench.names.asked == [NAME]
    bench.names.answers[NAME] = ["10.0.0.9"]
    bench.clock.now += 1
    assert await bench.ask() == ("10.0.0.9",)
    assert bench.names.asked == [NAME] * 2


async def test_addresses_in_doubt_still_serve_where_no_others_can_be_had() -> None:
    bench = Bench(cache_s=30, failure_cache_s=1, max_stale_s=300)
    await bench.ask()
    bench.names.answers[NAME] = NO_ANSWER
    bench.resolver.doubt(NAME)
    bench.clock.now += 1
    assert await bench.ask() == ("10.0.0.1", "10.0.0.2")


async def test_a_name_that_nobody_asked_for_is_not_in_doubt() -> None:
    bench = Bench()
    bench.resolver.doubt("unknown.mesh")
    assert bench.names.asked == []


async def test_after_that_it_is_looked_up_again() -> None:
    bench = Bench(cache_s=30)
    await bench.ask()
    bench.names.answers[NAME] = ["10.0.0.3"]
    bench.clock.now += 30
    assert await bench.ask() == ("10.0.0.3",)
    assert bench.counts == {"ok": 2, "failed": 0, "timeout": 0, "stale": 0}


@pytest.mark.parametrize("literal", ["127.0.0.1", "::1", "2001:db8::7"])
async def test_an_ip_literal_is_its_own_address_and_asks_nobody(literal: str) -> None:
    bench = Bench()
    assert await bench.ask(literal) == (literal,)
    assert bench.names.asked == []


async def test_however_many_ask_for_a_name_one_lookup_is_made() -> None:
    bench = Bench()
    answer = bench.names.hold()
    asking = [asyncio.ensure_future(bench.ask()) for _ in range(100)]
    await asyncio.sleep(0)
    answer.set()
    assert set(await asyncio.gather(*asking)) == {("10.0.0.1", "10.0.0.2")}
    assert bench.names.asked == [NAME]


async def test_a_lookup_outlives_the_caller_who_began_it() -> None:
    bench = Bench()
    answer = bench.names.hold()
    first, second = asyncio.ensure_future(bench.ask()), asyncio.ensure_future(bench.ask())
    await asyncio.sleep(0)
    first.cancel()
    answer.set()
    assert await second == ("10.0.0.1", "10.0.0.2")


@pytest.mark.parametrize("error", [GONE, NO_ANSWER, OSError("no descriptors"), UnicodeError("label too long")])
async def test_a_name_without_address_is_unreachable_and_asked_for_again_after_a_second(error: Exception) -> None:
    bench = Bench(failure_cache_s=1)
    bench.names.answers[NAME] = error
    assert await bench.reason() is Reason.UPSTREAM_UNREACHABLE
    bench.clock.now += 0.9
    assert await bench.reason() is Reason.UPSTREAM_UNREACHABLE
    assert bench.names.asked == [NAME]
    bench.names.answers[NAME] = ["10.0.0.1"]
    bench.clock.now += 0.1
    assert await bench.ask() == ("10.0.0.1",)
    assert bench.counts == {"ok": 1, "failed": 1, "timeout": 0, "stale": 0}


async def test_a_name_whose_addresses_are_all_unusable_is_unreachable() -> None:
    bench = Bench()
    bench.names.answers[NAME] = []
    assert await bench.reason() is Reason.UPSTREAM_UNREACHABLE


async def test_each_caller_gets_an_error_of_its_own() -> None:
    bench = Bench()
    bench.names.answers[NAME] = GONE
    one, other = await asyncio.gather(bench.ask(), bench.ask(), return_exceptions=True)
    assert isinstance(one, Unavailable)
    assert one is not other


async def test_while_there_is_no_answer_the_last_good_addresses_serve_but_not_for_ever() -> None:
    bench = Bench(cache_s=30, max_stale_s=300)
    await bench.ask()
    bench.names.answers[NAME] = NO_ANSWER
    bench.clock.now += 329.9
    assert await bench.ask() == ("10.0.0.1", "10.0.0.2")
    assert bench.counts["stale"] == 1
    bench.clock.now += 0.1
    assert await bench.reason() is Reason.UPSTREAM_UNREACHABLE


async def test_the_addresses_of_a_name_that_is_gone_serve_no_longer() -> None:
    bench = Bench(cache_s=30, max_stale_s=300)
    await bench.ask()
    bench.names.answers[NAME] = GONE
    bench.clock.now += 30
    assert await bench.reason() is Reason.UPSTREAM_UNREACHABLE
    bench.names.answers[NAME] = NO_ANSWER
    bench.clock.now += 1
    assert await bench.reason() is Reason.UPSTREAM_UNREACHABLE


async def test_a_lookup_that_hangs_is_waited_for_until_the_deadline() -> None:
    bench = Bench(timeout_s=0.02)
    answer = bench.names.hold()
    assert await bench.reason() is Reason.UPSTREAM_TIMEOUT
    assert bench.counts["timeout"] == 1
    answer.set()
    await bench.idle()
    assert await bench.ask() == ("10.0.0.1", "10.0.0.2")
    assert bench.names.asked == [NAME]


async def test_nobody_waits_for_a_lookup_that_hangs_already_and_no_second_thread_is_spent_on_it() -> None:
    bench = Bench(timeout_s=2)
    answer = bench.names.hold()
    waiting = asyncio.ensure_future(bench.ask())
    await asyncio.sleep(0)
    bench.clock.now += 2
    for _ in range(100):
        assert await bench.reason() is Reason.UPSTREAM_TIMEOUT
    assert bench.resolver.running == 1
    answer.set()
    assert await waiting == ("10.0.0.1", "10.0.0.2")


async def test_while_a_lookup_hangs_the_last_good_addresses_serve_at_once() -> None:
    bench = Bench(timeout_s=0.02, cache_s=30)
    await bench.ask()
    answer = bench.names.hold()
    bench.clock.now += 30
    assert await bench.ask() == ("10.0.0.1", "10.0.0.2")
    bench.clock.now += 2
    assert await bench.ask() == ("10.0.0.1", "10.0.0.2")
    assert bench.counts == {"ok": 1, "failed": 0, "timeout": 2, "stale": 2}
    answer.set()
    await bench.idle()


async def test_a_thread_that_hangs_for_good_is_given_up_and_the_name_lives_on() -> None:
    bench = Bench(timeout_s=0.02)
    answer = bench.names.hold()
    assert await bench.reason() is Reason.UPSTREAM_TIMEOUT
    del bench.names.held[NAME]
    bench.names.answers[NAME] = ["10.0.0.9"]
    bench.clock.now += 30
    assert await bench.ask() == ("10.0.0.9",)
    assert bench.resolver.running == 1
    answer.set()
    await bench.idle()


async def test_a_thread_that_was_given_up_and_comes_back_ends_no_lookup_but_its_own() -> None:
    bench = Bench(timeout_s=0.02)
    first, second = bench.names.hold(), threading.Event()
    assert await bench.reason() is Reason.UPSTREAM_TIMEOUT
    bench.names.held[NAME] = second
    bench.names.answers[NAME] = NO_ANSWER
    bench.clock.now += 30
    assert await bench.reason() is Reason.UPSTREAM_TIMEOUT
    first.set()
    async with asyncio.timeout(WAIT_S):
        while bench.resolver.running == 2:  # noqa: ASYNC110 - a thread tells nobody
            await asyncio.sleep(0.001)
    bench.clock.now += 1
    await bench.reason()  # by the lookup under way
    assert bench.names.asked == [NAME, NAME]
    second.set()
    await bench.idle()


async def test_a_name_that_waited_so_long_that_it_waits_twice_is_looked_up_once() -> None:
    bench = Bench(max_lookups=1, timeout_s=0.02)
    bench.names.answers["other.mesh"] = ["10.0.0.7"]
    answer = bench.names.hold()
    assert await bench.reason() is Reason.UPSTREAM_TIMEOUT
    for _ in range(2):
        assert await bench.reason("other.mesh") is Reason.UPSTREAM_TIMEOUT
        bench.clock.now += 30
    answer.set()
    await bench.idle()
    assert bench.names.asked == [NAME, "other.mesh"]


async def test_threads_are_bounded_and_names_wait_their_turn() -> None:
    bench = Bench(max_lookups=2)
    hosts = [f"{number}.mesh" for number in range(6)]
    held = [bench.names.hold(host) for host in hosts]
    bench.names.answers = {host: [f"10.0.0.{host[0]}"] for host in hosts}
    asking = [asyncio.ensure_future(bench.ask(host)) for host in hosts]
    await asyncio.sleep(0)
    assert bench.resolver.running == 2
    for event in held:
        event.set()
    assert await asyncio.gather(*asking) == [(f"10.0.0.{number}",) for number in range(6)]
    assert bench.resolver.running == 0


async def test_when_every_thread_hangs_other_names_end_at_the_deadline_and_literals_not_at_all() -> None:
    bench = Bench(max_lookups=1, timeout_s=0.02)
    bench.names.answers["other.mesh"] = ["10.0.0.7"]
    answer = bench.names.hold()
    assert await bench.reason() is Reason.UPSTREAM_TIMEOUT
    assert await bench.reason("other.mesh") is Reason.UPSTREAM_TIMEOUT
    assert await bench.ask("10.0.0.9") == ("10.0.0.9",)
    answer.set()
    await bench.idle()
    assert await bench.ask("other.mesh") == ("10.0.0.7",)


async def test_a_bug_in_a_lookup_ends_those_who_wait_for_it_and_the_next_call_asks_anew() -> None:
    answers: list[Exception | list[str]] = [RuntimeError("bug"), ["10.0.0.1"]]

    def lookup(_host: str) -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    bench = Bench(lookup=lookup)
    with pytest.raises(RuntimeError, match="bug"):
        await bench.ask()
    assert await bench.ask() == ("10.0.0.1",)


async def test_when_the_system_gives_no_thread_the_name_cannot_be_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    bench = Bench(max_lookups=1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        assert await bench.reason() is Reason.UPSTREAM_UNREACHABLE
    bench.clock.now += 1
    assert await bench.ask() == ("10.0.0.1", "10.0.0.2")


def test_a_lookup_that_ends_after_its_loop_is_nobodys() -> None:
    bench = Bench(timeout_s=0.01)
    answer = bench.names.hold()
    assert asyncio.run(bench.reason()) is Reason.UPSTREAM_TIMEOUT
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "resolver"]
    assert thread.daemon  # a process that ends does not wait for it
    answer.set()
    thread.join(WAIT_S)
    assert not thread.is_alive()


@pytest.mark.parametrize("name", ["timeout_s", "cache_s", "failure_cache_s", "max_stale_s", "max_lookups"])
def test_there_is_no_way_to_say_no_limit(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ResolverSettings(**{name: 0})


def test_the_system_is_asked() -> None:
    assert set(look_up("localhost")) <= {"127.0.0.1", "::1"}
    with pytest.raises(UnicodeError):
        look_up("a" * 64)


def test_link_local_addresses_are_left_out_and_doubles_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(0, 0, 0, "", (text, 0)) for text in ("fe80::1%eth0", "10.0.0.1", "10.0.0.1", "::1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: rows)
    assert look_up(NAME) == ["10.0.0.1", "::1"]


@pytest.mark.parametrize(("host", "literal"), [("10.0.0.1", True), ("::1", True), ("localhost", False), ("1.2", False)])
def test_what_needs_no_lookup(host: str, literal: bool) -> None:
    assert is_address(host) is literal
