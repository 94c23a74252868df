"""Settings of traces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingSettings:
    """The collector, and the data sent to it.

    ``headers`` are the files of header values, by name. ``ratio``: the recorded share of new traces; a caller's
    decision takes precedence. ``queue`` limits waiting spans, and waiting records, each. ``subject_key`` is the file of
    the key of the subjects' hashes; None: each process makes a key.
    """

    endpoint: str
    ca: Path | None = None
    headers: Mapping[str, Path] = field(default_factory=dict)
    ratio: float = 1.0
    queue: int = 2048
    timeout_s: float = 5.0
    subject_key: Path | None = None
    service_name: str | None = None
    records: bool = False
