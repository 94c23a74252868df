"""Features of a sidecar: a package each, imported at its first use.

``FEATURES`` is the one list. A feature is a module with a class ``Feature``: it is made once in a process, holds what
all sides of the sidecar share of it, and makes its part of a side (``proxy/journeys/feature.py`` has the interfaces).
The settings that a process was given name the features that it loads, so nothing of the others is imported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any, Final

SESSION_KEY_BYTES: Final = 32

FEATURES: Final[Mapping[str, str]] = {
    # protocols of routes
    "mcp": "sidecar.features.mcp.feature",
    "a2a": "sidecar.features.a2a.feature",
    "grpc": "sidecar.features.grpc.feature",
    "metadata": "sidecar.features.door.resource_metadata",
    "outside": "sidecar.features.outside.calls",
    # of one or both sides
    "logins": "sidecar.features.logins.logins",
    "user_logins": "sidecar.features.logins.user_logins",
    "observing": "sidecar.features.observing.observing",
}


class Features:
    """The features of one process, each made when it is first asked for.

    ``clock`` is wall time in seconds. Ids of sessions are made by ``session_key``, which all workers share.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        session_key: bytes = b"",
    ) -> None:
        self.clock = clock
        self.monotonic = monotonic
        self.session_key = session_key
        self._made: dict[str, Any] = {}

    def of(self, name: str) -> Any:
        """Return a feature by its name in ``FEATURES``. Raises LookupError, there is none of that name."""
        made = self._made.get(name)
        if made is None:
            if name not in FEATURES:
                raise LookupError(f"no feature {name}: add its module to FEATURES in sidecar/features/__init__.py")
            made = self._made[name] = import_module(FEATURES[name]).Feature(self)
        return made

    def used(self, name: str) -> Any | None:
        """Return a feature that is in use; None: it was never asked for."""
        return self._made.get(name)

    def load(self, names: Iterable[str]) -> None:
        """Make features now, so that no request waits for an import."""
        for name in names:
            self.of(name)
