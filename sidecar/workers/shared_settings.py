"""Settings of all workers: the parent loads them once, each worker prepares them, and all serve with them or none does.

One reload runs at a time. A worker that is started meanwhile waits for its end, so that it begins with the settings
that the others serve with. A worker that dies, or does not answer, while it prepares refuses the reload, which is tried
again. Between two workers' commits lies the time that an order takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from sidecar.config.loader import Loaded, load_again
from sidecar.config.settings import SidecarSettings
from sidecar.errors import ConfigError, Problem
from sidecar.file_watch import Watched
from sidecar.settings_watch import Load, SettingsWatch
from sidecar.workers.channel import SilentError, ToWorker

if TYPE_CHECKING:  # of a worker
    from sidecar.reload import AppliedSettings

ROOM: Final = "room"
PREPARE: Final = "prepare"
COMMIT: Final = "commit"
REFUSE: Final = "refuse"
EVENT: Final = "event"
COUNT: Final = "count"

_ROOM_S: Final = 5.0
_PREPARE_S: Final = 30.0  # 10 of them for keys of a new issuer

_SILENT: Final = Problem("settings", "were not prepared by a worker in time", "see its lines of the operations log")

Refusal = tuple[tuple[Problem, ...], bool]  # the problems, and True if they may pass


class SharedSettings:
    """The settings of all workers. ``lines`` returns those to the living ones."""

    def __init__(
        self,
        loaded: Loaded[SidecarSettings],
        environ: Mapping[str, str],
        lines: Callable[[], Sequence[ToWorker]],
        load: Load = load_again,
    ) -> None:
        self._files = SettingsWatch(loaded, environ, self._has_room, load)
        self._lines = lines
        self._turn = asyncio.Lock()
        self._refused = False

    @property
    def settings(self) -> SidecarSettings:
        """Those in force."""
        return self._files.in_force.settings

    def watched(self) -> Watched:
        """Return the files to watch."""
        return self._files.watched(self.reload)

    async def reload(self) -> None:
        """Load the settings again, and put them in force in all workers.

        Raises:
            ConfigError: they cannot be used, or not now, or not by each; the settings in force stay everywhere.
        """
        async with self._turn:
            lines = self._lines()
            self._refused = True
            try:
                loaded = await self._files.load()
                await self._files.require_room_in(len(lines))
                await _prepare(lines, loaded.settings)
            except ConfigError as error:
                for line in lines:
                    line.tell(REFUSE, error.problems)
                raise
            for line in lines:
                line.tell(COMMIT)
            self._files.in_force = loaded
            self._refused = False

    @asynccontextmanager
    async def steady(self, *, successor: bool = False) -> AsyncIterator[Loaded[SidecarSettings]]:
        """Give the settings that a worker starts with; no reload runs until it is among the living.

        Raises:
            ConfigError: a ``successor`` is wanted, and the files now hold settings that cannot be used.
        """
        async with self._turn:
            if successor:
                await self._require_usable()
            yield self._files.in_force

    async def _require_usable(self) -> None:
        found = await asyncio.to_thread(self._files.fingerprint)
        if found == self._files.in_force.fingerprint and not self._refused:
            return
        try:
            await self._files.require_usable()
        except ConfigError as error:
            if not error.transient:
                raise

    async def _has_room(self, size: int) -> bool:
        """Return True if a worker finds room for the loader, or makes it: the memory limit is that of all."""
        for line in self._lines():
            try:
                if await line.ask(ROOM, _ROOM_S, size):
                    return True
            except SilentError:
                continue
        return False


class Outcomes:
    """Writes the outcome of a reload to the records and metrics of each worker: their parent has none."""

    def __init__(self, lines: Callable[[], Sequence[ToWorker]]) -> None:
        self._lines = lines

    @property
    def metrics(self) -> Outcomes:
        """The counters of all workers."""
        return self

    def reloaded(self, what: str, *, ok: bool) -> None:
        """Count a reload."""
        for line in self._lines():
            line.tell(COUNT, what, ok)

    def event(self, event: str, *, detail: str) -> None:
        """Write a record."""
        for line in self._lines():
            line.tell(EVENT, event, detail)


async def _prepare(lines: Sequence[ToWorker], settings: SidecarSettings) -> None:
    """Have each worker prepare.

    Raises:
        ConfigError: one refuses, or does not answer.
    """

    async def answer(line: ToWorker) -> Refusal | None:
        try:
            refusal: Refusal | None = await line.ask(PREPARE, _PREPARE_S, settings)
        except SilentError:
            return (_SILENT,), True
        return refusal

    refusals = [one for one in await asyncio.gather(*map(answer, lines)) if one is not None]
    if refusals:
        problems = dict.fromkeys(problem for problems, _ in refusals for problem in problems)
        raise ConfigError(list(problems), transient=any(transient for _, transient in refusals))


async def prepared(applied: AppliedSettings, fresh: SidecarSettings) -> Refusal | None:
    """Prepare fresh settings in a worker. Return why they are refused; None if they are not."""
    try:
        await applied.prepare(fresh)
    except ConfigError as error:
        return error.problems, error.transient
    return None
