"""Python files of our distributions, for tests that read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
PACKAGES: Final[Mapping[str, Path]] = {
    "core": ROOT / "core" / "delegation_core",
    "audit": ROOT / "audit" / "delegation_audit",
    "sidecar": ROOT / "sidecar",
    "dev": ROOT / "dev" / "sidecar_dev",
    "agent": ROOT / "agent" / "delegation_agent",
}
PRODUCT: Final = ("core", "audit", "sidecar")


def python_files(*names: str) -> Iterator[Path]:
    """Yield every module of these distributions."""
    for name in names or PRODUCT:
        yield from sorted(PACKAGES[name].rglob("*.py"))
