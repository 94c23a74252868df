"""The parent process: opens probe and admin socket first, to report workers that are not ready, then starts workers."""

from __future__ import annotations

import asyncio
import signal

from sidecar.config.loader import Loaded
from sidecar.config.settings import SidecarSettings
from sidecar.observe.probe import probe_pages
from sidecar.proxy.listening.admin import AdminSocket, admin_pages
from sidecar.serving.page_site import PageSite
from sidecar.serving.probe import Probe
from sidecar.signals import release_signals
from sidecar.workers.parent import Workers
from sidecar.workers.worker_group import WorkerGroup


async def run_workers(loaded: Loaded[SidecarSettings], count: int, stop: asyncio.Event) -> bool:
    """Run one sidecar in ``count`` processes until ``stop``. Return True if every request ended in time."""
    settings, workers = loaded.settings, Workers(loaded, count)
    group = WorkerGroup(workers)
    probe = Probe(PageSite(probe_pages(group, settings.agent_probe())), settings.probe.host, settings.probe.port)
    await probe.open()
    admin = None
    if settings.admin_socket is not None:
        admin = AdminSocket(admin_pages(group.status, group.chains), settings.admin_socket)
        await admin.open()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, workers.reload)
    loop.add_signal_handler(signal.SIGUSR1, workers.leave)
    release_signals(signal.SIGHUP, signal.SIGUSR1)
    try:
        return await workers.run(stop)
    finally:
        if admin is not None:
            await admin.close()
        await probe.close()
