"""Modules of one room import each other in one direction, imports for types and imports inside functions included."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.sources import PACKAGES

# Each package with its rooms; the room "" holds the modules beside them.
ROOMS: Final = [
    (package, room)
    for package in PACKAGES.values()
    for room in ("", *sorted(path.name for path in package.iterdir() if (path / "__init__.py").is_file()))
]

Graph = dict[str, set[str]]


def modules(root: Path) -> dict[str, Path]:
    """Return every module by its dotted name."""
    found = {}
    for path in root.rglob("*.py"):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """Return the names that a module imports anywhere in its text."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(root: Path) -> Graph:
    """Return the modules that each module imports."""
    known = modules(root)
    graph: Graph = {}
    for name, path in known.items():
        found = {one if one in known else one.rpartition(".")[0] for one in imported(path)}
        graph[name] = (found & known.keys()) - {name}
    return graph


def cycle(graph: Graph) -> list[str]:
    """Return the modules of one cycle, in order; none if there is no cycle."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := visit(name, []))), [])


def room_of(package: Path, name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 2 or (package, parts[-1]) in ROOMS else ""


imports_of: Final = functools.cache(imports)


@pytest.mark.parametrize(("package", "room"), ROOMS, ids=lambda one: getattr(one, "name", one))
def test_no_room_has_a_cycle_of_imports(package: Path, room: str) -> None:
    graph = imports_of(package)
    inside = {name for name in graph if room_of(package, name) == room}
    assert inside
    assert cycle({name: graph[name] & inside for name in inside}) == []


def test_a_cycle_is_found_however_it_is_written(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from package.two import x\n"
    )
    (package / "two.py").write_text("def x():\n    import package.three\n")
    (package / "three.py").write_text("from package import one\n")
    assert cycle(imports(package)) == ["package.one", "package.two", "package.three", "package.one"]
    (package / "three.py").write_text("from package import nothing\n")
    assert cycle(imports(package)) == []
