"""Mutations of decisions: dropped `raise` statements, and conditions of the core forced to true or to false.

An import hook compiles all of them into the modules, behind one switch; no file changes. ``tests/mutants.py`` runs
them.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final, NamedTuple, TypeVar

ROOT: Final = Path(__file__).parent.parent
CORE: Final = "core/delegation_core"  # conditions are forced here alone
ROOTS: Final = [CORE, *(f"sidecar/{room}" for room in ("exchange", "identity", "proxy", "features", "sts"))]
DROPPED: Final = "-> dropped"  # in the keys of removed `raise` statements
NO_DECISION: Final = {"NotImplementedError", "AssertionError"}
T = TypeVar("T")


class Mutant(NamedTuple):
    """One mutation; ``key`` names it without line numbers, ``digest`` is that of its file."""

    number: int
    key: str
    place: str
    digest: str


class Switch:
    """The function that instrumented code calls: forces the active mutant, and notes which ones would show."""

    def __init__(self) -> None:
        self.active = -1
        self.shows: set[int] = set()

    def __call__(self, number: int, value: T) -> T | bool:
        """Return a condition's value, or what the active mutant makes of it: an even number is true, the next false."""
        self.shows.add(number + 1 if value else number)
        return self.active == number if self.active in (number, number + 1) else value


class Instrument(ast.NodeTransformer):
    """Puts the switch around every mutation of one file; ``first`` is the number of its first mutant."""

    def __init__(self, path: str, source: bytes, first: int) -> None:
        self._path, self._next, self._core = path, first, path.startswith(CORE)
        self._digest, self._names, self._keys = hashlib.sha256(source).hexdigest()[:16], list[str](), dict[str, int]()
        self.mutants: list[Mutant] = []
        self.tree = ast.fix_missing_locations(self.visit(ast.parse(source)))

    def _switch(self, node: ast.AST, text: str, value: ast.expr, outcomes: dict[int, str]) -> ast.expr:
        for offset, outcome in outcomes.items():
            key = f"{self._path} {'.'.join(self._names)}: {' '.join(text.split())[:160]} -> {outcome}"
            self._keys[key] = self._keys.get(key, 0) + 1
            key += f" ({self._keys[key]})" if self._keys[key] > 1 else ""
            place = f"{self._path}:{getattr(node, 'lineno', 0)}"
            self.mutants.append(Mutant(self._next + offset, key, place, self._digest))
        call = ast.Call(ast.Name("__mutant__", ast.Load()), [ast.Constant(self._next), value], [])
        self._next += 2
        return ast.copy_location(call, node)

    def _condition(self, node: ast.expr) -> ast.expr:
        """Switch the operands of a condition."""
        if not self._core or not self._names or isinstance(node, ast.Constant):
            self.generic_visit(node)
            return node
        if isinstance(node, ast.BoolOp):
            node.values = [self._condition(value) for value in node.values]
            return node
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            node.operand = self._condition(node.operand)
            return node
        text = ast.unparse(node)
        self.generic_visit(node)
        return self._switch(node, text, node, {0: "True", 1: "False"})

    def _named(self, node: Any) -> ast.AST:
        self._names.append(node.name)
        node.body = [self.visit(statement) for statement in node.body]
        self._names.pop()
        return node  # type: ignore[no-any-return]

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _named  # noqa: N815

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        text, raised = ast.unparse(node), node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        self.generic_visit(node)
        if isinstance(raised, ast.Name) and raised.id in NO_DECISION:
            return node
        return ast.If(self._switch(node, text, ast.Constant(True), {1: "dropped"}), [node], [])

    def _tested(self, node: Any) -> ast.AST:
        node.test = self._condition(node.test)
        for field in ("body", "orelse"):
            part = getattr(node, field)
            setattr(node, field, [self.visit(one) for one in part] if isinstance(part, list) else self.visit(part))
        return node  # type: ignore[no-any-return]

    visit_If = visit_While = visit_IfExp = _tested  # noqa: N815

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        node.iter, node.ifs = self.visit(node.iter), [self._condition(one) for one in node.ifs]
        return node

    def visit_match_case(self, node: ast.match_case) -> ast.AST:
        node.guard = node.guard and self._condition(node.guard)
        node.body = [self.visit(statement) for statement in node.body]
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        """Switch the operands of a value, except the last: it is what the value becomes."""
        node.values = [*map(self._condition, node.values[:-1]), self.visit(node.values[-1])]
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        return self._condition(node) if isinstance(node.op, ast.Not) else self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        return self._condition(node)


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from its instrumented tree, without bytecode files."""

    trees: dict[str, ast.AST]

    def get_code(self, fullname: str) -> CodeType:
        """Compile the tree."""
        code: CodeType = compile(self.trees[self.path], self.path, "exec")  # type: ignore[call-overload]
        return code


class Finder:
    """Finds modules that have an instrumented tree."""

    def find_spec(self, name: str, path: Sequence[str] | None, _target: ModuleType | None = None) -> Any:
        """Return the specification of an instrumented module, None for all others."""
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.origin not in Loader.trees:
            return None
        spec.loader = Loader(name, spec.origin)
        return spec


def instrument() -> list[Mutant]:
    """Make later imports of the roots load instrumented modules; return all mutants, dropped errors first."""
    mutants: list[Mutant] = []
    Loader.trees = {}
    for path in sorted(path for root in ROOTS for path in (ROOT / root).rglob("*.py")):
        first = mutants[-1].number + 2 if mutants else 0
        made = Instrument(str(path.relative_to(ROOT)), path.read_bytes(), first + first % 2)
        Loader.trees[str(path)] = made.tree
        mutants += made.mutants
    sys.meta_path.insert(0, Finder())
    order = (DROPPED, "raise Denied")
    return sorted(mutants, key=lambda one: [part not in one.key for part in order])
