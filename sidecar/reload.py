"""Reload of a running sidecar's settings, on a change of its files or SIGHUP: as a whole, or not at all.

The steps of a reload: require memory for the loader, load in a child process, refuse what needs a restart
(``settings_watch.py``); make a new setup that keeps what did not change, wait for what it needs, and put it in force
(``AppliedSettings``). With several workers the parent has the first half, once, and each worker the second
(``workers/shared_settings.py``). A ``Setup`` is what requests are served with; putting it in force swaps it between two
requests and ends what the old one leaves behind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sidecar.assembly.setup import features_of, make_exchanges, make_keys, make_setup
from sidecar.config.bounds import shares_in_force
from sidecar.config.loader import Loaded, load_again
from sidecar.config.settings import SidecarSettings
from sidecar.errors import ConfigError, Problem
from sidecar.exchange.exchanges import Exchanges
from sidecar.file_watch import Watched
from sidecar.proxy.journeys.snapshot import Setup
from sidecar.proxy.listening.server import Server
from sidecar.proxy.listening.settings_state import SettingsState
from sidecar.settings_watch import Load, SettingsWatch

_NEW_KEYS_S: Final = 10.0


class AppliedSettings:
    """The settings that one server serves with. ``state`` is the outcome of reloads, for ``sidecar status``.

    Fresh settings are prepared, which may fail and changes nothing, and then committed, which cannot fail, or refused.
    """

    def __init__(self, settings: SidecarSettings, server: Server) -> None:
        self._settings = settings
        self._server = server
        self._wanted: SidecarSettings | None = None
        self._prepared: tuple[PreparedSetup, Callable[[], None]] | None = None
        self.state = _state_of(settings, number=1)

    async def prepare(self, fresh: SidecarSettings) -> None:
        """Make everything that fresh settings need; those in force stay.

        Raises:
            ConfigError: they cannot be used, or not now.
        """
        self._wanted = fresh
        follow = await self._read_deny_file(fresh.deny_file)
        try:
            setup = self._changed(fresh)
        except ImportError as error:  # of a feature or adapter that no earlier settings used
            fix = "install the same release again, and restart the sidecar"
            raise ConfigError([Problem("settings", f"need a module that cannot be imported: {error}", fix)]) from error
        prepared = await prepare(self._server, setup)
        if self._wanted is not fresh:
            await prepared.abandon()
            raise ConfigError([Problem("settings", "were refused meanwhile", "see the problem named before")])
        self._prepared = prepared, follow

    def commit(self) -> None:
        """Put in force what was prepared."""
        assert self._prepared is not None  # noqa: S101 - our parent's error: this worker ends, and a new one is right
        assert self._wanted is not None  # noqa: S101 - as above
        fresh, (prepared, follow) = self._wanted, self._prepared
        self._wanted = self._prepared = None
        prepared.commit()
        follow()  # at once, and last: settings that are refused take no row away
        self._settings = fresh
        self._server.metrics.settings_used = shares_in_force(fresh.used)
        self.state = _state_of(fresh, number=self.state.number + 1)

    def refuse(self, problems: Sequence[Problem]) -> None:
        """Give up what was prepared, or is being prepared; the settings in force stay."""
        if self._prepared is not None:
            self._server.parts.tasks.start(self._prepared[0].abandon())
        self._wanted = self._prepared = None
        self.state.refused_at, self.state.problems = int(time.time()), tuple(problems)

    async def _read_deny_file(self, path: Path | None) -> Callable[[], None]:
        """Read the deny file that fresh settings name, if it is another one. Return the function that follows it."""
        deny_file = self._server.parts.deny_file
        if path is None:
            return await deny_file.read(None)
        from sidecar.delegation.deny_list import DenyListError

        try:
            return await deny_file.read(path)
        except DenyListError as error:
            fix = "put a list there; the settings are tried again within a minute, and at once on SIGHUP"
            raise ConfigError([Problem("deny_file", f"{path}: {error}", fix)], transient=True) from error

    def _changed(self, fresh: SidecarSettings) -> Setup:
        """Make the setup of fresh settings. Keys and exchanges stay if their settings do: they are caches."""
        parts, old = self._server.parts, self._settings
        if parts.features is not None:  # first: nothing is made yet that would have to be closed
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
        """Return everything to watch: the settings, and the certificate of a door."""
        return [self._files.watched(self.reload), *watched_door(self._server)]

    async def reload(self) -> None:
        """Load the settings again and put them in force.

        Raises:
            ConfigError: they cannot be used, or not now, or need a restart; the settings in force stay.
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
    """A setup whose keys are there, with the part that updates them if they are new. Not in force yet."""

    server: Server
    setup: Setup
    key_updates: asyncio.Future[None] | None

    def commit(self) -> None:
        """Serve with it from now on. Requests under way that it would refuse end within a second."""
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
        """End what was made for it; the setup in force stays."""
        if self.key_updates is not None:
            self.server.background.stop(self.key_updates)
        if self.setup.exchanges is not self.server.parts.snapshots.setup.exchanges:
            await self.setup.exchanges.close()


async def prepare(server: Server, setup: Setup) -> PreparedSetup:
    """Get the keys that a new setup needs.

    Raises:
        ConfigError: an issuer gave none in time; the setup in force stays.
    """
    if setup.keys is server.parts.snapshots.setup.keys:
        return PreparedSetup(server, setup, None)
    prepared = PreparedSetup(server, setup, server.start_key_updates(setup))
    if not await setup.wait_for_keys(_NEW_KEYS_S):
        await prepared.abandon()
        raise ConfigError(setup.problems(), transient=True)
    return prepared


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
