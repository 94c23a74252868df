"""Watches the files of a sidecar's settings, and loads them again. The parent of workers uses this module too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any

from delegation_core.errors import ConfigError, Problem
from sidecar.config.loader import Loaded, SettingsFiles, load_again
from sidecar.config.settings import SidecarSettings
from sidecar.file_watch import Watched
from sidecar.proxy.listening.memory_pressure import MIB

Load = Callable[[SettingsFiles, Mapping[str, str]], Awaitable[Loaded[Any]]]


class SettingsWatch:
    """Files of settings, and their reload. ``in_force`` are the settings that were last loaded and accepted.

    ``has_room`` returns True if the loader may use that many bytes now.
    """

    def __init__(
        self,
        loaded: Loaded[SidecarSettings],
        environ: Mapping[str, str],
        has_room: Callable[[int], Awaitable[bool]],
        load: Load = load_again,
    ) -> None:
        self.in_force = loaded
        self._files = loaded.files
        self._environ = environ
        self._has_room = has_room
        self._load_again = load
        self._watched: Watched | None = None

    def watched(self, reload: Callable[[], Awaitable[None]]) -> Watched:
        """Return the files to watch; ``reload`` is called when they change."""
        last = self.in_force.fingerprint
        self._watched = Watched(what="settings", fingerprint=self.fingerprint, last=last, reload=reload)
        return self._watched

    def fingerprint(self) -> Hashable:
        """Return the fingerprint of the files. Settings include other files, so a reload may change the set."""
        return self._files.fingerprint()

    async def load(self) -> Loaded[SidecarSettings]:
        """Load the settings from their current files.

        Raises:
            ConfigError: the settings are not valid, memory is too short to load them, or they need a restart.
        """
        loaded = await self._fresh()
        self._files = loaded.files
        if self._watched is not None:
            self._watched.last = loaded.fingerprint
        self._require_no_restart(loaded)
        return loaded

    async def require_usable(self) -> None:
        """Check that the current files are valid; keep nothing of them.

        Raises:
            ConfigError: as ``load``.
        """
        self._require_no_restart(await self._fresh())

    async def _fresh(self) -> Loaded[SidecarSettings]:
        await self._require_room(self._files.need_bytes(), "was not loaded")
        try:
            loaded: Loaded[SidecarSettings] = await self._load_again(self._files, self._environ)
        except ConfigError as error:
            self._files = self._files.after(error)
            raise
        return loaded

    async def require_room_in(self, workers: int) -> None:
        """Require memory for every worker to hold the loaded settings beside those in force.

        Raises:
            ConfigError: memory is too short now.
        """
        await self._require_room(workers * self._files.settings_bytes(), "is in force in no worker")

    async def _require_room(self, need_bytes: int, outcome: str) -> None:
        if not await self._has_room(need_bytes):
            need = f"that takes {need_bytes // MIB} MiB, which the memory limit does not leave now"
            fix = "raise the memory limit, or wait until `sidecar status` shows less memory in use"
            raise ConfigError([Problem(str(self._files.path), f"{outcome}: {need}", fix)], transient=True)

    def _require_no_restart(self, loaded: Loaded[SidecarSettings]) -> None:
        if problems := self.in_force.settings.needs_restart(loaded.settings):
            raise ConfigError(problems)
