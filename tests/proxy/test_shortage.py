from __future__ import annotations

import asyncio
import logging

import pytest

from sidecar.proxy.journeys.caches import HANDLES, LEFT_PART, Caches
from sidecar.proxy.listening.listener import Listener
from sidecar.proxy.listening.memory_pressure import Memory
from sidecar.proxy.listening.shortage import Shortage
from sidecar.wire.pool import UpstreamPool

MIB = 1024 * 1024
LEFT = 100 // LEFT_PART  # MiB, of a limit of a hundred


class Told(Listener):
    """WriteBatch down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def tighten(self, *, at_once: bool) -> None:
        self.told.append("tighten at once" if at_once else "tighten")

    def brace(self) -> None:
        self.told.append("brace")

    def relax(self) -> None:
        self.told.append("relax")


class ToldPool(UpstreamPool):
    """WriteBatch down what it is told."""

    def __init__(self) -> None:
        self.told: list[bool] = []

    def hold(self, *, little: bool) -> None:
        self.told.append(little)


class Cached:
    """A cache of this many MiB, in use until shed."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.bytes = 0
        self.hits = self.misses = 0
        self.evicted = 0

    def sweep(self, now: float) -> None:
        pass

    def shed(self, to_bytes: int) -> None:
        freed = max(0, self.bytes - to_bytes)
        self.bytes -= freed
        self._bench.used -= freed


class Bench:
    def __init__(self, *, enforced: bool = False) -> None:
        self.used = 0
        self.given = 0
        self.freed = 0
        self.listeners = Told(), Told()
        self.pool = ToldPool()
        self.prepared = 0
        self.cache, self.handles = Cached(self), Cached(self)
        self.shortage = Shortage(
            Memory(100 * MIB, lambda: self.used, enforced=enforced),
            self.listeners,
            [self.pool],
            Caches({"verdicts": lambda: self.cache, HANDLES: lambda: self.handles}, clock=lambda: 0.0),
            give=self._give,
            prepare=self._prepare,
        )

    def _give(self) -> None:
        self.given += 1
        self.used -= self.freed

    def _prepare(self) -> None:
        self.prepared += 1

    def look(self, used_mib: int) -> None:
        self.used = used_mib * MIB
        self.shortage.look()

    @property
    def told(self) -> list[str]:
        first, second = self.listeners
        assert first.told == second.told
        return first.told


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_while_there_is_memory_nothing_is_done(bench: Bench) -> None:
    for _ in range(3):
        bench.look(60)
    assert (bench.told, bench.given, bench.prepared) == ([], 0, 0)


def test_while_it_is_nearly_short_nobody_goes_and_listeners_are_told_once_until_it_is_over(bench: Bench) -> None:
    for used in (61, 80, 65, 60, 60, 61):
        bench.look(used)
    assert (bench.told, bench.prepared) == (["brace", "relax", "brace"], 1)
    assert bench.pool.told == [True, True, True, False, False, True]


def test_while_it_is_nearly_short_what_is_free_is_given_back_now_and_then(bench: Bench) -> None:
    for _ in range(41):
        bench.look(61)
    assert bench.given == 3


@pytest.mark.parametrize(("used_mib", "often"), [(60, False), (61, True), (81, True)])
async def test_from_nearly_short_on_it_looks_more_often(
    bench: Bench, used_mib: int, often: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acting late would let a flood fill the rest."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        raise asyncio.CancelledError

    bench.used = used_mib * MIB
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await bench.shortage.run()
    assert slept == [0.05 if often else 0.25]


def test_while_it_is_short_both_listeners_are_told_at_each_look_and_once_when_it_is_over(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sidecar")
    for used in (81, 75, 85, 86, 70, 70, 60):
        bench.look(used)
    assert bench.told == ["tighten", "tighten", "tighten", "tighten at once", "brace", "relax"]
    said = [(one.message, one.__dict__["used_mib"], one.__dict__["limit_mib"]) for one in caplog.records]
    assert said == [("memory is short: new connections are refused", 81, 100), ("memory is no longer short", 70, 100)]


def test_what_was_freed_and_not_given_back_is_no_shortage(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sidecar")
    bench.freed = 30 * MIB
    bench.look(90)
    assert bench.given == 1
    assert bench.told == []  # the next measurement found enough
    assert not caplog.records


@pytest.mark.parametrize(
    ("used_mib", "cache_mib", "handles_mib", "left", "told"),
    [
        pytest.param(80, 40, 40, (40, 40), ["brace"], id="nothing is shed while it is nearly short"),
        pytest.param(81, 40, 40, (LEFT, 40), [], id="caches are enough"),
        pytest.param(110, 20, 40, (LEFT, LEFT), [], id="lingering handles are enough"),
        pytest.param(110, 10, 10, (LEFT, LEFT), ["tighten at once"], id="connections are left"),
        pytest.param(81, 1, 1, (1, 1), ["tighten"], id="what is in use stays"),
    ],
)
def test_caches_are_shed_before_lingering_handles_and_those_before_connections(
    bench: Bench, used_mib: int, cache_mib: int, handles_mib: int, left: tuple[int, int], told: list[str]
) -> None:
    bench.cache.bytes, bench.handles.bytes = cache_mib * MIB, handles_mib * MIB
    bench.look(used_mib)
    assert (bench.cache.bytes // MIB, bench.handles.bytes // MIB) == left
    assert bench.told == told


@pytest.mark.parametrize(
    ("used_mib", "cache_mib", "handles_mib", "enforced", "room", "left"),
    [
        pytest.param(47, 20, 20, True, True, (20, 20), id="enough"),
        pytest.param(48, 20, 20, True, True, (LEFT, 20), id="caches are enough"),
        pytest.param(80, 20, 20, True, True, (LEFT, LEFT), id="lingering handles are enough"),
        pytest.param(90, 20, 20, True, False, (LEFT, LEFT), id="too little"),
        pytest.param(90, 20, 20, False, True, (20, 20), id="nobody enforces the limit"),
    ],
)
def test_another_process_is_given_room_or_told_that_there_is_none(
    used_mib: int, cache_mib: int, handles_mib: int, enforced: bool, room: bool, left: tuple[int, int]
) -> None:
    bench = Bench(enforced=enforced)
    bench.used = used_mib * MIB
    bench.cache.bytes, bench.handles.bytes = cache_mib * MIB, handles_mib * MIB
    assert bench.shortage.room_for(48 * MIB) is room
    assert (bench.cache.bytes // MIB, bench.handles.bytes // MIB) == left
    assert bench.told == []
