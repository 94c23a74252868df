"""Signals that come before anybody can act on them. It loads nothing: it is the first thing that a process does."""

from __future__ import annotations

import signal
from typing import Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def hold_signals() -> None:
    """Let signals wait until somebody is there to act on them.

    The default is to die by them; for the first process of a container it is not to hear of them at all, ever.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def release_signals(*numbers: signal.Signals) -> None:
    """Whoever acts on these is there now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
