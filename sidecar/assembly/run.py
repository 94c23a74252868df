"""Runs an assembled sidecar, alone or as one worker of several."""

from __future__ import annotations

import asyncio
import gc

from sidecar.background import run_until_stopped
from sidecar.file_watch import FileWatcher
from sidecar.proxy.listening.server import Server


async def run_server(server: Server, watcher: FileWatcher, stop: asyncio.Event) -> bool:
    """Run a sidecar and watch its settings until ``stop``. Return True if every request ended within the drain time.

    Raises:
        OSError: as ``Server.run``.
        PartEndedError: a part of the sidecar has ended by itself.
    """
    server.background.start("settings", run_until_stopped(watcher.run(), stop))  # no reload during a drain
    gc.collect()
    gc.freeze()  # full collections need not scan the objects of the start, which live as long as the process
    return await server.run(stop)
