"""Bounds on the size of a settings document and its included files, and the used share of each bound.

The bounds fit a token service of 500 agents with ten callers each, and a deny list of 10,000 rows. docs/sizing.md
states the memory and time for these sizes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from delegation_core.errors import Problem

_LOG: Final = logging.getLogger("sidecar.config")
NEAR: Final = 0.8  # share of a bound from which it is reported


class Bound(NamedTuple):
    """Upper bound on a count of ``unit``; ``fix`` is the advice for a document that exceeds it."""

    most: int
    unit: str
    fix: str


_SPLIT: Final = "give a part of the workloads a token service of their own, or use groups"
_FEWER: Final = "remove what is not needed, or use groups"

BOUNDS: Final[Mapping[str, Bound]] = {
    "bytes": Bound(4 * 1024 * 1024, "bytes in all files", "use groups, or remove what is not needed"),
    "nodes": Bound(250_000, "keys and values in all files", _FEWER),
    "depth": Bound(24, "levels", "flatten it"),
    "files": Bound(256, "included files", "join some of them"),
    "targets": Bound(5000, "rows", _SPLIT),
    "rules": Bound(10_000, "pairs of actor and audience", _SPLIT),
    "self_rules": Bound(10_000, "rows", _SPLIT),
    "self_delegations": Bound(10_000, "rows", _SPLIT),
    "entries": Bound(1000, "rows", _SPLIT),
    "groups": Bound(1000, "groups", _FEWER),
    "deny": Bound(10_000, "rows", "remove rows of tokens that have expired, or revoke at the token service"),
}


def find_exceeded(field: str, name: str, used: int) -> Iterator[Problem]:
    """Yield a problem of ``field`` if ``used`` exceeds the bound ``name``."""
    bound = BOUNDS[name]
    if used > bound.most:
        yield Problem(field, f"has {used} {bound.unit}; at most {bound.most} are allowed", bound.fix)


def near_bounds(used: Mapping[str, int]) -> Iterator[Problem]:
    """Yield a note for each bound whose used share is above ``NEAR``."""
    for name, count in used.items():
        bound = BOUNDS[name]
        if count > NEAR * bound.most:
            share = f"{100 * count // bound.most} % of its bound is used: {count} of {bound.most} {bound.unit}"
            yield Problem(name, share, f"{bound.fix}; above the bound the settings are refused, also at a restart")


def shares_in_force(used: Mapping[str, int]) -> Mapping[str, float]:
    """Return the used share of each bound for settings now in force, and log each share above ``NEAR``."""
    for note in near_bounds(used):
        fields = {"field": note.field, "wrong": note.wrong, "fix": note.fix}
        _LOG.warning("settings are near a bound", extra=fields)
    return {name: count / BOUNDS[name].most for name, count in used.items()}
