"""Whether the process is short of memory: judged before there is none left. Pure.

A process without memory cannot say so any more: some C library below us ends it, or the kernel does. So it is short
while there still is some, and until there is so much again that the next caller does not make it short at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

NEARLY_SHORT_ABOVE: Final = 0.6  # of the limit
ENOUGH_BELOW: Final = 0.7
SHORT_ABOVE: Final = 0.8
HARDLY_ANY_ABOVE: Final = 0.85  # the rest goes fast: one turn of the loop may read 256 KiB for each answer under way


class Memory:
    """``limit_bytes``: what may be used. ``read``: what is used, in bytes; None when that cannot be told just now."""

    def __init__(self, limit_bytes: int, read: Callable[[], int | None]) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.short = False
        self._read = read

    @property
    def hardly_any(self) -> bool:
        """Whether it is so short that something must go at once."""
        return self.used_bytes > self.limit_bytes * HARDLY_ANY_ABOVE

    @property
    def urgent(self) -> bool:
        """Whether to look again very soon: it may be short by then, or more must go."""
        return self.hardly_any or (not self.short and self.used_bytes > self.limit_bytes * NEARLY_SHORT_ABOVE)

    def look(self) -> bool:
        """Whether it is short now. While nobody can tell, what was known last holds."""
        used = self._read()
        if used is not None:
            self.used_bytes = used
            self.short = used > self.limit_bytes * (ENOUGH_BELOW if self.short else SHORT_ABOVE)
        return self.short
