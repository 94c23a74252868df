"""Sketches survive a file, merge into the union, and hold no name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from delegation_audit.ratio.sketches import SketchError, Sketches, load, save
from delegation_core.records.distinct import Distinct, estimate


def sketches(machines: range, people: range) -> Sketches:
    both = Distinct(), Distinct()
    for sketch, names in zip(both, (machines, people), strict=True):
        for name in names:
            sketch.add(str(name))
    return Sketches(*both)


def test_a_sketch_read_again_is_the_same(tmp_path: Path) -> None:
    one = sketches(range(50), range(300))
    save(one, str(tmp_path / "s"))
    read = load(str(tmp_path / "s"))
    assert read.machines.registers == one.machines.registers
    assert read.people.registers == one.people.registers


def test_merged_ones_count_the_union() -> None:
    both = sketches(range(60), range(200)).merge(sketches(range(40, 100), range(100, 300)))
    assert estimate(both.machines) == pytest.approx(100, rel=0.03)
    assert estimate(both.people) == pytest.approx(300, rel=0.03)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        json.dumps({"sidecar_sketch": 1, "machines": "AA==", "people": "AA=="}).encode(),
        json.dumps({"sidecar_sketch": 2, "machines": "", "people": ""}).encode(),
        json.dumps({"sidecar_sketch": 1, "machines": "/" * 5464, "people": ""}).encode(),
        b"\xff" * 100_000,
    ],
)
def test_what_is_no_sketch_is_named(tmp_path: Path, document: bytes) -> None:
    (tmp_path / "s").write_bytes(document)
    with pytest.raises(SketchError, match="sketch"):
        load(str(tmp_path / "s"))
