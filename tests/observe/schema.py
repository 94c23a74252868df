"""A checker for the part of JSON Schema that our schemas use."""

import re
from collections.abc import Iterator, Mapping

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_KNOWN = {
    "$schema", "title", "type", "properties", "required", "additionalProperties", "enum", "pattern", "items",
    "maxItems", "minimum",
}  # fmt: skip


def violations(value: object, schema: object, where: str = "") -> list[tuple[str, str]]:
    """Return each place and keyword that does not fit."""
    assert isinstance(schema, dict)
    assert schema.keys() <= _KNOWN, "the checker must learn a new keyword"
    return list(_violations(value, schema, where))


def _violations(value: object, schema: dict[str, object], where: str) -> Iterator[tuple[str, str]]:
    names = schema.get("type", [])
    kinds = [names] if isinstance(names, str) else names
    assert isinstance(kinds, list)
    if kinds and not any(_is(value, kind) for kind in kinds):
        yield where, "type"
        return
    choices = schema.get("enum")
    if isinstance(choices, list) and value not in choices:
        yield where, "enum"
    pattern = schema.get("pattern")
    if isinstance(value, str) and isinstance(pattern, str) and not re.search(pattern, value):
        yield where, "pattern"
    minimum = schema.get("minimum")
    if isinstance(value, int | float) and isinstance(minimum, int | float) and value < minimum:
        yield where, "minimum"
    if isinstance(value, list):
        yield from _list(value, schema, where)
    if isinstance(value, dict):
        yield from _object(value, schema)


def _is(value: object, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _list(value: list[object], schema: dict[str, object], where: str) -> Iterator[tuple[str, str]]:
    most = schema.get("maxItems")
    if isinstance(most, int) and len(value) > most:
        yield where, "maxItems"
    for item in value:
        yield from violations(item, schema["items"], where)


def _object(value: dict[str, object], schema: dict[str, object]) -> Iterator[tuple[str, str]]:
    properties, required = schema["properties"], schema["required"]
    assert isinstance(properties, dict)
    assert isinstance(required, list)
    yield from ((name, "required") for name in required if name not in value)
    for name, member in value.items():
        if name in properties:
            yield from violations(member, properties[name], name)
        elif schema.get("additionalProperties") is False:
            yield name, "additionalProperties"
