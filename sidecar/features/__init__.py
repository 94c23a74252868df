"""Registry of the sidecar's features: one package each, imported at its first use.

``FEATURES`` lists them all. Each module has a class ``Feature``, instantiated once per process: it holds the state
that all sides share, and creates the objects of each side (interfaces: ``proxy/journeys/feature.py``). A module is
imported when its feature is first asked for, or by ``load``.
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
    # used by a side directly, not by a route's protocol
    "logins": "sidecar.features.logins.logins",
    "user_logins": "sidecar.features.logins.user_logins",
    "observing": "sidecar.features.observing.observing",
}


class Features:
    """Features of one process, each instantiated at its first use.

    ``clock`` returns wall time in seconds. ``session_key``, shared by all workers, authenticates MCP session ids.
    ``engine`` is ``python`` or ``native``; for the latter a protocol also loads its ``warm`` module.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        session_key: bytes = b"",
        engine: str = "python",
    ) -> None:
        self.clock = clock
        self.monotonic = monotonic
        self.session_key = session_key
        self.engine = engine
        self._made: dict[str, Any] = {}

    def of(self, name: str) -> Any:
        """Return the feature of this name in ``FEATURES``. Raises LookupError if the name is unknown."""
        made = self._made.get(name)
        if made is None:
            if name not in FEATURES:
                raise LookupError(f"no feature {name}: add its module to FEATURES in sidecar/features/__init__.py")
            made = self._made[name] = import_module(FEATURES[name]).Feature(self)
        return made

    def used(self, name: str) -> Any | None:
        """Return a feature if it was instantiated before, else None."""
        return self._made.get(name)

    def load(self, names: Iterable[str]) -> None:
        """Instantiate features now, so that no request waits for an import."""
        for name in names:
            self.of(name)
