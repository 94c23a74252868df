"""``sidecar sts``: runs a token service. Start order and stop order, no logic."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from delegation_core.errors import ConfigError
from sidecar.background import Parts
from sidecar.config.bounds import shares_in_force
from sidecar.config.loader import Loaded, SettingsFiles, load_at_start
from sidecar.config.sts_settings import TokenServiceSettings
from sidecar.file_watch import FileWatcher
from sidecar.identity.jwks import IssuerKeys
from sidecar.identity.source import Identity, IdentitySource
from sidecar.identity.source_factory import source_of
from sidecar.observe.access_log import AccessLog
from sidecar.observe.countersigning import Countersigning
from sidecar.observe.metrics import Metrics
from sidecar.observe.placement import placement
from sidecar.observe.record_rate import UnprovenRecords
from sidecar.observe.refused_connections import RefusedConnections
from sidecar.process import run_until_signal
from sidecar.signals import release_signals
from sidecar.start import refuse_settings, require_address_space
from sidecar.sts import features
from sidecar.sts.rate import ExchangeRate
from sidecar.sts.server import StsServer
from sidecar.sts.service import Keys, TokenService
from sidecar.sts_reload import StsReload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.sts.revocations import Register


def run(arguments: argparse.Namespace) -> int:
    """Run ``sidecar sts`` until SIGTERM or SIGINT; return the exit code. SIGHUP reloads its policy and keys."""
    try:
        loaded: Loaded[TokenServiceSettings] = load_at_start(SettingsFiles("sts", Path(arguments.config)), os.environ)
        require_address_space(loaded.settings.identity)
        reload = StsReload(loaded, os.environ)
        keys = reload.own_keys(int(time.time()))
    except ConfigError as error:
        return refuse_settings(arguments.config, error)
    return run_until_signal(partial(run_token_service, loaded.settings, keys, reload=reload))


async def run_token_service(
    settings: TokenServiceSettings, own: Keys, stop: asyncio.Event, *, reload: StsReload | None = None
) -> bool:
    """Run one token service until ``stop``, then drain. With ``reload`` its files are watched.

    Return True if every request ended in time and the sink accepted every record.

    Raises:
        OSError: a listener's address is in use, or does not belong to this host.
        PartEndedError: a part has ended by itself.
    """
    metrics = Metrics()
    metrics.settings_used = shares_in_force(settings.used)
    policy = settings.policy
    metrics.declare_issuers({policy.issuer, *policy.login_issuers, *policy.foreign_issuers})
    log = AccessLog(
        settings.records.open_sink(), run=secrets.token_hex(8), metrics=metrics, spill_folder=settings.records.spill
    )
    source = source_of(settings.identity, jwt_bundles=True)
    keys = IssuerKeys(settings.login_keys, source, on_fetched=metrics.jwks_updated)
    service = _issuing(settings, own, log, source, keys)
    _name_in_records(source, log)
    countersigning = Countersigning(log, service.countersign_own)
    server = StsServer(
        settings.server,
        service=service,
        source=source,
        events=settings.events,
        introspection=settings.introspection,
        refused_connections=RefusedConnections(log, "inbound", UnprovenRecords(log, settings.records.unproven)),
    )
    watcher = FileWatcher(reload.watched(service) if reload is not None else [], log)
    background = Parts()
    for name, work in (
        ("identity", source.run()),
        ("login issuer keys", keys.run()),
        ("policy", watcher.run()),
        ("checkpoints", countersigning.run()),
    ):
        background.start(name, work)
    register = service.register
    if register is not None and server.revocations is not None:
        register.load()
        metrics.revocations = register.count
        metrics.revocation_book = register.used
        metrics.revocation_ages = partial(_silence, register, policy.issuer)
        replicas = features.replicas_of(register, source, server.revocations)
        metrics.replicas, metrics.replica_failures = register.peers.counts, lambda: replicas.failures
        metrics.unacknowledged = register.unacknowledged
        background.start("revocations", register.run())
        background.start("replicas", replicas.run())
    loop = asyncio.get_running_loop()
    if reload is not None:
        loop.add_signal_handler(signal.SIGHUP, watcher.wake)
        release_signals(signal.SIGHUP)
    try:
        await server.start()
        log.event("started", detail=placement(os.environ))
        await background.run_until(stop)
    finally:
        try:
            in_time = await server.stop()  # first: identity and keys are still updated while it drains
            await countersigning.close()
            await background.close()
            if reload is not None:
                loop.remove_signal_handler(signal.SIGHUP)
        finally:  # records are written even if a part fails to stop
            log.event("stopped", detail=None if background.error is None else str(background.error))
            await log.close()
    return in_time and background.error is None and not log.unwritten


def _issuing(
    settings: TokenServiceSettings, own: Keys, log: AccessLog, source: IdentitySource, keys: IssuerKeys
) -> TokenService:
    """Make the service that issues tokens."""
    return TokenService(
        policy=settings.policy,
        keys=own,
        bundles=source,
        login_keys=keys,
        log=log,
        rate=ExchangeRate(settings.rate, monotonic=time.monotonic),
        actor_rate=ExchangeRate(
            settings.actor_rate, monotonic=time.monotonic, too_many="too many requests of one client"
        ),
        register=features.register_of(settings.revocation, log),
    )


def _silence(register: Register, issuer: str) -> Mapping[str, float]:
    """Return the age in seconds of our own revocation list by issuer; empty until most replicas have answered."""
    silence_s = register.peers.silence_s()
    return {} if silence_s is None else {issuer: silence_s}


def _name_in_records(source: IdentitySource, log: AccessLog) -> None:
    """Keep the workload name in records, and the SVID's metrics, up to date with ``source``."""

    def follow(identity: Identity | None) -> None:
        log.workload = None if identity is None else identity.spiffe_id
        log.metrics.svid_changed(None if identity is None else identity.svid.lifetime)

    source.subscribe(follow)
    log.metrics.identity_updates = lambda: asdict(source.counts)
