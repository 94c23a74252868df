"""Signals held until a handler is installed. Imports nothing else: it is the first thing that a process runs."""

from __future__ import annotations

import signal
from typing import Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def hold_signals() -> None:
    """Block our signals until their handlers are installed.

    By default they would kill the process, or be lost for the first process of a container.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def release_signals(*numbers: signal.Signals) -> None:
    """Unblock signals whose handlers are installed now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
