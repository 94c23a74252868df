"""Places of sections and keys in settings files, and the environment variables that set them, for the page of settings.

A variable names keys of mappings only. A key below a list has no variable: the list's variable replaces the whole list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sidecar.config.document import PREFIX

Schema = Mapping[str, Any]


class Place(NamedTuple):
    """A place in a settings file: ``inbound.routes[].match``. ``settable`` is the prefix that a variable can set."""

    path: str
    settable: str

    @property
    def variable(self) -> str:
        """Name of the variable that sets this place, or the list or mapping around it."""
        return PREFIX + self.settable.upper().replace(".", "__")

    def at(self, key: str) -> Place:
        """Return the place of ``key`` in the section at this place."""
        below = self.path[len(self.settable) :]
        return Place(_joined(self.path, key), self.settable if below else _joined(self.settable, key))

    def inside(self, mark: str) -> Place:
        """Return the place of an item of the list, or a value of the mapping, at this place."""
        return Place(self.path + mark, self.settable)


ROOT = Place("", "")


def places(schema: Schema) -> Iterator[tuple[Place, str, str, Schema]]:
    """Yield each key of a file's schema: its place, its section, its name and its schema."""
    yield from _keys(ROOT, str(schema["title"]), schema, schema.get("$defs", {}))


def _keys(
    here: Place, name: str, section: Schema, definitions: Mapping[str, Schema]
) -> Iterator[tuple[Place, str, str, Schema]]:
    for key, value in section["properties"].items():
        yield here.at(key), name, key, value
        for place, held in sections_of(value, here.at(key)):
            yield from _keys(place, held, definitions[held], definitions)


def sections_of(value: Schema, here: Place = ROOT) -> Iterator[tuple[Place, str]]:
    """Yield the place and name of each section that a value may be or contain."""
    if "$ref" in value:
        yield here, value["$ref"].rpartition("/")[2]
    for choice in ("anyOf", "oneOf"):
        for one in value.get(choice, ()):
            yield from sections_of(one, here)
    if "items" in value:
        yield from sections_of(value["items"], here.inside("[]"))
    held = [*value.get("patternProperties", {}).values(), value.get("additionalProperties")]
    for one in held:
        if isinstance(one, dict):
            yield from sections_of(one, here.inside(".NAME"))


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
