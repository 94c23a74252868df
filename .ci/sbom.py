"""A bill of materials of the image: CycloneDX 1.6 of what the folders named hold, on standard output.

That is every Python package, and every shared library of a folder without packages: those that the image brings from
the base that it was built on.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

_GCC = "GPL-3.0-or-later WITH GCC-exception-3.1"
# Licences by name: a library does not tell its own. The health check is ours, linked to musl.
_LIBRARIES = {"libgcc_s.so.1": _GCC, "libstdc++.so.6": _GCC, "healthcheck": "Apache-2.0 AND MIT"}


def document(folders: list[str]) -> dict[str, Any]:
    """Build the document, sorted: the same packages always give the same bytes."""
    packages = sorted(components(folders), key=lambda one: one["purl"])
    found = [*packages, *libraries(folders)]
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": found}


def components(folders: list[str]) -> Iterator[dict[str, Any]]:
    """Each package with its version and licence."""
    for package in distributions(path=folders):
        name = package.metadata["Name"].lower().replace("_", "-")
        yield {
            "type": "library",
            "name": name,
            "version": package.version,
            "purl": f"pkg:pypi/{name}@{package.version}",
            "licenses": [{"license": {"name": licence_of(package)}}],
        }


def libraries(folders: list[str]) -> Iterator[dict[str, Any]]:
    """Each shared library or program that no package brought, with its hash."""
    native = [Path(folder) for folder in folders if not any(Path(folder).glob("*.dist-info"))]
    for file in sorted({file for folder in native for file in folder.glob("*") if _is_ours(file)}):
        yield {
            "type": "file",
            "name": file.name,
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(file.read_bytes()).hexdigest()}],
            "licenses": [{"license": {"name": _LIBRARIES.get(file.name, "unknown")}}],
        }


def _is_ours(file: Path) -> bool:
    return file.name in _LIBRARIES or ".so" in file.suffixes


def licence_of(package: Distribution) -> str:
    """As the package says it: an SPDX expression, else the first line of its free text, else its classifier."""
    metadata = package.metadata
    text = metadata.get("License-Expression") or (metadata.get("License") or "").strip().partition("\n")[0]
    classifiers = [line for line in metadata.get_all("Classifier") or () if line.startswith("License ::")]
    return text or (classifiers[0].rpartition(":: ")[2] if classifiers else "unknown")


if __name__ == "__main__":
    json.dump(document(sys.argv[1:]), sys.stdout, indent=1)
