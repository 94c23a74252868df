"""The seam between the native engine and the engine in Python: what one names of the other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

import sidecar

ROOT: Final = Path(sidecar.__file__).parent
RUST: Final = {path.stem: path.read_text() for path in sorted((ROOT / "native" / "src").glob("*.rs"))}
# Python that hands objects to the native engine: its own modules, and the facts by which tokens hold.
GATES: Final = [*sorted((ROOT / "proxy" / "native").glob("*.py")), *sorted((ROOT / "features").glob("*/warm.py"))]
PYTHON: Final = [ROOT / "engine.py", ROOT / "exchange" / "client.py", *GATES]
_MOST_PARAMETERS: Final = 8  # with ``self``
_PRIVATE: Final = re.compile(r"_[a-z]\w*")


def _private_names(tree: ast.AST) -> Iterator[str]:
    """Names that are private to an object other than ``self``, as an attribute or in quotes."""
    slots = (
        node for node in ast.walk(tree) if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__"
    )
    own = {id(name) for node in slots for name in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _PRIVATE.fullmatch(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}):
                yield ast.unparse(node)
        elif (
            isinstance(node, ast.Constant)
            and id(node) not in own
            and isinstance(node.value, str)
            and _PRIVATE.fullmatch(node.value)
        ):
            yield repr(node.value)


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_hands_the_native_engine_no_private_attribute(path: Path) -> None:
    assert list(_private_names(ast.parse(path.read_text()))) == []


def test_a_private_attribute_that_is_handed_over_is_found() -> None:
    handed = "Gate(given=permits._entries, alive=self.handles._alive, own=self._own, facts=[(plans, '_as_of', 1)])"
    assert sorted(_private_names(ast.parse(handed))) == ["'_as_of'", "permits._entries", "self.handles._alive"]
    assert len(PYTHON) >= 8


@pytest.mark.parametrize("path", GATES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_of_the_interface_takes_more_parameters_than_a_reader_holds(path: Path) -> None:
    """Values that cross together are an object with a name: a request in flight had seventeen parameters."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    counts = [(one.name, sum(isinstance(node, ast.arg) for node in ast.walk(one.args))) for one in functions]
    assert [(name, count) for name, count in counts if count > _MOST_PARAMETERS] == []


@pytest.mark.parametrize("module", RUST)
def test_the_native_engine_names_no_private_attribute(module: str) -> None:
    assert re.findall(r'"_[a-z]\w*"', RUST[module]) == []


def _uses(text: str, modules: Iterable[str]) -> set[str]:
    """Return the modules of the crate that a module's code names, each or several in braces."""
    code = re.sub(r"//[^\n]*", "", text)
    named = re.findall(r"\b(?:crate|super)::(?:(\w+)|\{([^;]*)\})", code)
    return {word for one, several in named for word in re.findall(r"\w+", one or several)} & set(modules)


def _order(sources: Mapping[str, str]) -> list[str]:
    """Return the modules, each after those that it uses. CycleError names a circle."""
    return list(TopologicalSorter({one: _uses(text, sources) - {one} for one, text in sources.items()}).static_order())


def test_no_module_of_rust_imports_one_that_imports_it() -> None:
    assert _uses(RUST["call"], RUST) >= {"side", "prepared", "ghosts", "head"}
    assert {*re.findall(r"^mod (\w+);", RUST["lib"], re.MULTILINE), "lib"} == set(RUST)
    order = _order(RUST)
    assert order.index("side") < order.index("call") < order.index("lib") == len(RUST) - 1


@pytest.mark.parametrize(
    "use",
    ["use crate::call::Call;", "use crate::{head, call::Call};", "use super::call;", "let most = crate::call::MOST;"],
)
def test_a_circle_in_the_rust_is_found(use: str) -> None:
    assert _order(RUST | {"side": f"{RUST['side']}\n// {use}"})
    with pytest.raises(CycleError, match="call"):
        _order(RUST | {"side": f"{RUST['side']}\n{use}"})
