"""Settings of all workers: the parent loads them once, each worker prepares them, and all or none put them in force.

One reload runs at a time. A worker that starts meanwhile waits, so that it begins with the settings of the others. If a
worker dies or does not answer while it prepares, the reload is refused and retried. Workers commit at nearly the same
time, one message delay apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from delegation_core.errors import ConfigError, Problem
from sidecar.config.loader import Loaded, load_again
from sidecar.config.settings import SidecarSettings
from sidecar.file_watch import Watched
from sidecar.settings_watch import Load, SettingsWatch
from sidecar.workers.channel import SilentError, ToWorker

if TYPE_CHECKING:  # the parent must not import it
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

Refusal = tuple[tuple[Problem, ...], bool]  # the problems, and True if they are transient


class SharedSettings:
    """The settings of all workers. ``lines`` returns the channels to the living workers."""

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
        """The settings in force."""
        return self._files.in_force.settings

    def watched(self) -> Watched:
        """Return the files to watch."""
        return self._files.watched(self.reload)

    async def reload(self) -> None:
        """Load the settings and put them in force in all workers.

        Raises:
            ConfigError: the settings are invalid, memory is too short, or a worker did not prepare them; all workers
                keep the settings in force.
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
        """Yield the settings for a new worker; no reload runs inside the block.

        Raises:
            ConfigError: the worker is a ``successor``, and the settings files are invalid now.
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
        """Return True if a worker has or can free ``size`` bytes for the loader: all processes share one limit."""
        for line in self._lines():
            try:
                if await line.ask(ROOM, _ROOM_S, size):
                    return True
            except SilentError:
                continue
        return False


class Outcomes:
    """Sends the outcome of a reload to the records and metrics of each worker, because the parent has neither."""

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
    """Have each worker prepare the settings.

    Raises:
        ConfigError: a worker refuses, or does not answer.
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


async def prepare(applied: AppliedSettings, fresh: SidecarSettings) -> Refusal | None:
    """Prepare fresh settings in a worker. Returns the refusal; None if they are accepted."""
    try:
        await applied.prepare(fresh)
    except ConfigError as error:
        return error.problems, error.transient
    return None
