"""Generator of the page of settings, from their JSON Schema: ``python -m sidecar.config.docs docs``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from sidecar.config import json_schema
from sidecar.config.doc_examples import as_yaml, examples_in
from sidecar.config.doc_places import places, sections_of
from sidecar.config.profile_docs import profile_page

_WRITTEN: Final = "<!-- Written by `make docs`; edit the models in sidecar/config instead. -->"
_PROFILES_WRITTEN: Final = "<!-- Written by `make docs`; edit sidecar/config/profile_docs.py instead. -->"
_HEAD: Final = """\
Three files, all YAML (JSON is YAML): a [sidecar's](#a-sidecar) (`sidecar run --config`), a
[token service's](#a-token-service) (`sidecar sts --config`) and, above the sidecar's, a [platform's](#a-platform)
(`--platform`). `sidecar check FILE` reports every problem of a file at once, each with its fix; it knows the kind of
file by its keys, or by `--kind`. `sidecar check --schema` prints the JSON Schema from which this page is written.
Whole files, each run by a test: [`config/`](../config) and, for settings that few need,
[`config/reference/`](../config/reference); each example below is a line of one of them.

"""
_RULES: Final = """\
## How a file is read

- Unknown keys are refused, and no value is converted: `"5"` is not a number. A plain word that is not true, false, null
  or a decimal number is text. Anchors, tags and duplicate keys are refused.
- The column *if not set* is the default in YAML; `null` is the same as leaving the key out, and `{}` a section whose
  keys all have their own defaults.
- Times are seconds and end in `_s`, sizes are bytes. An empty list permits nobody and nothing.
- A key is retired in two steps: a minor release reads the old key and its successor, and the changelog names both; the
  next one refuses the old key and names the successor. `version` grows only when the same file would mean
  something else.

## When a change takes effect

A good file takes effect as a whole; a bad one changes nothing, and `sidecar status` says why. The sidecar reloads its
file when it changes and on SIGHUP. That starts an interpreter: two seconds, or half a minute on a starved machine. One
reload runs at a time; changes during a reload lead to one more. A reload that failed for lack of time, memory or an
issuer's keys is retried. Wait for the record `config.reloaded`, or for the row `settings` of `sidecar status` (version
and age). Only [`deny_file`](runbook.md#the-deny-file) needs no reload.

These need a restart:

- of a sidecar: `identity`, `issuers[].revocations`, adding or removing `inbound` or `outbound`, their listeners and
  limits, `inbound.agent_key`, `inbound.subjects_at_once`, `inbound.txn_token`, `inbound.plain` (but it may be
  removed), `outbound.dns`, listener, TLS and limits of `entry.door`, `txn_tokens`, `tracing`, `workload_handle` (but
  not its `may_call`),
  `records`, `probe`, `admin`, `drain_s`, `protocols`, `engine`, `memory`, `max_memory_mib`, and the first
  `tasks: strict` of a route of A2A.
- of a token service: `issuer`, `identity`, listeners and limits, `keys`, `records`, `exchange_rate`, `revocation` (but
  not its `operators` and `replicas`), and another login issuer or foreign issuer.

## Environment variables

A variable overrides the key of the file. Its name is `SIDECAR__` and the key's place in capitals, with two underscores
for each dot: `SIDECAR__INBOUND__LISTEN` sets `inbound.listen`. Each section below says how the variables of its keys
begin. The value is YAML, as `SIDECAR__ISSUERS='[{issuer: "https://sts.acme.example", …}]'`; the empty value is `null`.

- A list is given whole: no variable names a key below a list, and the variable of the list replaces it.
- A section can be given whole too (`SIDECAR__RECORDS='{sink: stdout}'`); the variable of a key in it wins over it.
- A variable that names no setting is refused like an unknown key. If its value is wrong, the error names the variable
  after the key: `inbound.listen (SIDECAR__INBOUND__LISTEN)`.
- A platform file has no variables: it limits the workload, and the environment is the workload's.
- Kubernetes sets variables for a Service called `sidecar--anything`; these are ignored.

Variables that others set: `SPIFFE_ENDPOINT_SOCKET` is the Workload API's address where `identity` has none.
`KUBERNETES_SERVICE_HOST` tells `inbound.network: auto` that this is a pod. `POD_NAME`, `POD_NAMESPACE`,
`POD_SERVICE_ACCOUNT` and `NODE_NAME` go into the record of a start.
"""
_UNITS: Final = {"_s": "seconds", "_mib": "MiB", "_bytes": "bytes", "min_rate": "bytes per second"}
_SHORT: Final = 90  # characters of a section's example that fit into a table cell
# Pages that explain the sections of a key.
_EXPLAINED: Final = {
    "identity": "[identity sources](identity.md)",
    "issuers": "[profiles](profiles.md)",
    "inbound": "[one agent calls another](questions.md#how-do-i-let-one-agent-call-another)",
    "outbound": "[the same](questions.md#how-do-i-let-one-agent-call-another), [hosts outside](outside.md)",
    "exchange": "[adapters](adapters.md)",
    "entry": "[front apps](front-apps.md), [the door](door.md)",
    "txn_tokens": "[transaction tokens](transaction-tokens.md)",
    "workload_handle": "[acting for itself](own-authority.md)",
    "records": "[records](records.md), [tamper evidence](tamper-evidence.md)",
    "tracing": "[traces](tracing.md)",
    "deny": "[the deny file](runbook.md#the-deny-file)",
    "probe": "[Prometheus](prometheus.md)",
    "admin": "[`sidecar status`](runbook.md#the-first-look)",
    "protocols": "[HTTP/2 and gRPC](http2.md)",
    "memory": "[sizing](sizing.md#memory)",
    "keys": "[keys](sts.md#keys)",
    "exchange_rate": "[rate limits](sts.md#rate-limits)",
    "actor_rate": "[rate limits](sts.md#rate-limits)",
    "introspection": "[introspection](sts.md#introspection)",
    "login_issuers": "[logins](identity-providers.md#what-a-login-needs)",
    "foreign_issuers": "[two organisations](federation.md)",
    "targets": "[bound tokens](sts.md#sender-bound-tokens)",
    "rules": "[who may act for whom](sts.md#who-may-act-for-whom-where)",
    "self_rules": "[acting for itself](own-authority.md#into-the-mesh-token-self)",
    "self_delegations": "[acting for itself](own-authority.md#into-the-mesh-token-self)",
    "entries": "[front apps](front-apps.md)",
    "revocation": "[revocations](sts.md#revocations)",
    "crossings": "[two organisations](federation.md)",
    "exchange_endpoints": "[adapters](adapters.md)",
}
_FILES: Final = {"SidecarFile": "A sidecar", "StsFile": "A token service", "PlatformFile": "A platform"}

Schema = Mapping[str, Any]
Examples = Mapping[tuple[str, str], object]


def pages(examples: Path) -> Mapping[str, str]:
    """Return the text of each page by its file name under ``docs/``, with examples from a folder of settings files."""
    found = examples_in(examples)
    return {
        "configuration.md": "\n".join(
            ["# Settings", "", _WRITTEN, "", _HEAD + "\n".join(_contents()), _RULES, *_sections(found)]
        ),
        "profiles.md": "\n".join(["# Issuer profiles", "", _PROFILES_WRITTEN, "", *profile_page()]),
    }


@cache
def schemas() -> Mapping[str, Schema]:
    """Return the schema of each kind of file by its model."""
    return {str(one["title"]): one for one in (json_schema(), json_schema(sts=True), json_schema(platform=True))}


@cache
def sections() -> Mapping[str, Schema]:
    """Return every section's schema by its name, a section before the sections that it contains."""
    found: dict[str, Schema] = {}
    for schema in schemas().values():
        _walk(str(schema["title"]), {**schema.get("$defs", {}), str(schema["title"]): schema}, found)
    return found


def _walk(name: str, definitions: Mapping[str, Schema], found: dict[str, Schema]) -> None:
    if name in found:
        return
    found[name] = definitions[name]
    for value in definitions[name]["properties"].values():
        for _, held in sections_of(value):
            _walk(held, definitions, found)


def _sections(examples: Examples) -> Iterator[str]:
    stand = _places()
    of_files = {
        held for one in schemas().values() for key in one["properties"].values() for _, held in sections_of(key)
    }
    for name, schema in sections().items():
        level = "##" if name in _FILES else "###" if name in of_files else "####"
        title = f"{level} {_FILES.get(name) or _title(name)}"
        yield from (title, "", " ".join(schema.get("description", "").replace("``", "`").split()), "")
        if name not in _FILES:
            yield from (f"At {', '.join(stand[name])}.", "")
        yield "| key | takes | if not set | example | meaning |"
        yield "|---|---|---|---|---|"
        required = schema.get("required", [])
        for key, value in schema["properties"].items():
            row = (
                f"`{key}`",
                _takes(value, unit_of(key)),
                "**needed**" if key in required else f"`{as_yaml(default_of(value))}`",
                _example(value, _found(examples, name, key)),
                value["description"],
            )
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
        yield ""


def _places() -> Mapping[str, list[str]]:
    """Return the places where each section may stand, with the prefix of its keys' variables."""
    found: dict[str, list[str]] = {}
    for file, schema in schemas().items():
        for place, _, _, value in places(schema):
            for held, name in sections_of(value, place):
                has_variables = held.path == held.settable and file != "PlatformFile"
                text = f"`{held.path}`" + (f" (`{held.variable}__…`)" if has_variables else "")
                if text not in found.setdefault(name, []):
                    found[name].append(text)
    return found


def _contents() -> Iterator[str]:
    """Yield the table of contents: the sections below each key of each file, each where it stands first."""
    listed: set[str] = set()
    yield from ("| file | key | sections | explained in |", "|---|---|---|---|")
    for file, schema in schemas().items():
        for key, value in schema["properties"].items():
            own = [name for _, name in sections_of(value)]
            below: dict[str, Schema] = {}
            for name in own:
                _walk(name, schema["$defs"], below)
            links = [_link(name) for name in below if name in own or name not in listed]
            listed |= below.keys()
            if links:
                yield f"| {_FILES[file].lower()} | `{key}` | {', '.join(links)} | {_EXPLAINED.get(key, '')} |"
    yield ""


def _title(name: str) -> str:
    """``InboundRouteSection`` → ``Inbound route``."""
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in name.removesuffix("Section"))
    return words.strip().capitalize()


def unit_of(key: str) -> str:
    """Return the unit of a number, derived from the suffix of its key; empty for a plain count."""
    if key.endswith("per_s"):
        return "per second"
    return next((unit for end, unit in _UNITS.items() if key.endswith(end)), "")


def _takes(schema: Schema, unit: str = "") -> str:
    if "$ref" in schema:
        return _link(schema["$ref"].rpartition("/")[2])
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return " or ".join(_takes(one, unit) for one in schema[choice] if one.get("type") != "null")
    if "const" in schema:
        return f"`{as_yaml(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_takes(schema['items'], unit)}" + (", at least one" if schema.get("minItems") else "")
    if schema.get("type") == "object":
        held = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
        return f"mapping of text to {_takes(held[0], unit)}"
    if schema["type"] in {"integer", "number"}:
        kind = "whole number" if schema["type"] == "integer" else "number"
        return kind + (f" {unit}" if unit == "per second" else f" of {unit}" if unit else "") + _range(schema)
    return {"string": "text", "boolean": "true or false"}[schema["type"]]


def _link(name: str) -> str:
    title = _title(name).lower()
    return f"[{title}](#{title.replace(' ', '-')})"


def _range(schema: Schema) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to"}
    found = [f"{word} {schema[name]:.15g}" for name, word in words.items() if name in schema]
    return f", {' '.join(found)}" if found else ""


def default_of(schema: Schema) -> object:
    """Return the default value; for a section, only the keys that differ from the section's own defaults."""
    default = schema.get("default")
    if not isinstance(default, dict):
        return default
    held = next((name for _, name in sections_of(schema)), "")
    own = {key: value.get("default") for key, value in sections()[held]["properties"].items()} if held else {}
    return {key: value for key, value in default.items() if key not in own or value != own[key]}


def _found(examples: Examples, section: str, key: str) -> object:
    if (section, key) not in examples:
        raise LookupError(f"{section}.{key} has no example: set it in a file of config/reference/, such as agent.yaml")
    return examples[section, key]


def _example(schema: Schema, value: object) -> str:
    """Return an example; for a section with a long example, a link to that section."""
    text = as_yaml(value)
    held = next((name for _, name in sections_of(schema)), None)
    return f"`{text}`" if held is None or len(text) <= _SHORT else f"at its keys: {_link(held)}"


def main(folder: Path, examples: Path) -> None:
    """Write the pages into ``folder``, and the JSON Schemas beside the examples of settings."""
    for name, text in pages(examples).items():
        (folder / name).write_text(text, encoding="utf-8")
    for name in ("sidecar", "sts", "platform"):
        schema = json_schema(sts=name == "sts", platform=name == "platform")
        (examples / f"{name}.schema.json").write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
