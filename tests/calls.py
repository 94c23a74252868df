"""Work counted in calls, so that a busy machine changes nothing."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def calls_of(act: Callable[[], object]) -> int:
    """Calls that ``act`` makes of functions of Python and of C: system calls are among them."""
    count = 0

    def hook(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    gc.disable()  # it calls what cleans up after others
    sys.setprofile(hook)
    try:
        act()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count
