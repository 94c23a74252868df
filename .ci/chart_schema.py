"""Writes the schemas of the settings files into the schema of the chart's values.

    python .ci/chart_schema.py helm/sidecar/values.schema.json

So `helm` refuses a misspelt key of `workloads[].settings`, `platforms[].settings` and `sts.settings`. They are the
definitions whose names begin with a capital letter, each a line. Where variables of the container or the chart itself
can supply a key, it is not required here: `sidecar check --kubernetes` knows the rest.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sidecar.config import json_schema

_PROSE = frozenset({"description", "title", "default", "examples", "$schema", "$defs"})
_CHART = {"KeysSection": "directory", "RevocationSection": "file", "EventsSection": "listen"}  # sts.yaml sets these
_BEGIN = '  "definitions": {\n'


def definitions() -> dict[str, Any]:
    """Return every section of the three files by its name, as draft 7 of JSON Schema has it."""
    found: dict[str, Any] = {}
    for schema in (json_schema(), json_schema(sts=True), json_schema(platform=True)):
        sections = {**schema["$defs"], schema["title"]: schema}
        variable = set(_settable(schema, sections))
        for name, section in sections.items():
            bare = _bare(section)
            if name in variable:
                bare.pop("required", None)
            elif name in _CHART:
                bare["required"] = [key for key in bare.get("required", ()) if key != _CHART[name]]
            found[name] = bare
    return found


def _settable(section: Mapping[str, Any], sections: Mapping[str, Any]) -> Iterator[str]:
    """Yield the sections of which a variable can name a key: there is no list between them and the file."""
    yield next(name for name, one in sections.items() if one is section)
    for value in section.get("properties", {}).values():
        for one in (value, *value.get("anyOf", ()), *value.get("oneOf", ())):
            if "$ref" in one:
                inner = sections[one["$ref"].rpartition("/")[2]]
                if "properties" in inner:
                    yield from _settable(inner, sections)


def _bare(value: Any, *, named: bool = False) -> Any:
    """Return a schema without its prose. In a ``named`` object each member is a name of the settings."""
    if isinstance(value, list):
        return [_bare(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {key: one for key, one in value.items() if named or key not in _PROSE}
    if not named and "$ref" in kept:
        kept["$ref"] = f"#/definitions/{kept['$ref'].rpartition('/')[2]}"
    return {key: _bare(one, named=key == "properties" and not named) for key, one in kept.items()}


def written(text: str) -> str:
    """Return the schema of the chart's values with these definitions, after those that it has itself."""
    head, _, rest = text.partition(_BEGIN)
    own = [line for line in rest.splitlines(keepends=True) if not line[:6].strip().startswith('"') or line[5].islower()]
    lines = [f"    {json.dumps(name)}: {json.dumps(one)},\n" for name, one in sorted(definitions().items())]
    return "".join([head, _BEGIN, *lines, *own])


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(written(page.read_text()))
