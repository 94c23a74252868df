"""Reduces a corpus: keeps, shortest first, the inputs that cover a new way through the product."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, Final

from tests.sources import PACKAGES, PRODUCT

Way = tuple[str, int, int]  # a file, and two of its lines that ran in sequence

_PRODUCT: Final = tuple(str(PACKAGES[name]) for name in PRODUCT)


def reduced(check: Callable[[bytes], None], inputs: Iterable[bytes], *, known: Iterable[bytes] = ()) -> list[bytes]:
    """Return the inputs that add a way to those of ``known``, the shortest first."""
    seen: set[Way] = set()
    for data in known:
        seen |= ways_of(check, data)
    kept: list[bytes] = []
    for data in sorted(set(inputs), key=lambda one: (len(one), one)):
        ways = ways_of(check, data)
        if not ways <= seen:
            seen |= ways
            kept.append(data)
    return kept


def ways_of(check: Callable[[bytes], None], data: bytes) -> set[Way]:
    """Return the pairs of product lines that an input covers."""
    ways: set[Way] = set()

    def enter(frame: FrameType, _event: str, _argument: object) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(_PRODUCT):
            return None
        last = frame.f_lineno

        def line(frame: FrameType, _event: str, _argument: object) -> Any:
            nonlocal last
            ways.add((name, last, frame.f_lineno))
            last = frame.f_lineno
            return line

        return line

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        check(data)
    finally:
        sys.settrace(before)
    return ways
