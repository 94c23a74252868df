"""Runs a sidecar in one process: start order and stop order, no logic."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from sidecar.assembly.run import run_server
from sidecar.assembly.server import assemble
from sidecar.config.loader import Loaded
from sidecar.config.settings import SidecarSettings
from sidecar.file_watch import FileWatcher
from sidecar.observe.placement import placement
from sidecar.observe.probe import OneProcess, probe_pages
from sidecar.proxy.listening.server import Server
from sidecar.reload import Reload
from sidecar.serving.page_site import PageSite
from sidecar.serving.probe import Probe
from sidecar.signals import release_signals

if TYPE_CHECKING:
    from sidecar.proxy.listening.admin import AdminSocket


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
    from sidecar.proxy.listening.admin import AdminSocket, admin_pages
    from sidecar.proxy.listening.status import chains_of, status_of

    since = int(time.time())

    async def status() -> dict[str, Any]:
        return status_of(server, reload.state, since=since, now=int(time.time()))

    async def chains() -> dict[str, Any]:
        return chains_of(server)

    return AdminSocket(admin_pages(status, chains), settings.admin_socket)
