"""Settings and fixtures for every test."""

from __future__ import annotations

import gc
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


def pytest_collection_finish() -> None:
    """Exempt collected tests from garbage collection: it then takes a millisecond, not a quarter of a second."""
    gc.collect()
    gc.freeze()
