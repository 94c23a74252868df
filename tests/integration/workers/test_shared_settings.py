"""Settings of several workers are loaded once, and in force in all of them or in none."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import ConfigError, Problem
from sidecar.config.loader import LOADING_BYTES, LOADING_FACTOR, Loaded, SettingsFiles
from sidecar.file_watch import FileWatcher
from sidecar.workers.channel import UP, ToParent, ToWorker
from sidecar.workers.shared_settings import COMMIT, COUNT, EVENT, PREPARE, REFUSE, ROOM, Outcomes, SharedSettings
from tests.integration.world import PATIENCE_S, until

pytestmark = pytest.mark.integration

FILES = SettingsFiles("sidecar", Path("/nowhere/sidecar.yaml"))
WRONG = Problem("keys of https://new.example", "cannot be fetched", "check jwks")


class Version(int):
    """Stands for settings: a number."""

    def needs_restart(self, fresh: int) -> list[Problem]:
        return [Problem("probe", "needs a restart", "restart")] if fresh < 0 else []


class Crew:
    """Four workers that note what they are told, and the settings that they share."""

    def __init__(self) -> None:
        self.lines: list[ToWorker] = []
        self.ends: list[asyncio.Future[None]] = []
        self.prepared: list[Version | None] = []
        self.serving: list[Version] = []
        self.outcomes: list[list[tuple[Any, ...]]] = []
        self.refusing: dict[int, bool] = {}  # the worker's number: True if it may pass
        self.silent: asyncio.Event | None = None
        self.room_bytes = 1 << 40
        self.version = Version(1)
        self.loads: list[int] = []
        self.problem: ConfigError | None = None
        self.loading = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        loaded: Loaded[Any] = Loaded(Version(1), FILES, FILES.fingerprint())
        self.settings = SharedSettings(loaded, {}, lambda: self.lines, self.load)
        self.watcher = FileWatcher([self.settings.watched()], Outcomes(lambda: self.lines), poll_s=600)

    async def load(self, files: SettingsFiles, _environ: Mapping[str, str]) -> Loaded[Any]:
        found = self.version
        self.loads.append(found)
        self.loading.set()
        await self.go_on.wait()
        if self.problem is not None:
            raise self.problem
        return Loaded(found, files, FILES.fingerprint())

    async def open(self, stack: AsyncExitStack) -> None:
        number = len(self.lines)
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        line = ToWorker(writer)
        self.lines.append(line)
        self.prepared.append(None)
        self.serving.append(Version(1))
        self.outcomes.append([])

        async def prepare(fresh: Version) -> object:
            if self.silent is not None and number == 3:
                self.silent.set()
                await asyncio.get_running_loop().create_future()
            if number in self.refusing:
                return (WRONG,), self.refusing[number]
            self.prepared[number] = fresh
            return None

        def commit() -> None:
            fresh = self.prepared[number]
            assert fresh is not None
            self.serving[number], self.prepared[number] = fresh, None

        def refuse(problems: tuple[Problem, ...]) -> None:
            self.prepared[number] = None
            self.outcomes[number].append(problems)

        worker = ToParent(theirs).serve(
            {PREPARE: prepare, ROOM: lambda size: size <= self.room_bytes},
            {
                COMMIT: commit,
                REFUSE: refuse,
                EVENT: lambda event, _detail: self.outcomes[number].append((event,)),
                COUNT: lambda what, ok: self.outcomes[number].append((what, ok)),
            },
        )
        self.ends.append(asyncio.ensure_future(worker))
        for task in (asyncio.ensure_future(line.listen(reader)), self.ends[number]):
            stack.push_async_callback(_end, task)
        await until(lambda: UP in line.heard)

    async def told(self, *last: tuple[Any, ...]) -> None:
        """Wait until the last that each living worker noted is this."""
        living = [one for one, end in zip(self.outcomes, self.ends, strict=True) if not end.done()]
        await until(lambda: all(tuple(one[-len(last) :]) == last for one in living))


async def _end(task: asyncio.Future[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@asynccontextmanager
async def crew() -> AsyncIterator[Crew]:
    made = Crew()
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await made.open(stack)
        watching = asyncio.ensure_future(made.watcher.run())
        stack.push_async_callback(_end, watching)
        yield made


async def reload_to(made: Crew, version: int) -> None:
    made.version = Version(version)
    await asyncio.wait_for(made.settings.reload(), PATIENCE_S)


async def test_a_storm_of_reloads_costs_one_load_more_and_ends_in_the_newest_state_everywhere() -> None:
    async with crew() as made:
        made.go_on.clear()
        made.watcher.wake()
        await made.loading.wait()
        for version in range(2, 22):
            made.version = Version(version)
            made.watcher.wake()
        made.go_on.set()
        await until(lambda: made.serving == [21] * 4)
        assert made.loads == [1, 21]
        await made.told(("settings", True), ("config.reloaded",))
        assert made.outcomes == [[("settings", True), ("config.reloaded",)] * 2] * 4


@pytest.mark.parametrize("transient", [True, False])
@pytest.mark.parametrize("number", range(4))
async def test_settings_that_one_worker_refuses_are_served_by_none(number: int, *, transient: bool) -> None:
    async with crew() as made:
        made.refusing = {number: transient}
        with pytest.raises(ConfigError) as refused:
            await reload_to(made, 2)
        assert (refused.value.problems, refused.value.transient) == ((WRONG,), transient)
        await made.told((WRONG,))
        assert (made.serving, made.prepared) == ([1] * 4, [None] * 4)
        in_force: object = made.settings.settings
        assert in_force == Version(1)
        made.refusing = {}
        await reload_to(made, 2)
        await until(lambda: made.serving == [2] * 4)


async def test_a_worker_that_dies_while_it_prepares_keeps_all_from_serving_and_the_next_attempt_does_without() -> None:
    async with crew() as made:
        made.silent = asyncio.Event()
        made.version = Version(2)
        reloading = asyncio.ensure_future(made.settings.reload())
        await made.silent.wait()
        made.ends[3].cancel()
        with pytest.raises(ConfigError, match="not prepared by a worker in time") as refused:
            await asyncio.wait_for(reloading, PATIENCE_S)
        assert refused.value.transient
        await made.told(refused.value.problems)
        assert made.serving == [1] * 4
        made.lines.pop()
        await reload_to(made, 2)
        await until(lambda: made.serving == [2, 2, 2, 1])


@pytest.mark.parametrize("cause", ["no room", "a problem", "a restart"])
async def test_settings_that_cannot_be_loaded_reach_no_worker_and_each_says_why(cause: str) -> None:
    async with crew() as made:
        made.room_bytes = 0 if cause == "no room" else made.room_bytes
        made.problem = ConfigError([WRONG]) if cause == "a problem" else None
        with pytest.raises(ConfigError) as refused:
            await reload_to(made, -2 if cause == "a restart" else 2)
        await made.told(refused.value.problems)
        assert (made.serving, made.prepared) == ([1] * 4, [None] * 4)
        assert len(made.loads) == (cause != "no room")


@pytest.mark.parametrize("short", [1, 0])
async def test_room_is_required_for_the_loader_and_then_for_a_second_version_in_each_worker(
    short: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sidecar.yaml"
    path.write_bytes(b"#" * (LOADING_BYTES // LOADING_FACTOR))  # four of these take more than one and the loader
    monkeypatch.setattr("tests.integration.workers.test_shared_settings.FILES", SettingsFiles("sidecar", path))
    async with crew() as made:
        made.room_bytes = 4 * LOADING_FACTOR * path.stat().st_size - short
        with pytest.raises(ConfigError, match="is in force in no worker") if short else nullcontext():
            await reload_to(made, 2)
        assert made.loads == [2]
        await until(lambda: made.serving == [1 if short else 2] * 4)


async def test_a_worker_that_starts_during_a_reload_begins_with_its_outcome() -> None:
    async with crew() as made:
        made.go_on.clear()
        made.version = Version(2)
        reloading = asyncio.ensure_future(made.settings.reload())
        await made.loading.wait()
        begun: list[Any] = []

        async def begin() -> None:
            async with made.settings.steady(successor=True) as loaded:
                begun.append(loaded.settings)

        beginning = asyncio.ensure_future(begin())
        await made.lines[0].ask(ROOM, PATIENCE_S, 1)  # a round trip in which it could have begun
        assert begun == []
        made.go_on.set()
        await asyncio.gather(reloading, beginning)
        assert (begun, made.loads) == ([2], [2])


# what a successor finds -> the settings that it begins with, or None; what the files are loaded for
SUCCESSORS: dict[str, tuple[ConfigError | None, bool, int | None, int]] = {
    "nothing was changed": (None, False, 1, 0),
    "a refusal stands, and the files are good by now": (None, True, 1, 1),
    "a refusal stands, and the files are bad": (ConfigError([WRONG]), True, None, 1),
    "a refusal stands, and they cannot be loaded for the moment": (ConfigError([WRONG], transient=True), True, 1, 1),
}


@pytest.mark.parametrize("case", SUCCESSORS)
async def test_a_successor_begins_with_what_the_others_serve_with_unless_the_files_are_bad(case: str) -> None:
    problem, refused, expected, loads = SUCCESSORS[case]
    async with crew() as made:
        if refused:
            made.problem = ConfigError([WRONG])
            with pytest.raises(ConfigError):
                await reload_to(made, 2)
        made.problem, made.loads = problem, []
        found = None
        with suppress(ConfigError):
            async with made.settings.steady(successor=True) as loaded:
                found = loaded.settings
        assert (found, len(made.loads)) == (expected, loads)
