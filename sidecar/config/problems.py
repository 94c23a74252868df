"""What the model says is wrong → ``Problem``: dotted field, fault, cure. No value of the file is ever quoted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sidecar.config.document import shown
from sidecar.errors import Problem

_FAULTS: Final[Mapping[str, tuple[str, str]]] = {
    "missing": ("is missing", "add it"),
    "string_type": ("is no text", "put it in quotes"),
    "int_type": ("is no whole number", "write a decimal number without quotes"),
    "int_from_float": ("is no whole number", "write one without a decimal point"),
    "float_type": ("is no number", "write a decimal number without quotes"),
    "finite_number": ("is no finite number", "write a decimal number"),
    "bool_type": ("is neither true nor false", "write true or false without quotes"),
    "list_type": ("is no list", "write a list, such as [a, b]"),
    "dict_type": ("is no mapping", "write keys and values"),
    "model_type": ("is no mapping", "write keys and values"),
    "model_attributes_type": ("is no mapping", "write keys and values"),
}


def problems_of(error: ValidationError, model: type[BaseModel], variables: Mapping[str, str]) -> list[Problem]:
    """Every fault of a document. A field that came from the environment is named with its variable."""
    return [
        _problem(detail, model, variables)
        for detail in error.errors(include_url=False, include_input=False, include_context=True)
    ]


def dotted(location: Iterable[int | str]) -> str:
    """``("inbound", "routes", 0, "name")`` → ``inbound.routes[0].name``."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not part.startswith(("<", "[")):  # tags of unions, and pydantic's word for "the key itself"
            text += f".{shown(part)}" if text else shown(part)
    return text or "settings"


def from_value_error(field: str, error: ValueError) -> Problem:
    """A refusal by a room's settings: ``"member: wrong; cure"`` or ``"wrong; cure"``, of the section ``field``."""
    text = str(error)
    head, colon, rest = text.partition(": ")
    if colon and head.replace("_", "").replace(", ", "").isalnum() and ", " not in head:
        field, text = f"{field}.{head}", rest
    wrong, _, cure = text.partition("; ")
    return Problem(field, wrong, cure or "change it")


def _problem(detail: ErrorDetails, model: type[BaseModel], variables: Mapping[str, str]) -> Problem:
    field = dotted(detail["loc"])
    wrong, cure = _fault(detail, model)
    variable = next(
        (name for path, name in variables.items() if field == path or field.startswith((f"{path}.", f"{path}["))), None
    )
    return Problem(f"{field} ({variable})" if variable else field, wrong, cure)


def _fault(detail: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    kind = detail["type"]
    context = detail.get("ctx", {})
    if kind in _FAULTS:
        return _FAULTS[kind]
    if kind == "extra_forbidden":
        return "is no setting", _spelling(detail["loc"], model)
    if kind in {"literal_error", "enum"}:
        return "has no such choice", f"write one of {context.get('expected', '')}"
    if kind == "value_error":
        wrong, _, cure = str(context.get("error", "")).partition("; ")
        return wrong, cure or "change it"
    if kind == "too_short":
        return "is empty", f"list at least {context.get('min_length', 1)}"
    if kind in {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}:
        bound = next(context[key] for key in ("gt", "ge", "lt", "le") if key in context)
        return "is out of range", f"write a number {kind.replace('_', ' ')} {bound}"
    return "cannot be used", "see the schema in config/sidecar.schema.json"


def meant_by(location: tuple[int | str, ...], model: type[BaseModel]) -> str | None:
    """The key that was probably meant by an unknown one, among those of its section; None if none is close."""
    close = difflib.get_close_matches(str(location[-1]), _keys_at(model.model_json_schema(), location[:-1]), n=1)
    return close[0] if close else None


def _spelling(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    meant = meant_by(location, model)
    if meant is not None:
        return f"did you mean {meant}?"
    known = _keys_at(model.model_json_schema(), location[:-1])
    return f"known here: {', '.join(sorted(known))}" if known else "remove it"


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
    """Follow references and alternatives."""
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
