"""A sidecar's settings while it runs: read again when the file changes or on SIGHUP, swapped whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from functools import partial
from pathlib import Path

from sidecar.assembly import Made, make_setup
from sidecar.config import SidecarSettings
from sidecar.config.afresh import LOADING_BYTES, load_afresh
from sidecar.config.following import Followed, look_at, seen_by
from sidecar.errors import ConfigError, Problem
from sidecar.proxy.memory_pressure import MIB
from sidecar.proxy.server import Server
from sidecar.proxy.status import SettingsState


class SettingsFile:
    """The file a sidecar was started from, and the platform file above it if there is one.

    ``seen`` is what looking at both (``look_at_files``) gave before they were read.
    """

    def __init__(
        self,
        path: Path,
        environ: Mapping[str, str],
        settings: SidecarSettings,
        *,
        seen: Hashable,
        platform: Path | None = None,
    ) -> None:
        self._path = path
        self._platform = () if platform is None else (platform,)
        self._environ = environ
        self._settings = settings
        self._seen = seen
        self.state = _state_of(settings, number=1)

    def followed(self, server: Server) -> Followed:
        """What is to be followed while ``server`` runs."""
        return Followed(
            what="settings",
            look=partial(look_at_files, self._path, *self._platform),
            seen=self._seen,
            load=partial(self._reload, server),
        )

    async def _reload(self, server: Server) -> None:
        """Load, and keep for the operator how it went.

        Raises:
            ConfigError: as ``_load``.
        """
        try:
            await self._load(server)
        except ConfigError as error:
            self.state.refused_at, self.state.problems = int(time.time()), error.problems
            raise
        self.state = _state_of(self._settings, number=self.state.number + 1)

    async def _load(self, server: Server) -> None:
        """Read, check, build, swap.

        Raises:
            ConfigError: why the settings in force stay as they are.
        """
        if not server.room_for(LOADING_BYTES):
            need = f"that takes {LOADING_BYTES // MIB} MiB, which the memory limit does not leave now"
            cure = "raise the memory limit; or send SIGHUP when `sidecar status` shows less memory in use"
            raise ConfigError([Problem(str(self._path), f"was not loaded: {need}", cure)])
        fresh: SidecarSettings = await load_afresh("sidecar", self._path, self._environ, *self._platform)
        if problems := self._settings.needs_restart(fresh):
            raise ConfigError(problems)
        parts = server.parts
        before = Made(parts.snapshots.setup, self._settings)
        await server.change(make_setup(fresh, parts.source, parts.log, before=before))
        self._settings = fresh


def _state_of(settings: SidecarSettings, *, number: int) -> SettingsState:
    deny = settings.deny
    return SettingsState(
        number=number,
        loaded_at=int(time.time()),
        inbound_routes=[route.name for route in settings.inbound_routes.routes],
        outbound_routes=[route.name for route in settings.outbound_routes.routes],
        deny_rows=sum(map(len, (deny.subjects, deny.actors, deny.jtis, deny.txns))),
    )


def look_at_files(*paths: Path) -> Hashable:
    """Something that differs whenever one of the files does; of one that is not there, the kind of error."""
    return tuple(seen_by(partial(look_at, path)) for path in paths)
