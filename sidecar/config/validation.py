"""Validation of a settings document in two passes: its schema, then cross-section checks.

The second pass also runs over a document that failed the first. A check ends when it reads a top-level section that
failed the schema (``_Partial``), so one run reports every problem that does not depend on such a section. Each problem
has the dotted field, the error and the fix, and quotes no value.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import MethodType
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel, ValidationError, create_model
from pydantic_core import ErrorDetails

from delegation_core.errors import ConfigError, Problem
from sidecar.config.document import DocumentError, override, parse, printable, read_text, variables
from sidecar.config.include import Included, join_included
from sidecar.config.sections import Section

S = TypeVar("S", bound=Section)
T = TypeVar("T")

_ERRORS: Final[Mapping[str, tuple[str, str]]] = {
    "missing": ("is missing", "add it"),
    "string_type": ("is not text", "put it in quotes"),
    "int_type": ("is not a whole number", "write a decimal number without quotes"),
    "int_from_float": ("is not a whole number", "write one without a decimal point"),
    "float_type": ("is not a number", "write a decimal number without quotes"),
    "finite_number": ("is not a finite number", "write a decimal number"),
    "bool_type": ("is neither true nor false", "write true or false without quotes"),
    "list_type": ("is not a list", "write a list, such as [a, b]"),
    "dict_type": ("is not a mapping", "write keys and values"),
    "model_type": ("is not a mapping", "write keys and values"),
    "model_attributes_type": ("is not a mapping", "write keys and values"),
}

_PATH: Final = re.compile(
    r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+"
)  # a dotted field within an error text, such as inbound.listen


class _FailedSectionError(Exception):
    """A check of the second pass reads a section that failed the first."""


class Findings:
    """Collects the problems of a file, so that all of them are reported together."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.included = Included()

    def add(self, field: str, wrong: str, fix: str) -> None:
        """Add one problem."""
        self.problems.append(Problem(field, wrong, fix))

    def extend(self, check: Callable[..., Iterable[Problem]], *arguments: object) -> None:
        """Add what ``check`` finds before it reads a section that failed the schema."""
        try:
            for problem in check(*arguments):
                self.problems.append(problem)
        except _FailedSectionError:
            return

    def attempt(self, field: str, make: Callable[..., T], *arguments: object) -> T | None:
        """Return the result of ``make``; None after a ValueError (a problem of ``field``) or for a failed section."""
        try:
            return make(*arguments)
        except ConfigError as error:
            self.problems += error.problems
        except ValueError as error:
            self.problems.append(from_value_error(field, error))
        except _FailedSectionError:
            pass
        return None


def forbidden(field: str) -> Problem:
    """Return the problem of a setting that loosens a check below a platform file."""
    return Problem(field, "is forbidden by the platform", "remove it, or have the platform allow it")


def repetitions(field: str, names: Iterable[str]) -> Iterator[Problem]:
    """Report each name that a list has more than once."""
    for name in sorted(name for name, times in Counter(names).items() if times > 1):
        yield Problem(field, f"{name} is listed twice", "keep one of them")


def load_validated(
    path: Path,
    environ: Mapping[str, str],
    model: type[S],
    build: Callable[[S, Findings], T | None],
    *,
    check_document: Callable[[dict[str, object]], Iterable[Problem]] = lambda _document: (),
) -> T:
    """Read one settings file, apply the environment, validate it, and return what ``build`` makes of it.

    ``build`` is the second pass: it adds cross-section problems to the findings. ``check_document`` sees the document
    before validation.

    Raises:
        ConfigError: every problem of the file and of the environment.
    """
    try:
        parsed = parse(read_text(path), name=str(path))
    except DocumentError as error:
        raise ConfigError([error.problem]) from error
    document = {} if parsed.root is None else parsed.root
    if not isinstance(document, dict):
        raise ConfigError([Problem(str(path), "is not a mapping", "write sections and keys")])
    findings, sources = Findings(), variables(document, environ)
    findings.problems += override(document, environ)
    findings.included, problems = join_included(path, parsed, document, model.includable)
    findings.problems += problems
    findings.problems += check_document(document)
    try:
        file = model.model_validate(document)
    except ValidationError as error:
        findings.problems += problems_of(error, model)
        file = _partial(document, error, model)
    made = build(file, findings)
    if findings.problems or made is None:
        placed = map(findings.included.placed, findings.problems)
        raise ConfigError([with_variables(problem, sources) for problem in placed], followed=findings.included.followed)
    return made


def _partial(document: dict[str, object], error: ValidationError, model: type[S]) -> S:
    """Return the sections that satisfy the schema, as if they were the whole file."""
    failed: set[str] = set()
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        location = detail["loc"]
        failed.add(str(location[0]))
        if len(location) == 1 and detail["type"] == "extra_forbidden":
            failed.add(_meant(location, model) or "")  # a misspelt section is not missing
    ignored: dict[str, Any] = dict.fromkeys(failed & model.model_fields.keys(), (Any, None))
    lenient = create_model(model.__name__, __base__=model, **ignored)
    whole = lenient.model_validate({key: value for key, value in document.items() if key not in failed})
    return cast("S", _Partial(whole, failed))


