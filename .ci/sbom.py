"""A bill of materials of the image: CycloneDX 1.6 of every package in the folders named, on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from typing import Any


def document(folders: list[str]) -> dict[str, Any]:
    """Build the document, sorted: the same packages always give the same bytes."""
    found = sorted(components(folders), key=lambda one: one["purl"])
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


def licence_of(package: Distribution) -> str:
    """As the package says it: an SPDX expression, else the first line of its free text, else its classifier."""
    metadata = package.metadata
    text = metadata.get("License-Expression") or (metadata.get("License") or "").strip().partition("\n")[0]
    classifiers = [line for line in metadata.get_all("Classifier") or () if line.startswith("License ::")]
    return text or (classifiers[0].rpartition(":: ")[2] if classifiers else "unknown")


if __name__ == "__main__":
    json.dump(document(sys.argv[1:]), sys.stdout, indent=1)
