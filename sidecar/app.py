"""Wiring: settings in, a running process out. Start order, stop order, no logic."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sidecar.config import SidecarSettings, load_apart, load_sidecar, load_sts
from sidecar.config.addresses import Address
from sidecar.errors import ConfigError, Reason
from sidecar.exchange.client import TokenExchange
from sidecar.identity.handshake import OnRefused
from sidecar.identity.jwks import IssuerKeys
from sidecar.identity.source import Identity
from sidecar.identity.tls import server_context
from sidecar.identity.workload_api import WorkloadApiSource
from sidecar.observe.access_log import AccessLog
from sidecar.observe.metrics import Metrics
from sidecar.observe.probe import Probe, probe_app
from sidecar.proxy.forward import Forwarder
from sidecar.proxy.handles import Handles
from sidecar.proxy.headers import from_agent
from sidecar.proxy.inbound import Inbound
from sidecar.proxy.journey import Tasks
from sidecar.proxy.listener import Listener, ListenerSettings, Shed
from sidecar.proxy.origins import Origins
from sidecar.proxy.outbound import Outbound
from sidecar.proxy.server import Parts, Server, first_of
from sidecar.proxy.snapshot import Policies
from sidecar.wire.pool import Origin, UpstreamPool

if TYPE_CHECKING:  # a sidecar need not hold the token service's rooms in memory
    from sidecar.config.sts_reload import StsFiles
    from sidecar.config.sts_settings import TokenServiceSettings
    from sidecar.sts.service import Keys

_log: Final = logging.getLogger("sidecar")

Main = Callable[[asyncio.Event], Coroutine[Any, Any, bool]]


def run(arguments: argparse.Namespace) -> int:
    """``sidecar run``: stand beside an agent until told to stop."""
    try:
        settings = load_apart(load_sidecar, Path(arguments.config), os.environ)
    except ConfigError as error:
        return refuse_settings(arguments.config, error)
    return run_until_signal(partial(run_sidecar, settings))


async def run_sidecar(settings: SidecarSettings, stop: asyncio.Event) -> bool:
    """Run one sidecar until ``stop``. Whether every request ended within the drain time."""
    server = assemble(settings)
    probe = Probe(probe_app(server.metrics, server.missing), settings.probe.host, settings.probe.port)
    await probe.open()
    try:
        gc.collect()
        gc.freeze()  # what is there now stays: full collections need not look at it again
        return await server.run(stop)
    finally:
        await probe.close()


def assemble(settings: SidecarSettings) -> Server:
    """One sidecar, made of its parts and not yet running. Needs a running event loop."""
    metrics = Metrics()
    log = AccessLog(settings.records.open_sink(), run=secrets.token_hex(8), metrics=metrics)
    source = WorkloadApiSource(settings.identity)
    keys = IssuerKeys(settings.keys, source, on_fetched=metrics.jwks_updated)
    return Server(_parts(settings, source, keys, log))


def run_sts(arguments: argparse.Namespace) -> int:
    """``sidecar sts``: run the token service until told to stop. SIGHUP reads its policy and keys again."""
    from sidecar.config.sts_reload import StsFiles
    from sidecar.sts.following import look_at, seen_by

    path = Path(arguments.config)
    seen = seen_by(partial(look_at, path))
    try:
        settings = load_apart(load_sts, path, os.environ)
        files = StsFiles(path, os.environ, settings, seen=seen)
        keys = files.own_keys(int(time.time()))
    except ConfigError as error:
        return refuse_settings(arguments.config, error)
    return run_until_signal(partial(run_token_service, settings, keys, files=files))


async def run_token_service(
    settings: TokenServiceSettings, own: Keys, stop: asyncio.Event, *, files: StsFiles | None = None
) -> bool:
    """Run one token service until ``stop``, then drain. Whether every request ended in time. ``files`` are followed."""
    from sidecar.sts.following import Follower
    from sidecar.sts.rate import ExchangeRate
    from sidecar.sts.server import StsServer
    from sidecar.sts.service import TokenService

    metrics = Metrics()
    metrics.declare_issuers({settings.policy.issuer, *settings.policy.login_issuers})
    log = AccessLog(settings.records.open_sink(), run=secrets.token_hex(8), metrics=metrics)
    source = WorkloadApiSource(replace(settings.identity, jwt_bundles=True))
    keys = IssuerKeys(settings.login_keys, source, on_fetched=metrics.jwks_updated)
    rate = ExchangeRate(settings.rate, monotonic=time.monotonic)
    service = TokenService(policy=settings.policy, keys=own, bundles=source, login_keys=keys, log=log, rate=rate)

    def follow(identity: Identity | None) -> None:
        log.workload = None if identity is None else identity.spiffe_id
        metrics.svid_expires_at = 0 if identity is None else identity.svid.not_after

    source.subscribe(follow)
    server = StsServer(settings.server, service=service, source=source, on_refused=_refusals(log))
    follower = Follower(files.followed(service) if files is not None else [], log)
    running = [asyncio.ensure_future(work) for work in (source.run(), keys.run(), follower.run())]
    loop = asyncio.get_running_loop()
    if files is not None:
        loop.add_signal_handler(signal.SIGHUP, follower.wake)
    try:
        await server.start()
        log.event("started")
        await first_of(stop, running)
    finally:
        in_time = await server.stop()  # it drains while identity and keys are still followed
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if files is not None:
            loop.remove_signal_handler(signal.SIGHUP)
        log.event("stopped")
        await log.close()
    return in_time


def _refusals(log: AccessLog) -> OnRefused:
    """Counts and records the handshakes that a listener refused."""

    def refused(reason: Reason, detail: str, address: str | None) -> None:
        log.metrics.handshake_refused(reason)
        log.event(
            "connection.refused", decision="deny", reason=reason, direction="inbound", source=address, detail=detail
        )

    return refused


def _parts(settings: SidecarSettings, source: WorkloadApiSource, keys: IssuerKeys, log: AccessLog) -> Parts:
    metrics = log.metrics
    metrics.declare_issuers(one.issuer for one in settings.keys)
    metrics.declare_routes("inbound", (route.name for route in settings.inbound_routes.routes))
    metrics.declare_routes("outbound", (route.name for route in settings.outbound_routes.routes))
    policies, tasks = Policies(settings.policy), Tasks()
    handles = Handles(clock=time.time, monotonic=time.monotonic)
    exchange = None if settings.exchange is None else TokenExchange(settings.exchange, source, keys, log, metrics)
    listeners: list[Listener] = []
    pools: list[UpstreamPool] = []
    if settings.inbound is not None:
        pools.append(UpstreamPool(settings.inbound.upstream_limits))
        agent = settings.inbound.agent
        inbound = Inbound(
            policies=policies,
            keys=keys,
            log=log,
            handles=handles,
            forwarder=Forwarder(pools[-1], from_agent),
            tasks=tasks,
            agent=Origin(agent.host, agent.port, key=agent),
            clock=time.time,
        )

        listeners.append(
            Listener(
                _listener(settings.inbound.listen),
                settings.inbound.limits,
                handler=inbound,
                shed=Shed(log, "inbound"),
                context=server_context(source, on_refused=_refusals(log)),
            )
        )
    if settings.outbound is not None and exchange is not None:
        pools.append(UpstreamPool(settings.outbound.upstream_limits))
        outbound = Outbound(
            policies=policies,
            keys=keys,
            exchange=exchange,
            log=log,
            handles=handles,
            forwarder=Forwarder(pools[-1], list),
            tasks=tasks,
            origins=Origins(source, time.time),
            own_authorities=_own_authorities(settings.outbound.listen),
            clock=time.time,
        )
        listeners.append(
            Listener(
                _listener(settings.outbound.listen),
                settings.outbound.limits,
                handler=outbound,
                shed=Shed(log, "outbound"),
                context=None,
                proxy_form=True,
            )
        )
    return Parts(
        source=source,
        keys=keys,
        policies=policies,
        log=log,
        handles=handles,
        tasks=tasks,
        pools=tuple(pools),
        listeners=tuple(listeners),
        exchange=exchange,
        needed_issuers=settings.needed_issuers,
        drain_s=settings.drain_s,
    )


def _listener(address: Address) -> ListenerSettings:
    return ListenerSettings(host=address.host, port=address.port)


def _own_authorities(address: Address) -> frozenset[str]:
    """The names under which the agent may address our outbound listener itself, to choose a target by prefix."""
    hosts = {str(address).rpartition(":")[0], "127.0.0.1", "localhost", "[::1]"}
    return frozenset(f"{host}:{address.port}" for host in hosts)


def run_until_signal(main: Main) -> int:
    """Run an event loop until SIGTERM or SIGINT: exit code 0 after a clean stop, 1 when requests were cut."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    async def supervised() -> bool:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        return await main(stop)

    try:
        return 0 if _run(supervised()) else 1
    except OSError as error:
        _log.error("cannot start: %s", error.strerror or error)
        return 1


def _run(main: Coroutine[Any, Any, bool]) -> bool:
    try:
        import uvloop
    except ImportError:  # stock asyncio works too, with more CPU and memory per connection
        return asyncio.run(main)
    return uvloop.run(main)


def refuse_settings(path: str, error: ConfigError) -> int:
    """Say every problem of the settings: exit code 2."""
    print(f"{path} cannot be used:", file=sys.stderr)  # noqa: T201 - the command's own output
    for problem in error.problems:
        print(f"  {problem}", file=sys.stderr)  # noqa: T201
    return 2
