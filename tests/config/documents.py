"""Settings files for tests: the shipped examples, with one thing changed."""

import copy
import json
from pathlib import Path
from typing import Any, Final

from delegation_core.errors import Problem
from sidecar.check import check
from sidecar.config.document import parse_document

EXAMPLES: Final = Path(__file__).parents[2] / "config"
ABSENT: Final = object()

Step = str | int


def example(name: str) -> dict[str, Any]:
    """Return a shipped example as plain objects."""
    document = parse_document((EXAMPLES / f"{name}.yaml").read_text(), name=name)
    assert isinstance(document, dict)
    return document


def changed(document: dict[str, Any], *changes: tuple[str, object]) -> dict[str, Any]:
    """Return the document with other values at dotted paths (``inbound.routes.0.name``); ``ABSENT`` removes the key."""
    result = copy.deepcopy(document)
    for path, value in changes:
        *parents, last = path.split(".")
        section: Any = result
        for part in parents:
            section = section[int(part)] if isinstance(section, list) else section[part]
        if value is ABSENT:
            del section[last]
        elif isinstance(section, list):
            section[int(last)] = value
        else:
            section[last] = value
    return result


def written(folder: Path, document: object) -> Path:
    """Write the document as a file; JSON is YAML."""
    path = folder / "settings.yaml"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def problems(folder: Path, document: object, *, sts: bool = False, **environ: str) -> list[Problem]:
    """Return the problems that ``sidecar check`` finds."""
    return check(written(folder, document), environ, sts=sts).problems
