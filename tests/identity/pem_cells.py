"""Identity files that cannot be used, and if a writer may still be at them: the cells of the tables that use them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

OURS: Final = ("certificate", "key", "bundle")


class Cell(NamedTuple):
    """``of`` makes it from the file as it should be, and from another identity's; None is a missing file."""

    of: Callable[[bytes, bytes], bytes | None]
    waited_for: bool


CELLS: Final = {
    "missing": Cell(lambda _own, _other: None, waited_for=True),
    "empty": Cell(lambda _own, _other: b"", waited_for=True),
    "half-written": Cell(lambda own, _other: own[: len(own) // 2], waited_for=True),
    "cut within its first boundary": Cell(lambda own, _other: own[:8], waited_for=True),
    "cut within its last boundary": Cell(lambda own, _other: own.rstrip()[:-2], waited_for=True),
    "cut in a second block": Cell(lambda own, _other: own + own[:40], waited_for=True),
    "of another identity": Cell(lambda _own, other: other, waited_for=False),
    "broken base64": Cell(lambda own, _other: own[:60] + b"!?" + own[62:], waited_for=False),
    "wrong block label": Cell(
        lambda own, _other: re.sub(rb"(BEGIN|END) [A-Z ]+", rb"\1 NOTHING", own), waited_for=False
    ),
    "no PEM": Cell(lambda _own, _other: b"words\n", waited_for=False),
}
