"""Settings and fixtures for every test."""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # the duration of an example depends on the machine's load
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    """Restore signal masks: commands block signals early, and programs that later tests start would inherit that."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Collecting(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record)


@pytest.fixture(autouse=True)
def native_bugs() -> Iterator[list[logging.LogRecord]]:
    """Collect bugs of the native engine. A test leaves none: Python serves the requests, so nothing else would fail."""
    handler = _Collecting()
    logger = logging.getLogger("sidecar.native")
    logger.addHandler(handler)
    yield handler.found
    logger.removeHandler(handler)
    assert [record.exc_info for record in handler.found] == []


def pytest_collection_finish() -> None:
    """Exempt collected tests from garbage collection: it then takes a millisecond, not a quarter of a second."""
    gc.collect()
    gc.freeze()
