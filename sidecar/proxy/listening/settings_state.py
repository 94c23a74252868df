"""State of the settings in force, for the status document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from delegation_core.errors import Problem


@dataclass(slots=True, kw_only=True)
class SettingsState:
    """Summary of the settings in force. ``number`` counts the accepted versions of the file since the start.

    ``refused_at`` and ``problems`` describe the last refused file, until a later one is accepted. Times are seconds
    since the epoch.
    """

    loaded_at: int
    number: int = 1
    inbound_routes: Sequence[str] = ()
    outbound_routes: Sequence[str] = ()
    deny_rows: int = 0
    refused_at: int | None = None
    problems: Sequence[Problem] = field(default=())
