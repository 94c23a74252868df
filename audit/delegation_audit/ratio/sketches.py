"""Sketches of a census in a file: sites merge them into one count without exchanging names."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from delegation_core.records.distinct import Distinct

VERSION: Final = 1
_MAX_BYTES: Final = 1 << 16


class SketchError(ValueError):
    """The file is not a valid sketch. The text names the file and the fix."""


@dataclass(frozen=True, slots=True)
class Sketches:
    """Sketches of the machines and the people of one census."""

    machines: Distinct
    people: Distinct

    def merge(self, other: Sketches) -> Sketches:
        """Return sketches of the union of both censuses."""
        return Sketches(_union(self.machines, other.machines), _union(self.people, other.people))


def save(sketches: Sketches, file: str) -> None:
    """Write sketches to a file. Raises OSError."""
    document = {
        "sidecar_sketch": VERSION,
        "machines": b64encode(sketches.machines.registers).decode("ascii"),
        "people": b64encode(sketches.people.registers).decode("ascii"),
    }
    Path(file).write_text(json.dumps(document) + "\n", encoding="ascii")


def load(file: str) -> Sketches:
    """Read sketches from a file.

    Raises:
        SketchError: the file holds no sketch, or one of another version.
        OSError: the file cannot be read.
    """
    with Path(file).open("rb") as opened:
        content = opened.read(_MAX_BYTES + 1)
    try:
        document = json.loads(content)
        sketches = Sketches(_sketch(document["machines"]), _sketch(document["people"]))
        version = document["sidecar_sketch"]
    except (ValueError, KeyError, TypeError):
        raise SketchError(f"{file}: not a sketch; write one with sidecar audit ratio --save FILE") from None
    if version != VERSION:
        raise SketchError(f"{file}: a sketch of version {VERSION} is needed; save it again")
    return sketches


def _sketch(text: str) -> Distinct:
    sketch = Distinct()
    registers = b64decode(text, validate=True)
    if len(registers) != len(sketch.registers) or max(registers) > 64:
        raise ValueError("registers")
    sketch.registers = bytearray(registers)
    return sketch


def _union(one: Distinct, other: Distinct) -> Distinct:
    union = Distinct()
    union.registers = bytearray(map(max, one.registers, other.registers))
    return union
