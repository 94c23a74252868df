"""Wiring: settings in, a running process out. Start order, stop order, no logic."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import secrets
import signal
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sidecar.assembly.server import assemble
from sidecar.background import Parts
from sidecar.config import SidecarSettings
from sidecar.config.bounds import shares_in_force
from sidecar.config.loader import Loaded, SettingsFiles, load_at_start
from sidecar.engine import engine_of
from sidecar.errors import ConfigError, Problem
from sidecar.file_watch import FileWatcher
from sidecar.identity.jwks import IssuerKeys
from sidecar.identity.source import Identity, IdentitySource
from sidecar.identity.source_factory import IdentitySettings, source_of
from sidecar.identity.workload_settings import WorkloadApiSettings
from sidecar.observe.access_log import AccessLog
from sidecar.observe.countersigning import Countersigning
from sidecar.observe.metrics import Metrics
from sidecar.observe.placement import placement
from sidecar.observe.probe import OneProcess, probe_pages
from sidecar.observe.record_rate import UnprovenRecords
from sidecar.observe.refused_connections import RefusedConnections
from sidecar.process import run_server, run_until_signal
from sidecar.proxy.admin import AdminSocket, admin_pages
from sidecar.proxy.memory_pressure import MIB
from sidecar.proxy.server import Server
from sidecar.proxy.status import chains_of, status_of
from sidecar.reload import Reload
from sidecar.serving.page_site import PageSite
from sidecar.serving.probe import Probe
from sidecar.signals import release_signals

if TYPE_CHECKING:  # a sidecar need not hold the token service's rooms in memory
    from collections.abc import Mapping

    from sidecar.config.sts_settings import TokenServiceSettings
    from sidecar.sts.revocations import Register
    from sidecar.sts.service import Keys, TokenService
    from sidecar.sts_reload import StsReload


_ADDRESSES: Final = 256 * MIB  # 225 to 330 MiB measured at the start; with less a process soon fails
_GRPC_ADDRESSES: Final = 2048 * MIB  # its dozen threads took 700 MiB, and starts failed below 800


def run(arguments: argparse.Namespace) -> int:
    """Run ``sidecar run``: serve beside an agent until told to stop. SIGHUP reloads the settings."""
    files = SettingsFiles("sidecar", Path(arguments.config), arguments.platform and Path(arguments.platform))
    try:
        loaded: Loaded[SidecarSettings] = load_at_start(files, os.environ)
        _require_one_process(loaded.settings, arguments.workers)
        engine_of(loaded.settings.engine)  # refuses one that is not installed
        require_address_space(loaded.settings.identity)
    except ConfigError as error:
        return refuse_settings(arguments.config, error)
    if arguments.workers > 1:
        from sidecar.workers.run import run_workers  # a sidecar of one process need not hold them in memory

        return run_until_signal(partial(run_workers, loaded, arguments.workers))
    return run_until_signal(partial(run_sidecar, loaded))


def require_address_space(identity: IdentitySettings) -> None:
    """Refuse a limit of address space (RLIMIT_AS) that would end the process; gRPC aborts without a message.

    Raises:
        ConfigError: with the limit and the fix.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    by_grpc = isinstance(identity, WorkloadApiSettings) and identity.py_spiffe
    needed = _GRPC_ADDRESSES if by_grpc else _ADDRESSES
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return
    what = "gRPC, of identity.source: py-spiffe," if by_grpc else "this process"
    wrong = f"is {limit // MIB} MiB of addresses, and {what} needs {needed // MIB} (most of them never become memory)"
    fix = "remove the limit (`ulimit -v unlimited`, LimitAS=infinity) and limit the memory of the cgroup"
    raise ConfigError([Problem("RLIMIT_AS", wrong, f"{fix}; or remove identity.source" if by_grpc else fix)])


