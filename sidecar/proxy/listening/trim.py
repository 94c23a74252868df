"""Returns freed memory to the system after a burst. Pure.

The C library keeps freed memory for later allocations, even for hours: after 3,000 connections a process that needs
38 MiB kept 100. Returning it takes about 0.2 ms per MiB, so it happens once much was freed, or less while allocation
rests. Under steady load, freed memory is reused anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sidecar.libc_memory import allocated_bytes, forget_unused_code, give_back
from sidecar.proxy.listening.memory_pressure import MIB
from sidecar.proxy.listening.system_memory import file_bytes

AFTER_BYTES: Final = 8 * MIB
AT_REST_AFTER_BYTES: Final = MIB
IDLE_LOOKS: Final = 10  # seconds without a request; the next request maps its code again, in about half a millisecond
IDLE_FILE_BYTES: Final = 8 * MIB  # an idle sidecar uses five
_RESTING_BYTES: Final = 64 * 1024  # allocation moves less than this from one look to the next


class Trim:
    """Decides when to return memory, by ``allocated``, the C library's count of bytes. ``give`` returns free memory.

    ``forget`` unmaps unused code. It is called when allocation rests after a move of ``AT_REST_AFTER_BYTES`` up or
    down; and once in each idle period, if more than ``IDLE_FILE_BYTES`` of mapped files are resident. ``requests``
    returns the number of requests so far.
    """

    def __init__(
        self,
        *,
        allocated: Callable[[], int | None] = allocated_bytes,
        give: Callable[[], None] = give_back,
        forget: Callable[[], None] = forget_unused_code,
        resident_files: Callable[[], int | None] = file_bytes,
        requests: Callable[[], int] = lambda: 0,
    ) -> None:
        self._allocated = allocated
        self._give = give
        self._forget = forget
        self._resident_files = resident_files
        self._requests = requests
        self._requests_before = 0
        self._idle_looks = 0
        self._at_last_forgotten: int | None = None
        self._furthest = 0  # largest distance from ``_at_last_forgotten`` since then
        self._most = 0
        self._last = 0

    def look(self) -> None:
        """Return memory if allocation is ``AFTER_BYTES`` below its peak since the last return. Call it once a second.

        At rest, ``AT_REST_AFTER_BYTES`` are enough: otherwise the last 8 MiB of a burst would stay for good.
        """
        self._forget_when_idle()
        allocated = self._allocated()
        if allocated is None:
            return
        self._most = max(self._most, allocated)
        resting = abs(allocated - self._last) < _RESTING_BYTES
        self._last = allocated
        if self._most - allocated >= (AT_REST_AFTER_BYTES if resting else AFTER_BYTES):
            self._most = allocated
            self._give()
        self._forget_after_moves(allocated, resting=resting)

    def _forget_when_idle(self) -> None:
        requests = self._requests()
        if requests != self._requests_before:
            self._requests_before, self._idle_looks = requests, 0
            return
        self._idle_looks += 1
        if self._idle_looks == IDLE_LOOKS and (self._resident_files() or 0) > IDLE_FILE_BYTES:
            self._forget()

    def _forget_after_moves(self, allocated: int, *, resting: bool) -> None:
        if self._at_last_forgotten is None:
            self._at_last_forgotten = allocated
        self._furthest = max(self._furthest, abs(allocated - self._at_last_forgotten))
        if resting and self._furthest >= AT_REST_AFTER_BYTES:
            self._at_last_forgotten, self._furthest = allocated, 0
            self._forget()
