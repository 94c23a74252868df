"""The seam between the native engine and the engine in Python: what one names of the other."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import sidecar

ROOT: Final = Path(sidecar.__file__).parent
RUST: Final = {path.stem: path.read_text() for path in sorted((ROOT / "native" / "src").glob("*.rs"))}


def test_no_module_of_rust_imports_one_that_imports_it() -> None:
    uses = {module: set(re.findall(r"\bcrate::(\w+)", text)) - {module} for module, text in RUST.items()}
    assert uses["call"] >= {"side", "prepared"}  # the pattern finds imports
    order = list(TopologicalSorter(uses).static_order())  # CycleError names the circle
    assert order.index("side") < order.index("call")
