"""Reload of a running sidecar's settings, on a change of its files or SIGHUP: as a whole, or not at all.

The steps, in ``Reload.reload``: require memory for the loader, load in a child process, refuse what needs a restart,
make a new setup that keeps what did not change, and put it in force. A ``Setup`` is what requests are served with;
``put_in_force`` swaps it between two requests and ends what the old one leaves behind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, Final

from sidecar.assembly.setup import make_exchanges, make_keys, make_setup
from sidecar.config import SidecarSettings
from sidecar.config.bounds import shares_in_force
from sidecar.config.loader import Loaded, SettingsFiles, load_again
from sidecar.delegation.deny_list import DenyListError
from sidecar.errors import ConfigError, Problem
from sidecar.exchange.exchanges import Exchanges
from sidecar.file_watch import Watched
from sidecar.proxy.memory_pressure import MIB
from sidecar.proxy.server import Server
from sidecar.proxy.snapshot import Setup
from sidecar.proxy.status import SettingsState

Load = Callable[[SettingsFiles, Mapping[str, str]], Awaitable[Loaded[Any]]]

_NEW_KEYS_S: Final = 10.0


class Reload:
    """Reloads the settings of one server. ``state`` is the outcome, for ``sidecar status``."""

    def __init__(
        self, loaded: Loaded[SidecarSettings], environ: Mapping[str, str], server: Server, load: Load = load_again
    ) -> None:
        self._settings, self._files, self._fingerprint = loaded
        self._load_again = load
        self._environ = environ
        self._server = server
        self._watched: Watched | None = None
        self.state = _state_of(self._settings, number=1)

    def watched(self) -> Watched:
        """Return the files to watch, and this reload."""
        watched = Watched(
            what="settings",
            fingerprint=self._look,
            last=self._fingerprint,
            reload=self.reload,
        )
        self._watched = watched
        return watched

    def all_watched(self) -> list[Watched]:
        """Return everything to watch: the settings, and the certificate of a door."""
        door = self._server.parts.door
        if door is None:
            return [self.watched()]
        last = door.fingerprint() if door.not_after is not None else None
        certificate = Watched(
            what="the door's certificate", fingerprint=door.fingerprint, last=last, reload=door.reload
        )
        return [self.watched(), certificate]

    async def reload(self) -> None:
        """Load the settings again and put them in force.

        Raises:
            ConfigError: they cannot be used, or not now, or need a restart; the settings in force stay.
        """
        try:
            fresh = await self._load()
            follow = await self._read_deny_file(fresh.deny_file)
            await put_in_force(self._server, self._changed(fresh))
            follow()  # at once, and last: settings that are refused take no row away
        except ConfigError as error:
            self.state.refused_at, self.state.problems = int(time.time()), error.problems
            raise
        self._settings = fresh
        self._server.metrics.settings_used = shares_in_force(fresh.used)
        self.state = _state_of(fresh, number=self.state.number + 1)

    def _look(self) -> Hashable:
        """Return the fingerprint of the files, which a reload may change."""
        return self._files.fingerprint()

    async def _load(self) -> SidecarSettings:
        need_bytes = self._files.need_bytes()
        if not self._server.room_for(need_bytes):
            need = f"that takes {need_bytes // MIB} MiB, which the memory limit does not leave now"
            cure = "raise the memory limit, or wait until `sidecar status` shows less memory in use"
            raise ConfigError([Problem(str(self._files.path), f"was not loaded: {need}", cure)], transient=True)
        try:
            loaded = await self._load_again(self._files, self._environ)
        except ConfigError as error:
            self._files = self._files.after(error)
            raise
        fresh: SidecarSettings = loaded.settings
        self._files = loaded.files
        if self._watched is not None:
            self._watched.last = loaded.fingerprint
        if problems := self._settings.needs_restart(fresh):
            raise ConfigError(problems)
        return fresh

    async def _read_deny_file(self, path: Path | None) -> Callable[[], None]:
        """Read the deny file that fresh settings name, if it is another one. Return the function that follows it."""
        try:
            return await self._server.parts.deny_file.read(path)
        except DenyListError as error:
            raise ConfigError([Problem("deny_file", f"{path}: {error}", "put a list there first")]) from error

    def _changed(self, fresh: SidecarSettings) -> Setup:
        """Make the setup of fresh settings. Keys and exchanges stay if their settings do: they are caches."""
        parts, old = self._server.parts, self._settings
        keys, exchanges = parts.snapshots.setup.keys, parts.snapshots.setup.exchanges
        if fresh.keys != old.keys:
            keys = make_keys(fresh, parts.source, parts.log)
        if fresh.keys != old.keys or fresh.exchanges != old.exchanges:
            exchanges = make_exchanges(fresh, parts.source, keys, parts.log)
        return make_setup(fresh, keys, exchanges, parts.log.metrics)


async def put_in_force(server: Server, setup: Setup) -> None:
    """Serve with ``setup`` from now on. Requests under way that it would refuse end within a second.

    Raises:
        ConfigError: an issuer that the new setup needs gave no keys in time; the old setup stays in force.
    """
    parts = server.parts
    before, keys_before = parts.snapshots.setup, server.key_updates
    new_keys, new_exchanges = setup.keys is not before.keys, setup.exchanges is not before.exchanges
    if new_keys:
        key_updates = server.start_key_updates(setup)
        if not await setup.wait_for_keys(_NEW_KEYS_S):
            server.background.stop(key_updates)
            if new_exchanges:
                await setup.exchanges.close()
            raise ConfigError(setup.problems(), transient=True)
        server.key_updates = key_updates
    parts.snapshots.change(setup)
    if new_keys:
        parts.log.metrics.jwks_kept(setup.keys.ages())
    if not setup.plain_until:
        for listener in parts.listeners:
            listener.end()
    parts.watch.notice()
    parts.tasks.start(_retire(server, keys_before if new_keys else None, before.exchanges if new_exchanges else None))


async def _retire(server: Server, keys: asyncio.Future[None] | None, exchanges: Exchanges | None) -> None:
    """End what a reload replaced, once no request can wait for it any more."""
    try:
        await asyncio.sleep(server.parts.drain_s)
    finally:
        if keys is not None:
            server.background.stop(keys)
        if exchanges is not None:
            await exchanges.close()


def _state_of(settings: SidecarSettings, *, number: int) -> SettingsState:
    deny = settings.deny
    return SettingsState(
        number=number,
        loaded_at=int(time.time()),
        inbound_routes=[route.name for route in settings.inbound_routes.routes],
        outbound_routes=list(settings.outbound_routes.names),
        deny_rows=sum(map(len, (deny.subjects, deny.actors, deny.jtis, deny.txns))),
    )