class _Partial:
    """A settings file in which some sections failed the schema. Reading one of them, in a method too, ends a check."""

    def __init__(self, file: Section, failed: set[str]) -> None:
        self._file = file
        self._failed = failed

    def __getattr__(self, name: str) -> Any:
        if name in self._failed:
            raise _FailedSectionError(name)
        found = getattr(self._file, name)
        return MethodType(found.__func__, self) if isinstance(found, MethodType) else found


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Return every error of a document."""
    return [
        Problem(_dotted(detail["loc"]), *_error_of(detail, model))
        for detail in error.errors(include_url=False, include_input=False, include_context=True)
    ]


def with_variables(problem: Problem, sources: Mapping[str, list[str]]) -> Problem:
    """Return the problem with the names of environment variables after each field that they set.

    ``sources`` maps each dotted field to its variables. A field that no variable sets gets those of fields below it.
    """
    field = problem.field
    inside = [path for path in sources if field == path or field.startswith((f"{path}.", f"{path}["))]
    below = [path for path in sources if path.startswith((f"{field}.", f"{field}["))]
    wrong = _PATH.sub(lambda found: _named(found[0], sources.get(found[0], [])), problem.wrong)
    names = sources[max(inside, key=len)] if inside else {name for path in below for name in sources[path]}
    return Problem(_named(field, names), wrong, problem.fix)


def _named(field: str, variables: Iterable[str]) -> str:
    names = ", ".join(sorted(variables))
    return f"{field} ({names})" if names else field


def _dotted(location: Iterable[int | str]) -> str:
    """Turn ``("inbound", "routes", 0, "name")`` into ``inbound.routes[0].name``."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not part.startswith(("<", "[")):  # tags of unions, and pydantic's mark of a key
            text += f".{printable(part)}" if text else printable(part)
    return text or "settings"


def from_value_error(field: str, error: ValueError) -> Problem:
    """Make a problem of ``field`` from a ValueError with the text ``"member: wrong; fix"`` or ``"wrong; fix"``."""
    text = str(error)
    head, colon, rest = text.partition(": ")
    if colon and head.replace("_", "").replace(", ", "").isalnum() and ", " not in head:
        field, text = f"{field}.{head}", rest
    wrong, _, fix = text.partition("; ")
    return Problem(field, wrong, fix or "change it")


def _error_of(detail: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    kind = detail["type"]
    context = detail.get("ctx", {})
    if kind in _ERRORS:
        return _ERRORS[kind]
    if kind == "extra_forbidden":
        return "is not a setting", _spelling(detail["loc"], model)
    if kind in {"literal_error", "enum"}:
        return "has an unknown value", f"write one of {context.get('expected', '')}"
    if kind == "value_error":
        wrong, _, fix = str(context.get("error", "")).partition("; ")
        return wrong, fix or "change it"
    if kind == "too_short":
        return "is empty", f"list at least {context.get('min_length', 1)}"
    if kind in {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}:
        bound = next(context[key] for key in ("gt", "ge", "lt", "le") if key in context)
        return "is out of range", f"write a number {kind.replace('_', ' ')} {bound}"
    return "cannot be used", "see the schema in config/sidecar.schema.json"


def _meant(location: tuple[int | str, ...], model: type[BaseModel]) -> str | None:
    """Return the known key closest to the unknown key at ``location``; None if none is close."""
    close = difflib.get_close_matches(str(location[-1]), _keys_at(_schema_of(model), location[:-1]), n=1)
    return close[0] if close else None


def _spelling(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    meant = _meant(location, model)
    if meant is not None:
        return f"did you mean {meant}?"
    known = _keys_at(_schema_of(model), location[:-1])
    return f"known here: {', '.join(sorted(known))}" if known else "remove it"


@lru_cache(maxsize=4)
def _schema_of(model: type[BaseModel]) -> dict[str, object]:
    return model.model_json_schema()


def _keys_at(schema: dict[str, object], location: tuple[int | str, ...]) -> list[str]:
    definitions = schema.get("$defs", {})
    nodes: list[object] = [schema]
    for part in location:
        if isinstance(part, str) and part.startswith("<"):
            continue
        inner = []
        for node in _resolved(nodes, definitions):
            if isinstance(part, int):
                inner.append(node.get("items"))
            else:
                properties = node.get("properties")
                if isinstance(properties, dict):
                    inner.append(properties.get(part))
        nodes = inner
    return [key for node in _resolved(nodes, definitions) for key in _properties(node)]


def _properties(node: dict[str, object]) -> list[str]:
    properties = node.get("properties")
    return list(properties) if isinstance(properties, dict) else []


def _resolved(nodes: list[object], definitions: object) -> list[dict[str, object]]:
    """Return the schemas behind references and alternatives of ``nodes``."""
    found: list[dict[str, object]] = []
    for node in nodes:
        if not isinstance(node, dict):
            continue
        reference = node.get("$ref")
        if isinstance(reference, str) and isinstance(definitions, dict):
            found += _resolved([definitions.get(reference.removeprefix("#/$defs/"))], definitions)
            continue
        alternatives = node.get("anyOf") or node.get("oneOf")
        found += _resolved(alternatives, definitions) if isinstance(alternatives, list) else [node]
    return found
