"""Reloads the policy of a running token service from the settings file, and its signing keys from their directory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from delegation_core.errors import ConfigError, Problem, Unavailable
from sidecar.config.bounds import shares_in_force
from sidecar.config.loader import Loaded, load_again
from sidecar.config.sts_settings import TokenServiceSettings
from sidecar.file_watch import Watched, fingerprint_or_errno
from sidecar.sts.key_files import file_name, load_schedule, look
from sidecar.sts.schedule import EphemeralKeys, KeySchedule
from sidecar.sts.service import Keys, TokenService

_log: Final = logging.getLogger("sidecar.sts")


class StsReload:
    """Reloads the policy and the keys of one token service."""

    def __init__(self, loaded: Loaded[TokenServiceSettings], environ: Mapping[str, str]) -> None:
        self._settings, self._files, self._fingerprint = loaded
        self._environ = environ
        self._policy: Watched | None = None
        self._keys_fingerprint: Hashable = None

    def own_keys(self, now: int) -> Keys:
        """Return the signing keys at the start, from their directory or generated.

        Raises:
            ConfigError: the directory contains no key, or a file that is not a valid key.
        """
        directory = self._settings.key_directory
        if directory is None:
            return EphemeralKeys(now)
        self._keys_fingerprint = fingerprint_or_errno(partial(look, directory))
        return load_schedule(directory, now, announce_s=self._settings.key_lags.announce_s)

    def watched(self, service: TokenService) -> list[Watched]:
        """Return the files to watch while ``service`` runs, and their reloads."""
        directory = self._settings.key_directory
        self._policy = policy = Watched(
            what="policy",
            fingerprint=self._look,
            last=self._fingerprint,
            reload=partial(self._reload_policy, service),
        )
        if directory is None:
            return [policy]
        keys = Watched(
            what="keys",
            fingerprint=partial(look, directory),
            last=self._keys_fingerprint,
            reload=partial(self._reload_keys, directory, service),
        )
        return [policy, keys]

    async def _reload_policy(self, service: TokenService) -> None:
        fresh = await self._load()
        if problems := self._settings.needs_restart(fresh):
            raise ConfigError(problems)
        if service.register is not None:
            try:
                await service.register.prepare(fresh.policy)
            except Unavailable as error:
                problem = Problem("foreign_issuers", str(error), "wait until revocations of their users expire")
                raise ConfigError([problem]) from error
        service.policy = fresh.policy
        if service.register is not None and fresh.revocation is not None:
            service.register.settings = fresh.revocation  # operators may change
        service.log.metrics.settings_used = shares_in_force(fresh.used)

    def _look(self) -> Hashable:
        """Return the fingerprint of the files. Settings include other files, so a reload may change the set."""
        return self._files.fingerprint()

    async def _load(self) -> TokenServiceSettings:
        """Load the settings, and watch the files that they include, even if the settings are not valid.

        Raises:
            ConfigError: as ``load_again``.
        """
        try:
            loaded: Loaded[TokenServiceSettings] = await load_again(self._files, self._environ)
        except ConfigError as error:
            self._files = self._files.after(error)
            raise
        self._files = loaded.files
        if self._policy is not None:
            self._policy.last = loaded.fingerprint
        return loaded.settings

    async def _reload_keys(self, directory: Path, service: TokenService) -> None:
        now = int(service.clock())
        before = service.keys if isinstance(service.keys, KeySchedule) else None
        announce_s = self._settings.key_lags.announce_s
        fresh = await asyncio.to_thread(load_schedule, directory, now, announce_s=announce_s, before=before)
        service.keys = fresh
        for one in () if before is None else fresh.held_back(before):
            _log.warning(
                "a key was added too late for its time; it is held back until consumers know it",
                extra={"file": file_name(one.signs_from), "signs_at": one.due_at},
            )
