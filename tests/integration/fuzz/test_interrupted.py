"""An interrupted fuzzer reports its work so far, and no finding."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.harnesses import HARNESSES
from tests.fuzz.processes import Processes

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

_NAME = "scope"
_PATIENCE_S = 90.0


def _ready(pid: int | None) -> bool:
    """Tell if a process has a handler for SIGTERM."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what signals a process takes")
@pytest.mark.parametrize("coverage", [False, True], ids=["plain", "libFuzzer"])
def test_an_interrupt_is_no_finding_and_what_was_run_is_counted(coverage: bool) -> None:
    if coverage and importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not here")
    processes = Processes()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(fuzz, HARNESSES[_NAME], 60, 1, coverage=coverage, grow=False, processes=processes)
        deadline = time.monotonic() + _PATIENCE_S
        while not any(_ready(process.pid) for process in processes.running):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for process in processes.running:
            os.kill(process.pid or 0, signal.SIGINT)  # as a terminal does to all
        time.sleep(1.0)  # for some inputs
        assert not running.done()
        processes.stop()
        outcome = running.result(_PATIENCE_S)
    assert outcome.broken_by is None
    assert outcome.runs > 0


def test_after_an_interrupt_nothing_else_begins_for_long() -> None:
    processes = Processes()
    processes.stop()
    outcome = fuzz(HARNESSES[_NAME], 60, 1, coverage=False, grow=False, processes=processes)
    assert outcome.broken_by is None
