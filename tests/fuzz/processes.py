"""Processes that run one harness each, forked from a server that has imported and instrumented everything once.

Each run by itself would spend eight seconds of CPU on that, many times what it fuzzes in `make fuzz MINUTES=1`.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final

_SERVER: Final = multiprocessing.get_context("forkserver")


class Processes:
    """The processes in progress. Once ``stopped`` no other starts; each reports its work, and its end is not a finding.

    The processes ignore SIGINT, which a terminal sends to all: Python would raise it inside the harness.
    """

    def __init__(self) -> None:
        _SERVER.set_forkserver_preload(["tests.fuzz.one", "tests.fuzz.plain"])  # without atheris only the second
        self.stopped = False
        self._running: set[ForkServerProcess] = set()
        self._lock = threading.RLock()  # a signal may come while the main thread holds it

    @property
    def running(self) -> tuple[ForkServerProcess, ...]:
        """The processes in progress."""
        with self._lock:
            return tuple(self._running)

    def stop(self) -> None:
        """End all of them."""
        self.stopped = True
        with self._lock:
            for process in self._running:
                process.terminate()

    def run(self, module: str, arguments: Sequence[str], output: Path, *, timeout_s: float) -> tuple[int, str]:
        """Call ``main`` of ``module`` in one process; return its exit code, and what it wrote to ``output``.

        Raises:
            TimeoutError: it hung beyond all deadlines.
        """
        output.touch()
        process = _SERVER.Process(target=_main, args=(module, arguments, output))
        with self._lock:  # starting one reads the exit codes of others: two threads must not read the same one
            process.start()
            self._running.add(process)
            if self.stopped:
                process.terminate()
        ended = wait([process.sentinel], timeout_s)
        with self._lock:
            if not ended:
                process.kill()
            process.join()
            self._running.discard(process)
        if not ended:
            raise TimeoutError(f"{module} {arguments[0]} did not end")
        return process.exitcode or 0, output.read_text("utf-8", "replace")


def _main(module: str, arguments: Sequence[str], output: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it, by SIGTERM
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for standard in (1, 2):
        os.dup2(file, standard)
    sys.exit(importlib.import_module(module).main(*arguments))
