"""Reloads a running sidecar's settings on a change of their files or SIGHUP: as a whole, or not at all.

The first steps of a reload are in ``settings_watch.py``: require memory for the loader, load in a child process, refuse
changes that need a restart. The other steps are in ``AppliedSettings``: make a new setup from the changed settings,
wait for its keys, and put it in force. With several workers the parent does the first steps once, and each worker does
the others (``workers/shared_settings.py``). A new ``Setup`` takes effect between two requests; the keys and clients of
the old one are closed later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from delegation_core.errors import ConfigError, Problem
from sidecar.assembly.setup import features_of, make_exchanges, make_keys, make_setup
from sidecar.config.bounds import shares_in_force
from sidecar.config.loader import Loaded, load_again
from sidecar.config.settings import SidecarSettings
from sidecar.exchange.exchanges import Exchanges
from sidecar.file_watch import Watched
from sidecar.proxy.journeys.snapshot import Setup
from sidecar.proxy.listening.server import Server
from sidecar.proxy.listening.settings_state import SettingsState
from sidecar.settings_watch import Load, SettingsWatch

_NEW_KEYS_S: Final = 10.0


class AppliedSettings:
    """The settings in force of one server. ``state`` is the outcome of reloads, for ``sidecar status``.

    Fresh settings are prepared, which may fail and changes nothing. Then they are committed, which cannot fail, or
    refused.
    """

    def __init__(self, settings: SidecarSettings, server: Server) -> None:
        self._settings = settings
        self._server = server
        self._wanted: SidecarSettings | None = None
        self._prepared: tuple[PreparedSetup, Callable[[], None]] | None = None
        self.state = _state_of(settings, number=1)

    async def prepare(self, fresh: SidecarSettings) -> None:
        """Make the setup of fresh settings and fetch its keys; the settings in force stay.

        Raises:
            ConfigError: the deny file is not usable, a module or the keys of an issuer are missing, or ``refuse`` was
                called meanwhile.
        """
        self._wanted = fresh
        follow = await self._read_deny_file(fresh.deny_file)
        try:
            setup = self._make_setup(fresh)
        except ImportError as error:  # the module of a feature or adapter that earlier settings did not use
            fix = "install the same release again, and restart the sidecar"
            raise ConfigError([Problem("settings", f"need a module that cannot be imported: {error}", fix)]) from error
        prepared = await prepare(self._server, setup)
        if self._wanted is not fresh:
            await prepared.abandon()
            raise ConfigError([Problem("settings", "were refused meanwhile", "see the problem named before")])
        self._prepared = prepared, follow

    def commit(self) -> None:
        """Put the prepared settings in force."""
        assert self._prepared is not None  # noqa: S101 - an error of our parent: end this worker, a new one starts
        assert self._wanted is not None  # noqa: S101 - as above
        fresh, (prepared, follow) = self._wanted, self._prepared
        self._wanted = self._prepared = None
        prepared.commit()
        follow()  # only now: refused settings must not change the deny list
        self._settings = fresh
        self._server.metrics.settings_used = shares_in_force(fresh.used)
        self.state = _state_of(fresh, number=self.state.number + 1)

    def refuse(self, problems: Sequence[Problem]) -> None:
        """Discard prepared settings, or those being prepared, and note the problems; the settings in force stay."""
        if self._prepared is not None:
            self._server.parts.tasks.start(self._prepared[0].abandon())
        self._wanted = self._prepared = None
        self.state.refused_at, self.state.problems = int(time.time()), tuple(problems)

    async def _read_deny_file(self, path: Path | None) -> Callable[[], None]:
        """Read the deny file of fresh settings, if its path has changed. Return a function that puts it in force.

        Raises:
            ConfigError: the file is not readable or not valid; a retry may succeed.
        """
        deny_file = self._server.parts.deny_file
        if path is None:
            return await deny_file.read(None)
        from delegation_core.deny_list import DenyListError

        try:
            return await deny_file.read(path)
        except DenyListError as error:
            fix = "put a list there; the settings are tried again within a minute, and at once on SIGHUP"
            raise ConfigError([Problem("deny_file", f"{path}: {error}", fix)], transient=True) from error

    def _make_setup(self, fresh: SidecarSettings) -> Setup:
        """Make the setup of fresh settings. Keys and exchanges are caches: keep them if their settings are equal."""
        parts, old = self._server.parts, self._settings
        if parts.features is not None:  # first: if it fails, there is nothing to close yet
            parts.features.load(features_of(fresh))
        keys, exchanges = parts.snapshots.setup.keys, parts.snapshots.setup.exchanges
        if fresh.keys != old.keys:
            keys = make_keys(fresh, parts.source, parts.log)
        if fresh.keys != old.keys or fresh.exchanges != old.exchanges:
            exchanges = make_exchanges(fresh, parts.source, keys, parts.log)
        return make_setup(fresh, keys, exchanges, parts.log.metrics)


class Reload:
    """Reloads the settings of one server in one process. ``state`` is the outcome, for ``sidecar status``."""

    def __init__(
        self, loaded: Loaded[SidecarSettings], environ: Mapping[str, str], server: Server, load: Load = load_again
    ) -> None:
        async def has_room(size: int) -> bool:
            return server.room_for(size)

        self._server = server
        self._files = SettingsWatch(loaded, environ, has_room, load)
        self._applied = AppliedSettings(loaded.settings, server)

    @property
    def state(self) -> SettingsState:
        """The outcome of the last reload."""
        return self._applied.state

    def all_watched(self) -> list[Watched]:
        """Return the files to watch: the settings, and the certificate of a door."""
        return [self._files.watched(self.reload), *watched_door(self._server)]

    async def reload(self) -> None:
        """Load the settings again and put them in force.

        Raises:
            ConfigError: as ``SettingsWatch.load`` and ``AppliedSettings.prepare``; the settings in force stay.
        """
        try:
            loaded = await self._files.load()
            await self._applied.prepare(loaded.settings)
        except ConfigError as error:
            self._applied.refuse(error.problems)
            raise
        self._applied.commit()
        self._files.in_force = loaded


def watched_door(server: Server) -> list[Watched]:
    """Return the certificate of a door to watch, if there is one."""
    door = server.parts.door
    if door is None:
        return []
    last = door.fingerprint() if door.not_after is not None else None
    return [Watched(what="the door's certificate", fingerprint=door.fingerprint, last=last, reload=door.reload)]


class PreparedSetup(NamedTuple):
    """A setup with its keys, not in force yet. ``key_updates``: the part that updates new keys; None: the keys stay."""

    server: Server
    setup: Setup
    key_updates: asyncio.Future[None] | None

    def commit(self) -> None:
        """Put the setup in force. Requests in flight that it would refuse end within a second."""
        server, setup, parts = self.server, self.setup, self.server.parts
        before, keys_before = parts.snapshots.setup, server.key_updates
        new_exchanges = setup.exchanges is not before.exchanges
        if self.key_updates is not None:
            server.key_updates = self.key_updates
        parts.snapshots.change(setup)
        if self.key_updates is not None:
            parts.log.metrics.jwks_kept(setup.keys.ages())
        if not setup.plain_until:
            for listener in parts.listeners:
                listener.end()
        parts.watch.notice()
        old_keys = None if self.key_updates is None else keys_before
        parts.tasks.start(_retire(server, old_keys, before.exchanges if new_exchanges else None))

    async def abandon(self) -> None:
        """Close the new keys and exchanges; the setup in force stays."""
        if self.key_updates is not None:
            self.server.background.stop(self.key_updates)
        if self.setup.exchanges is not self.server.parts.snapshots.setup.exchanges:
            await self.setup.exchanges.close()


async def prepare(server: Server, setup: Setup) -> PreparedSetup:
    """Fetch the keys that a new setup needs.

    Raises:
        ConfigError: the keys of an issuer did not arrive in time; the setup in force stays.
    """
    if setup.keys is server.parts.snapshots.setup.keys:
        return PreparedSetup(server, setup, None)
    prepared = PreparedSetup(server, setup, server.start_key_updates(setup))
    if not await setup.wait_for_keys(_NEW_KEYS_S):
        await prepared.abandon()
        raise ConfigError(setup.problems(), transient=True)
    return prepared


async def _retire(server: Server, keys: asyncio.Future[None] | None, exchanges: Exchanges | None) -> None:
    """Close replaced keys and exchanges after the drain time, when no request waits for them any more."""
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
