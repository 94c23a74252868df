"""Whether the process is short of memory: judged before there is none left. Pure.

A process without memory cannot say so any more: some C library below us ends it, or the kernel does. So it is short
while there still is some, and until there is so much again that the next caller does not make it short at once. Where
that much does not come back it is over once it was not short for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MIB: Final = 1024 * 1024

NEARLY_SHORT_ABOVE: Final = 0.6  # of the limit
ENOUGH_BELOW: Final = 0.7
SHORT_ABOVE: Final = 0.8
ROOM_BELOW: Final = 0.95
CALM_LOOKS: Final = 100  # without being short by the first mark: what a flood left in pieces is not given back
HARDLY_ANY_ABOVE: Final = 0.85  # the rest goes fast: one turn of the loop may read 256 KiB for each answer under way


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLimits:
    """Limits on the caches of one process, in MiB. A token counts wherever it is held.

    ``max_handles_mib`` is for handles that outlive their request and for those of logins, of which one subject has at
    most ``max_handles_per_subject``; ``max_verdicts_mib`` for verified tokens of peers, and as much for logins;
    ``max_permits_mib`` for permits, and as much for plans of outbound calls; ``max_issued_mib`` for tokens issued for
    outbound calls.
    """

    max_handles_mib: int = 64
    max_handles_per_subject: int = 64
    max_verdicts_mib: int = 32
    max_permits_mib: int = 16
    max_issued_mib: int = 32


class Memory:
    """``limit_bytes``: what may be used. ``read``: what is used, in bytes; None when that cannot be told just now.

    ``enforced``: whoever uses more is ended by the kernel, with all that it has started.
    """

    def __init__(self, limit_bytes: int, read: Callable[[], int | None], *, enforced: bool = False) -> None:
        self.limit_bytes = limit_bytes
        self.enforced = enforced
        self.used_bytes = 0
        self.short = False
        self._read = read
        self._calm_looks = 0

    def has_room(self, size: int) -> bool:
        """Whether a process of ours may take ``size`` bytes for a while, by the last look."""
        return not self.enforced or self.used_bytes + size <= self.limit_bytes * ROOM_BELOW

    @property
    def hardly_any(self) -> bool:
        """Whether it is so short that something must go at once."""
        return self.used_bytes > self.limit_bytes * HARDLY_ANY_ABOVE

    @property
    def nearly_short(self) -> bool:
        """Whether it is short, or may become so at once."""
        return self.short or self.used_bytes > self.limit_bytes * NEARLY_SHORT_ABOVE

    def look(self) -> bool:
        """Whether it is short now. While nobody can tell, what was known last holds."""
        used = self._read()
        if used is not None:
            self.used_bytes = used
            self._calm_looks = 0 if used > self.limit_bytes * SHORT_ABOVE else self._calm_looks + 1
            stays = self.short and self._calm_looks < CALM_LOOKS
            self.short = used > self.limit_bytes * (ENOUGH_BELOW if stays else SHORT_ABOVE)
        return self.short
