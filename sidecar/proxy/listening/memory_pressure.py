"""Levels of memory pressure: *nearly short*, *short* and *hardly any*. Pure.

A process without memory can no longer shed load: a C library or the kernel ends it. So *short* begins while some memory
is left. Hysteresis: enter *short* above 80 %; leave it below 70 %, or after a while below 80 %, because a flood may
leave fragmented memory that never returns to the system.
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
CALM_LOOKS: Final = 100  # readings in a row below ``SHORT_ABOVE`` that end *short*
HARDLY_ANY_ABOVE: Final = 0.85  # one event-loop iteration may read 256 KiB for each answer in flight


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLimits:
    """Limits on the caches of one process, in MiB. A token counts in each cache that holds it.

    Verdicts and permits share their tokens: there it counts once. ``max_verdicts_mib`` bounds the verified tokens of
    peers, and separately those of logins. ``max_permits_mib`` bounds permits (earlier decisions), which may also use
    the space that verdicts leave free, and separately the plans of outbound calls. ``max_issued_mib`` bounds tokens
    issued for outbound calls. ``max_handles_mib`` bounds lingering handles and handles of logins; one subject has at
    most ``max_handles_per_subject`` of the latter.
    """

    max_handles_mib: Annotated[
        int, "handles that outlive their request, with their tokens; logins use at most half of it"
    ] = 64
    max_handles_per_subject: Annotated[int, "the most login handles of one subject"] = 64
    max_verdicts_mib: Annotated[int, "verified tokens of peers; an entry uses as much again for logins"] = 32
    max_permits_mib: Annotated[int, "earlier permits"] = 16
    max_issued_mib: Annotated[int, "tokens issued for outbound calls"] = 32


class Memory:
    """Memory use and its limit. ``read`` returns the bytes in use; None if they are unknown now.

    ``enforced``: the kernel enforces ``limit_bytes`` on this process and its children, and kills above it.
    """

    def __init__(self, limit_bytes: int, read: Callable[[], int | None], *, enforced: bool = False) -> None:
        self.limit_bytes = limit_bytes
        self.enforced = enforced
        self.used_bytes = 0
        self.short = False
        self._read = read
        self._calm_looks = 0

    def has_room(self, size: int) -> bool:
        """Return True if a child process may use ``size`` bytes for a while, according to the last reading."""
        return not self.enforced or self.used_bytes + size <= self.limit_bytes * ROOM_BELOW

    @property
    def hardly_any(self) -> bool:
        """True if memory must be freed at once."""
        return self.used_bytes > self.limit_bytes * HARDLY_ANY_ABOVE

    @property
    def nearly_short(self) -> bool:
        """True if memory is short, or may become short within one event-loop iteration."""
        return self.short or self.used_bytes > self.limit_bytes * NEARLY_SHORT_ABOVE

    def look(self) -> bool:
        """Read the use and return True if memory is short. While the use is unknown, the level stays."""
        used = self._read()
        if used is not None:
            self.used_bytes = used
            self._calm_looks = 0 if used > self.limit_bytes * SHORT_ABOVE else self._calm_looks + 1
            stays = self.short and self._calm_looks < CALM_LOOKS
            self.short = used > self.limit_bytes * (ENOUGH_BELOW if stays else SHORT_ABOVE)
        return self.short
