"""Runs a process around an event loop: limits, operations log, signals, exit code."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

from sidecar.background import PartEndedError
from sidecar.libc_memory import forget_unused_code, give_back, keep_buffers_apart
from sidecar.observe.operations import log_operations, report_loop_error
from sidecar.signals import hold_signals, release_signals

_log: Final = logging.getLogger("sidecar")

# Of a thread: with the default, 8 MiB, a thread that an orderly stop needs may fail to start.
_STACK_BYTES: Final = 1024 * 1024
_SETTLED_S: Final = 2.0  # after the start

Main = Callable[[asyncio.Event], Coroutine[Any, Any, bool]]


def run_until_signal(main: Main) -> int:
    """Run ``main`` in an event loop until SIGTERM or SIGINT; return exit code 0 after a clean stop.

    Exit code 1: requests were cut, the sink did not accept all records, a part ended by itself, or an address cannot be
    bound; the log says which.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would contain keys and tokens
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a request needs two descriptors
    threading.stack_size(_STACK_BYTES)
    keep_buffers_apart()
    log_operations(sys.stderr)

    async def supervised() -> bool:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(report_loop_error)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        release_signals(signal.SIGTERM, signal.SIGINT)
        settling = loop.call_later(_SETTLED_S, _settle)
        try:
            return await main(stop)
        finally:
            settling.cancel()
            hold_signals()  # uvloop and asyncio remove their handlers before the process ends

    try:
        return 0 if _run(supervised()) else 1
    except OSError as error:
        _log.error("cannot start: %s", error.strerror or error)
        return 1
    except PartEndedError:  # ``Parts`` has logged it
        return 1


def _settle() -> None:
    """Return memory that only the start needed."""
    give_back()
    forget_unused_code()


def _run(main: Coroutine[Any, Any, bool]) -> bool:
    try:
        import uvloop
    except ImportError:  # stock asyncio works too, with more CPU and memory per connection
        return asyncio.run(main)
    return uvloop.run(main)
