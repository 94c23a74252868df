"""Chains that the audit rebuilds from the witnesses' records."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Hops = list[dict[str, Any]]


def whole_chains(records: Mapping[str, Iterable[object]], folder: Path) -> list[Hops]:
    """Return the hops of each chain of three that caller, token service and callee confirm. ``records`` by witness."""
    files = []
    for witness, written in records.items():
        files.append(folder / f"{witness}.records")
        files[-1].write_text("".join(json.dumps(record) + "\n" for record in written))
    command = [sys.executable, "-m", "sidecar.cli", "audit", "chains", "--json", *map(str, files)]
    found = json.loads(subprocess.run(command, capture_output=True, check=False).stdout)
    return [
        chain["hops"]
        for chain in found["chains"]
        if len(chain["hops"]) == 3 and not any(hop["missing_witnesses"] for hop in chain["hops"])
    ]
