from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from pathlib import Path

from delegation_core.errors import ConfigError, Problem
from sidecar.file_watch import FileWatcher, Watched, fingerprint, fingerprint_or_errno
from tests.fakes.sts import HeardEvents


class Files:
    """A watched set of files: ``version`` is their fingerprint, ``problem`` their fault."""

    def __init__(self, version: int = 1) -> None:
        self.version: int | None = version
        self.problem: Problem | None = None
        self.transient = False
        self.loaded: list[int | None] = []
        self.looks = 0
        self.threads: set[int] = set()

    def fingerprint(self) -> Hashable:
        self.looks += 1
        self.threads.add(threading.get_ident())
        if self.version is None:
            raise FileNotFoundError(2, "gone")
        return self.version

    async def reload(self) -> None:
        if self.problem is not None:
            raise ConfigError([self.problem], transient=self.transient)
        self.loaded.append(self.version)

    def watched(self, what: str = "policy") -> Watched:
        return Watched(what=what, fingerprint=self.fingerprint, last=1, reload=self.reload)


@asynccontextmanager
async def watching(*watched: Watched, poll_s: float = 0.001) -> AsyncIterator[tuple[FileWatcher, HeardEvents]]:
    log = HeardEvents()
    watcher = FileWatcher(watched, log, poll_s=poll_s)
    task = asyncio.ensure_future(watcher.run())
    try:
        yield watcher, log
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def looked(files: Files, times: int = 3) -> None:
    looks = files.looks
    async with asyncio.timeout(5):
        while files.looks < looks + times:  # noqa: ASYNC110 - the watcher tells nobody that it looked
            await asyncio.sleep(0)


async def test_no_look_at_a_file_holds_the_loop() -> None:
    files = Files()
    async with watching(files.watched()):
        await looked(files)
    assert files.threads
    assert threading.get_ident() not in files.threads


async def test_what_does_not_change_is_not_read_again() -> None:
    files = Files()
    async with watching(files.watched()) as (_, log):
        await looked(files)
    assert (files.loaded, log.events) == ([], [])


async def test_a_change_since_the_state_in_force_was_read_is_not_missed() -> None:
    files = Files(version=2)  # the file changed while the service started
    async with watching(files.watched()) as (_, log):
        await log.wait_for_events(1)
        await looked(files)
    assert files.loaded == [2]
    assert log.events == [("config.reloaded", {"detail": "policy"})]
    assert log.metrics.config_reloads == {"ok": 1, "refused": 0}


async def test_what_cannot_be_used_is_told_once_and_read_again_when_it_changes() -> None:
    files = Files(version=2)
    files.problem = Problem("rules[0].scopes", "is not a list", "write one")
    async with watching(files.watched()) as (_, log):
        await log.wait_for_events(1)
        await looked(files)
        files.problem = None
        await looked(files)
        assert files.loaded == []
        files.version = 3
        await log.wait_for_events(2)
    assert files.loaded == [3]
    assert [event for event, _ in log.events] == ["config.refused", "config.reloaded"]
    assert log.events[0][1] == {"detail": "policy: rules[0].scopes: is not a list; write one"}
    assert log.metrics.config_reloads == {"ok": 1, "refused": 1}


async def test_files_that_go_away_are_a_change_like_any_other() -> None:
    files = Files()
    async with watching(files.watched()) as (_, log):
        files.version = None
        files.problem = Problem("sts.yaml", "cannot be read", "name a readable file")
        await log.wait_for_events(1)
        await looked(files)
    assert [event for event, _ in log.events] == ["config.refused"]


async def test_a_signal_reads_everything_again_changed_or_not() -> None:
    policy, keys = Files(), Files()
    async with watching(policy.watched(), keys.watched("keys"), poll_s=600) as (watcher, log):
        watcher.wake()
        await log.wait_for_events(2)
        assert (policy.loaded, keys.loaded) == ([1], [1])
        watcher.wake()
        await log.wait_for_events(4)
    assert [fields["detail"] for _, fields in log.events] == ["policy", "keys"] * 2


async def test_what_is_wrong_with_one_thing_does_not_keep_another_from_being_read() -> None:
    policy, keys = Files(version=2), Files(version=2)
    policy.problem = Problem("rules", "is missing", "add it")
    async with watching(policy.watched(), keys.watched("keys")) as (_, log):
        await log.wait_for_events(2)
    assert (policy.loaded, keys.loaded) == ([], [2])


def test_a_file_looks_different_when_it_is_written_or_swapped_behind_a_link(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text("same")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "one")
    before = fingerprint(link)
    assert fingerprint(link) == before
    (tmp_path / "fresh").symlink_to(tmp_path / "two")
    (tmp_path / "fresh").rename(link)  # as a Kubernetes volume does
    swapped = fingerprint(link)
    assert swapped != before
    (tmp_path / "two").write_text("longer")
    assert fingerprint(link) != swapped


def test_an_absent_file_has_a_fingerprint_too(tmp_path: Path) -> None:
    gone = fingerprint(tmp_path / "gone")
    (tmp_path / "gone").touch()
    assert fingerprint(tmp_path / "gone") != gone
    assert fingerprint_or_errno((tmp_path / "never").stat) == errno.ENOENT


async def test_what_failed_for_the_moment_is_tried_again_after_growing_pauses_until_it_is_in_force() -> None:
    files = Files(version=2)
    files.problem, files.transient = Problem("sidecar.yaml", "took too long to load", "try again"), True
    watched = files.watched()
    async with watching(watched) as (_, log):
        await log.wait_for_events(3)
        assert watched.retry_s > 0.001
        files.problem = None
        async with asyncio.timeout(5):
            while not files.loaded:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
        await looked(files)
    assert files.loaded == [2]
    assert (watched.retry_s, watched.retry_at) == (0.0, None)


async def test_a_storm_of_reloads_ends_in_the_newest_state_with_one_load_more() -> None:
    files = Files()
    begun, go_on = asyncio.Event(), asyncio.Event()
    seen: list[int | None] = []

    async def slow() -> None:
        seen.append(files.version)
        begun.set()
        await go_on.wait()

    watched = Watched(what="policy", fingerprint=files.fingerprint, last=1, reload=slow)
    async with watching(watched) as (watcher, log):
        watcher.wake()
        await begun.wait()
        for version in range(2, 102):
            files.version = version
            watcher.wake()
        go_on.set()
        await log.wait_for_events(2)
        await looked(files)
    assert seen == [1, 101]