def _require_one_process(settings: SidecarSettings, workers: int) -> None:
    """Refuse several workers where each would have to know of the others' subjects or logins.

    Raises:
        ConfigError: so it is.
    """
    by_login = any(route.token == "login" for route in settings.outbound_routes.routes)  # noqa: S105 - a kind
    if workers > 1 and by_login:
        wrong = f"is login, whose users come back to the process that they left, and --workers is {workers}"
        raise ConfigError([Problem("outbound.routes.token", wrong, "start with --workers 1")])
    if workers > 1 and any(route.a2a.strict_tasks for route in settings.inbound_routes.routes):
        wrong = f"is strict, which needs every task to be known in one process, and --workers is {workers}"
        raise ConfigError([Problem("inbound.routes.a2a.tasks", wrong, "start with --workers 1, or remove it")])
    if workers > 1 and settings.inbound is not None and settings.inbound.one_subject:
        wrong = f"holds in one process, and --workers is {workers}"
        raise ConfigError([Problem("inbound.subjects_at_once", wrong, "start with --workers 1, or remove it")])


async def run_sidecar(loaded: Loaded[SidecarSettings], stop: asyncio.Event) -> bool:
    """Run one sidecar until ``stop``. Return True if every request ended within the drain time."""
    settings = loaded.settings
    server = assemble(settings)
    server.parts.log.placement = placement(os.environ)
    probe = Probe(
        PageSite(probe_pages(OneProcess(server.metrics, server.missing), settings.agent_probe())),
        settings.probe.host,
        settings.probe.port,
    )
    reload = Reload(loaded, os.environ, server)
    watcher = FileWatcher(reload.all_watched(), server.parts.log)
    admin = _admin(settings, server, reload)
    await probe.open()
    if admin is not None:
        await admin.open()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, watcher.wake)
    loop.add_signal_handler(signal.SIGUSR1, server.leave)
    release_signals(signal.SIGHUP, signal.SIGUSR1)
    try:
        return await run_server(server, watcher, stop)
    finally:
        if admin is not None:
            await admin.close()
        await probe.close()


def _admin(settings: SidecarSettings, server: Server, reload: Reload) -> AdminSocket | None:
    if settings.admin_socket is None:
        return None
    since = int(time.time())

    async def status() -> dict[str, Any]:
        return status_of(server, reload.state, since=since, now=int(time.time()))

    async def chains() -> dict[str, Any]:
        return chains_of(server)

    return AdminSocket(admin_pages(status, chains), settings.admin_socket)


def run_sts(arguments: argparse.Namespace) -> int:
    """Run ``sidecar sts``: the token service, until told to stop. SIGHUP reloads its policy and keys."""
    from sidecar.sts_reload import StsReload

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
        OSError: a listener's address is taken or not ours.
        PartEndedError: a part has ended by itself.
    """
    from sidecar.sts.replicas import Replicas
    from sidecar.sts.server import StsServer

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
        replicas = Replicas(register, source, replica=server.revocations.replica)
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
            in_time = await server.stop()  # it drains while identity and keys are still updated
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
    """Make the core of a token service."""
    from sidecar.sts.rate import ExchangeRate
    from sidecar.sts.revocations import Register
    from sidecar.sts.service import TokenService

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
        register=None if settings.revocation is None else Register(settings.revocation, log),
    )


def _silence(register: Register, issuer: str) -> Mapping[str, float]:
    """Return the age of a token service's own list, by issuer; nothing before a majority of the replicas was heard."""
    silence_s = register.peers.silence_s()
    return {} if silence_s is None else {issuer: silence_s}


def _name_in_records(source: IdentitySource, log: AccessLog) -> None:
    """Let the records name the identity of now, and the metrics tell its life."""

    def follow(identity: Identity | None) -> None:
        log.workload = None if identity is None else identity.spiffe_id
        log.metrics.svid_changed(None if identity is None else identity.svid.lifetime)

    source.subscribe(follow)
    log.metrics.identity_updates = lambda: asdict(source.counts)


def refuse_settings(path: str, error: ConfigError) -> int:
    """Print every problem of the settings; return exit code 2."""
    print(f"{path} cannot be used:", file=sys.stderr)  # noqa: T201 - the command's own output
    for problem in error.problems:
        print(f"  {problem}", file=sys.stderr)  # noqa: T201
    return 2
