"""A run as data: the figures, the peers, the machine. Written as JSON, and read again by the report."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.sample import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """A peer that took part."""

    name: str
    title: str
    version: str
    does_not: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All of one run. ``missing`` gives the reason for each peer that did not take part."""

    made_at: str
    seconds: float
    rounds: int
    machine: dict[str, str]
    caveats: tuple[str, ...]
    peers: tuple[Taking, ...]
    missing: dict[str, str]
    samples: tuple[Sample, ...]

    @property
    def tls(self) -> str:
        """Cipher and group of each peer, as the load generator saw them."""
        found: dict[str, list[str]] = {}
        for sample in self.samples:
            if sample.seen.get("cipher", "none") != "none":
                names = found.setdefault(f"{sample.seen['cipher']}, {sample.seen['group']}", [])
                if sample.peer not in names:
                    names.append(sample.peer)
        if len(found) == 1:
            return next(iter(found))
        return "; ".join(f"{what} ({', '.join(names)})" for what, names in found.items())


def write(results: Results, path: Path) -> None:
    """Write everything as JSON."""
    path.write_text(json.dumps(asdict(results), indent=1))


def read(path: Path) -> Results:
    """Read results written by `write`."""
    found: dict[str, Any] = json.loads(path.read_text())
    return Results(
        **{
            **found,
            "caveats": tuple(found["caveats"]),
            "peers": tuple(Taking(**{**peer, "does_not": tuple(peer["does_not"])}) for peer in found["peers"]),
            "samples": tuple(Sample(**sample) for sample in found["samples"]),
        }
    )
