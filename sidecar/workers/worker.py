"""One worker: a sidecar without probe and admin socket, which the parent serves. ``-m sidecar.workers.worker FD``.

A worker has its own loop, Workload API stream, keys, token cache and limits, and listens at the same addresses as its
siblings. It ends at once when its parent does, so that a killed sidecar does not block the addresses of the next one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from functools import partial

from sidecar.assembly.run import run_server
from sidecar.assembly.server import Place, assemble
from sidecar.file_watch import FileWatcher
from sidecar.observe.metrics_merge import families_of
from sidecar.observe.placement import placement
from sidecar.observe.scrape import scrape
from sidecar.process import run_until_signal
from sidecar.proxy.journeys.remote_handles import Inbox
from sidecar.proxy.listening.status import chains_of, status_of
from sidecar.reload import AppliedSettings, watched_door
from sidecar.signals import hold_signals, release_signals
from sidecar.workers.channel import READY, Start, ToParent
from sidecar.workers.shared_settings import COMMIT, COUNT, EVENT, PREPARE, REFUSE, ROOM, prepare


def main(control: int) -> int:
    """Run until the parent orders the stop or is gone. Return exit code 0 if every request ended in time."""
    hold_signals()
    parent = ToParent(socket.socket(fileno=control))
    try:
        start = parent.receive_start()
    except EOFError:
        return 1
    return run_until_signal(partial(run_worker, start, parent))


async def run_worker(start: Start, parent: ToParent, stop: asyncio.Event) -> bool:
    """Run one worker until ``stop``. Return True if every request ended within the drain time."""
    _sign_operations(start.number)
    inboxes = [Inbox(socket.socket(fileno=read), socket.socket(fileno=write)) for read, write in start.inboxes]
    server = assemble(
        start.loaded.settings,
        place=Place(
            number=start.number,
            inboxes=inboxes,
            sink_lock=start.sink_lock,
            own_secret=start.own_secret,
            session_key=start.session_key,
        ),
    )
    server.parts.log.placement = placement(os.environ)
    applied, log = AppliedSettings(start.loaded.settings, server), server.parts.log
    watcher = FileWatcher(watched_door(server), log)
    since = int(time.time())

    async def obey() -> None:
        await parent.serve(
            {
                "turns": lambda: True,
                "missing": server.missing,
                "metrics": lambda: families_of(scrape(server.metrics)),
                "status": lambda: status_of(server, applied.state, since=since, now=int(time.time())),
                "chains": lambda: chains_of(server),
                ROOM: server.room_for,
                PREPARE: partial(prepare, applied),
            },
            {
                "stop": stop.set,
                "reload": watcher.wake,
                "leave": server.leave,
                COMMIT: applied.commit,
                REFUSE: applied.refuse,
                EVENT: lambda event, detail: log.event(event, detail=detail),
                COUNT: lambda what, ok: log.metrics.reloaded(what, ok=ok),
            },
        )
        await server.cut()
        stop.set()
        await asyncio.get_running_loop().create_future()

    async def tell() -> None:
        await server.ready.wait()
        parent.say(READY)
        await asyncio.get_running_loop().create_future()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, watcher.wake)
    release_signals(signal.SIGHUP)
    server.background.start("orders of the parent", obey())
    server.background.start("word to the parent", tell())
    return await run_server(server, watcher, stop)


def _sign_operations(number: int) -> None:
    """Add the worker's number to every line of its operations log."""

    def sign(record: logging.LogRecord) -> bool:
        record.worker = number
        return True

    for handler in logging.getLogger().handlers:
        handler.addFilter(sign)


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1])))
