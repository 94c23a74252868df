"""Memory pressure of the process: *nearly short*, *short* and *hardly any*, judged before memory runs out. Pure.

A process without memory can no longer refuse anything: a C library or the kernel ends it. So it is *short* while some
memory is left. Hysteresis: it is short above 80 %, and until use falls below 70 %, or stays below 80 % for a while,
because a flood may leave memory in pieces that are never given back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

MIB: Final = 1024 * 1024

NEARLY_SHORT_ABOVE: Final = 0.6  # of the limit
ENOUGH_BELOW: Final = 0.7
SHORT_ABOVE: Final = 0.8
ROOM_BELOW: Final = 0.95
CALM_LOOKS: Final = 100  # below the first mark in a row, before it ends
HARDLY_ANY_ABOVE: Final = (
    0.85  # the rest goes fast: one event-loop iteration may read 256 KiB for each answer in flight
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLimits:
    """Limits on the caches of one process, in MiB. A token counts in each cache that holds it.

    In verdicts and permits together it counts once. ``max_verdicts_mib`` bounds verified tokens of peers, and as much
    again those of logins; ``max_permits_mib`` bounds permits (earlier decisions), which also use what verdicts leave
    free, and as much again plans of outbound calls; ``max_issued_mib`` bounds tokens issued for outbound calls;
    ``max_handles_mib`` bounds handles that outlive their request and those of logins, of which one subject has at most
    ``max_handles_per_subject``.
    """

    max_handles_mib: Annotated[
        int, "handles that outlive their request, with their tokens; logins use at most half of it"
    ] = 64
    max_handles_per_subject: Annotated[int, "the most login handles of one subject"] = 64
    max_verdicts_mib: Annotated[int, "verified tokens of peers; an entry uses as much again for logins"] = 32
    max_permits_mib: Annotated[int, "earlier permits"] = 16
    max_issued_mib: Annotated[int, "tokens issued for outbound calls"] = 32


class Memory:
    """Memory in use, against ``limit_bytes``. ``read`` returns the bytes in use; None if they are unknown now.

    ``enforced``: the kernel ends a process that uses more, with all its children.
    """

    def __init__(self, limit_bytes: int, read: Callable[[], int | None], *, enforced: bool = False) -> None:
        self.limit_bytes = limit_bytes
        self.enforced = enforced
        self.used_bytes = 0
        self.short = False
        self._read = read
        self._calm_looks = 0

    def has_room(self, size: int) -> bool:
        """Return True if a child process may take ``size`` bytes for a while, by the last reading."""
        return not self.enforced or self.used_bytes + size <= self.limit_bytes * ROOM_BELOW

    @property
    def hardly_any(self) -> bool:
        """True if memory must be freed at once."""
        return self.used_bytes > self.limit_bytes * HARDLY_ANY_ABOVE

    @property
    def nearly_short(self) -> bool:
        """True if memory is short, or may become so at once."""
        return self.short or self.used_bytes > self.limit_bytes * NEARLY_SHORT_ABOVE

    def look(self) -> bool:
        """Read the use and return True if memory is short. An unknown use changes nothing."""
        used = self._read()
        if used is not None:
            self.used_bytes = used
            self._calm_looks = 0 if used > self.limit_bytes * SHORT_ABOVE else self._calm_looks + 1
            stays = self.short and self._calm_looks < CALM_LOOKS
            self.short = used > self.limit_bytes * (ENOUGH_BELOW if stays else SHORT_ABOVE)
        return self.short
