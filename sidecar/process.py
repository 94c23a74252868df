"""Process around an event loop: its limits, its operations log, its signals, its exit code."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

from sidecar.background import PartEndedError, until_stopped
from sidecar.config.file_watch import FileWatcher
from sidecar.observe.operations import log_operations, report_loop_error
from sidecar.proxy.server import Server
from sidecar.signals import hold_signals, release_signals

_log: Final = logging.getLogger("sidecar")

_STACK_BYTES: Final = 1024 * 1024  # of a thread, instead of eight times that: the last one is needed to end in order

Main = Callable[[asyncio.Event], Coroutine[Any, Any, bool]]


def run_until_signal(main: Main) -> int:
    """Run an event loop until SIGTERM or SIGINT: exit code 0 after a clean stop.

    Exit code 1: requests were cut, records were not taken by their sink, a part ended by itself, or an address cannot
    be bound; the log tells which.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # keys and tokens end in no core file
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each request has two ends
    threading.stack_size(_STACK_BYTES)
    log_operations(sys.stderr)

    async def supervised() -> bool:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(report_loop_error)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        release_signals(signal.SIGTERM, signal.SIGINT)
        try:
            return await main(stop)
        finally:
            hold_signals()  # the loop takes its handlers away before the process is gone

    try:
        return 0 if _run(supervised()) else 1
    except OSError as error:
        _log.error("cannot start: %s", error.strerror or error)
        return 1
    except PartEndedError:  # it has been logged
        return 1


async def run_server(server: Server, watcher: FileWatcher, stop: asyncio.Event) -> bool:
    """Run a sidecar and watch its settings until ``stop``. Return True if every request ended within the drain time.

    Raises:
        PartEndedError: a part of it has ended by itself.
    """
    server.background.start("settings", until_stopped(watcher.run(), stop))  # during a drain nothing changes
    gc.collect()
    gc.freeze()  # what is there now stays: full collections need not look at it again
    return await server.run(stop)


def _run(main: Coroutine[Any, Any, bool]) -> bool:
    try:
        import uvloop
    except ImportError:  # stock asyncio works too, with more CPU and memory per connection
        return asyncio.run(main)
    return uvloop.run(main)
