"""Writes each chart's table of values into its README, from the ``# --`` comments of its values.yaml.

    python .ci/chart_docs.py helm/sidecar helm/sidecar-lib

Every value has such a comment above it; a section has none, its values do.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

MARK = "<!-- Written by `make docs`; edit values.yaml instead. -->"
_KEY = re.compile(r"( *)([A-Za-z]\w*):(?: .*)?$")


def rows(text: str) -> Iterator[tuple[str, object, str]]:
    """Each documented value: its dotted name, its default, its meaning."""
    document = yaml.safe_load(text)
    path: list[tuple[int, str]] = []
    meaning: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            meaning = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("#"):
            if meaning:
                meaning.append(stripped.removeprefix("# "))
        elif found := _KEY.match(line):
            indent, key = len(found[1]), found[2]
            path = [(at, name) for at, name in path if at < indent] + [(indent, key)]
            if meaning:
                name = ".".join(part for _, part in path)
                yield name, _at(document, name), " ".join(meaning)
                meaning = []


def undocumented(text: str) -> list[str]:
    """Values that no comment tells of, by their dotted names."""
    told = [name for name, _, _ in rows(text)]
    return [
        leaf for leaf in _leaves(yaml.safe_load(text)) if not any(leaf == t or leaf.startswith(f"{t}.") for t in told)
    ]


def readme(current: str, values: str) -> str:
    """Return the README with a fresh table."""
    table = [f"| `{name}` | {_shown(default)} | {meaning} |" for name, default, meaning in rows(values)]
    head = current.partition(MARK)[0]
    return "\n".join([f"{head}{MARK}", "", "| value | default | meaning |", "|---|---|---|", *table, ""])


def _shown(default: object) -> str:
    text = json.dumps(default, ensure_ascii=False)
    return "" if text == '""' else f"`{text}`"


def _at(document: object, name: str) -> object:
    for part in name.split("."):
        document = document[part] if isinstance(document, dict) else None
    return document


def _leaves(value: object, name: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name


if __name__ == "__main__":
    for folder in map(Path, sys.argv[1:]):
        page = folder / "README.md"
        page.write_text(readme(page.read_text(), (folder / "values.yaml").read_text()))
