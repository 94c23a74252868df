"""What a peer is to the benchmark."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.world import World

INBOUND = "inbound"  # mTLS in, plain HTTP to the agent
OUTBOUND = "outbound"  # plain HTTP in, mTLS to the next hop


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a peer: its command, and what it finds in its environment."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One proxy. ``missing`` says why it cannot take part, None if it can; ``launch`` writes its settings.

    ``port`` of a world are named ``{name}-inbound`` and ``{name}-outbound``, for each of the ``roles``.
    """

    name: str
    title: str
    roles: frozenset[str]
    does_not: tuple[str, ...]
    missing: Callable[[], str | None]
    version: Callable[[], str]
    launch: Callable[[World], Launch]
    judges: bool = False  # it refuses a token that it should: it can take part where something is refused
    verifies: bool = False  # it verifies signatures: it can take part where each token is new


def first_line(command: Sequence[str]) -> str:
    """What a program says of its version; empty if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (done.stdout or done.stderr).splitlines()
    return lines[0].strip() if lines else ""
