"""What of a token service's settings changes while it runs: its policy, from the settings file, and its keys."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from sidecar.config.afresh import load_afresh
from sidecar.config.following import Followed, look_at, seen_by
from sidecar.config.sts_settings import TokenServiceSettings
from sidecar.errors import ConfigError
from sidecar.sts.key_files import file_name, load_schedule, look
from sidecar.sts.schedule import EphemeralKeys, KeySchedule
from sidecar.sts.service import Keys, TokenService

_log: Final = logging.getLogger("sidecar.sts")


class StsFiles:
    """The files that a token service was started from.

    ``seen`` is what looking at the settings file gave before it was read, so that no change is missed.
    """

    def __init__(
        self, path: Path, environ: Mapping[str, str], settings: TokenServiceSettings, *, seen: Hashable
    ) -> None:
        self._path = path
        self._environ = environ
        self._settings = settings
        self._seen = seen
        self._keys_seen: Hashable = None

    def own_keys(self, now: int) -> Keys:
        """The service's signing keys at the start, from their directory or made now.

        Raises:
            ConfigError: the directory holds none, or what is no key.
        """
        directory = self._settings.key_directory
        if directory is None:
            return EphemeralKeys(now)
        self._keys_seen = seen_by(partial(look, directory))
        return load_schedule(directory, now)

    def followed(self, service: TokenService) -> list[Followed]:
        """What is to be followed while ``service`` runs."""
        directory = self._settings.key_directory
        policy = Followed(
            what="policy",
            look=partial(look_at, self._path),
            seen=self._seen,
            load=partial(self._load_policy, service),
        )
        if directory is None:
            return [policy]
        keys = Followed(
            what="keys",
            look=partial(look, directory),
            seen=self._keys_seen,
            load=partial(self._load_keys, directory, service),
        )
        return [policy, keys]

    async def _load_policy(self, service: TokenService) -> None:
        fresh: TokenServiceSettings = await load_afresh("sts", self._path, self._environ)
        if problems := self._settings.needs_restart(fresh):
            raise ConfigError(problems)
        service.policy = fresh.policy

    async def _load_keys(self, directory: Path, service: TokenService) -> None:
        now = int(service.clock())
        before, fresh = service.keys, load_schedule(directory, now)
        service.keys = fresh
        for one in fresh.announced_late(before, now) if isinstance(before, KeySchedule) else ():
            _log.warning(
                "a key was added too late: consumers may meet its tokens first",
                extra={"file": file_name(one.signs_from)},
            )
