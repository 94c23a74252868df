"""Generator of the page of settings, from their JSON Schema: ``python -m sidecar.config.docs docs``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from sidecar.config import json_schema
from sidecar.config.profile_docs import profile_page

_WRITTEN: Final = "<!-- Written by `make docs`; edit the models in sidecar/config instead. -->"
_PROFILES_WRITTEN: Final = "<!-- Written by `make docs`; edit sidecar/config/profile_docs.py instead. -->"
_HEAD: Final = """\
Three files, all YAML (JSON is YAML): a sidecar's (`sidecar run --config`), a token service's (`sidecar sts --config`)
and, above the sidecar's, a platform's (`--platform`). `sidecar check FILE` reports every fault of the schema at once,
and contradictions between the sections that have none, each with its cure; `sidecar check --schema` prints the JSON
Schema this page is written from.

- Unknown keys are refused, and no value is converted: `"5"` is not a number. A plain word that is not true, false, null
  or a decimal number is text. Anchors, tags and duplicate keys are refused.
- Times are seconds and end in `_s`, sizes are bytes. An empty list permits nobody and nothing.
- The sidecar reloads a file when it changes and on SIGHUP. A good file takes effect as a whole; a bad one changes
  nothing, and `sidecar status` says why. These need a restart: `identity`, `issuers[].revocations`, adding or removing
  `inbound` or `outbound`, their listeners and limits, `inbound.agent_key`, `inbound.subjects_at_once`, `inbound.plain`
  (but it may be removed), `outbound.dns`, `workload_handle` (but not its `may_call`), `records`, `probe`, `admin`,
  `drain_s`, `memory`, `max_memory_mib`, and the first `tasks: strict` of a route of A2A.
- The token service follows its file too. These need a restart: `issuer`, `identity`, listeners and limits, `keys`,
  `records`, `exchange_rate`, `revocation` (but not its `operators`), and another login issuer or foreign issuer.
- A key is retired in two steps: a minor release reads the old key and its successor, and the changelog names both; the
  next one refuses the old key and names the successor as the cure. `version` grows only when the same file would mean
  something else.
- Examples, each run by a test: [`config/`](../config).
"""
_FILES: Final = {"SidecarFile": "A sidecar", "StsFile": "A token service", "PlatformFile": "A platform"}

Schema = Mapping[str, Any]


def pages() -> Mapping[str, str]:
    """Return the text of each page by its file name under ``docs/``."""
    return {
        "configuration.md": "\n".join(["# Settings", "", _WRITTEN, "", _HEAD, *_sections()]),
        "profiles.md": "\n".join(["# Issuer profiles", "", _PROFILES_WRITTEN, "", *profile_page()]),
    }


def sections() -> Mapping[str, Schema]:
    """Return every section's schema by its name, each before those that it contains."""
    found: dict[str, Schema] = {}
    for schema in (json_schema(), json_schema(sts=True), json_schema(platform=True)):
        definitions: Mapping[str, Schema] = schema.get("$defs", {})  # type: ignore[assignment]
        _walk(str(schema["title"]), {**definitions, str(schema["title"]): schema}, found)
    return found


def _walk(name: str, definitions: Mapping[str, Schema], found: dict[str, Schema]) -> None:
    if name in found:
        return
    found[name] = definitions[name]
    for held in _references(definitions[name].get("properties", {})):
        _walk(held, definitions, found)


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield _name_of(value["$ref"])
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _name_of(reference: str) -> str:
    return reference.rpartition("/")[2]


def _sections() -> Iterator[str]:
    for name, schema in sections().items():
        title = f"## {_FILES[name]}" if name in _FILES else f"### {_title(name)}"
        yield from (title, "", " ".join(schema.get("description", "").replace("``", "`").split()), "")
        yield "| key | takes | if not set | meaning |"
        yield "|---|---|---|---|"
        required = schema.get("required", [])
        for key, value in schema["properties"].items():
            row = (f"`{key}`", _takes(value), _default(value, required=key in required), value["description"])
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
        yield ""


def _title(name: str) -> str:
    """``InboundRouteSection`` → ``Inbound route``."""
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in name.removesuffix("Section"))
    return words.strip().capitalize()


def _takes(schema: Schema) -> str:
    if "$ref" in schema:
        title = _title(_name_of(schema["$ref"]))
        return f"[{title.lower()}](#{title.lower().replace(' ', '-')})"
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return " or ".join(_takes(one) for one in schema[choice] if one.get("type") != "null")
    if "const" in schema:
        return f"`{schema['const']}`" if schema["const"] != "" else "`''`"
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_takes(schema['items'])}" + (", at least one" if schema.get("minItems") else "")
    if schema.get("type") == "object":
        held = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
        return f"mapping of text to {_takes(held[0])}"
    kind = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}[schema["type"]]
    example = f", as `{schema['examples'][0]}`" if "examples" in schema else ""
    return kind + example + _range(schema)


def _range(schema: Schema) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to"}
    found = [f"{word} {schema[name]:.15g}" for name, word in words.items() if name in schema]
    return f", {' '.join(found)}" if found else ""


def _default(schema: Schema, *, required: bool) -> str:
    if required:
        return "**needed**"
    default = schema.get("default")
    if isinstance(default, dict):
        told = {name: value for name, value in default.items() if value is not None}
        return f"`{json.dumps(told)}`" if len(told) == 1 else "-"  # several have their own rows
    if default is None:
        return "-"
    return f"`{json.dumps(default)}`" if not isinstance(default, str) else f"`{default or chr(39) * 2}`"


def main(folder: Path, examples: Path) -> None:
    """Write the pages into ``folder``, and the JSON Schemas beside the examples of settings."""
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
    for name in ("sidecar", "sts", "platform"):
        schema = json_schema(sts=name == "sts", platform=name == "platform")
        (examples / f"{name}.schema.json").write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
