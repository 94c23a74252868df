"""The settings that a sidecar runs by, for its status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sidecar.errors import Problem


@dataclass(slots=True, kw_only=True)
class SettingsState:
    """The current settings: the ``number`` of the file's version since the start, and its content.

    ``refused_at`` and ``problems`` describe the last file that was refused, until a later one is accepted.
    """

    loaded_at: int
    number: int = 1
    inbound_routes: Sequence[str] = ()
    outbound_routes: Sequence[str] = ()
    deny_rows: int = 0
    refused_at: int | None = None
    problems: Sequence[Problem] = field(default=())
