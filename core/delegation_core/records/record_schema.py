"""JSON Schema of a record, for readers of the stream: the page of records, and tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from delegation_core.records.record import EVENTS, FIELDS, KEYS, MAX_ITEMS, Key, Kind

_JSON: Final[Mapping[Kind, dict[str, object]]] = {
    "text": {"type": ["string", "null"]},
    "texts": {"type": ["array", "null"], "items": {"type": "string"}, "maxItems": MAX_ITEMS + 1},
    "count": {"type": ["integer", "null"], "minimum": 0},
    "milliseconds": {"type": ["number", "null"], "minimum": 0},
    "flag": {"type": ["boolean", "null"]},
}
_NEVER_NULL: Final[Mapping[str, dict[str, object]]] = {
    "event": {"enum": list(EVENTS)},
    "ts": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$"},
    "run": {"type": "string"},
    "seq": {"type": "integer", "minimum": 1},
}


def record_schema() -> dict[str, object]:
    """JSON Schema (2020-12) of one record: exactly the keys of ``FIELDS``, each of its type or null."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sidecar record",
        "type": "object",
        "properties": {name: _NEVER_NULL.get(name) or _property(key) for name, key in KEYS.items()},
        "required": list(FIELDS),
        "additionalProperties": False,
    }


def _property(key: Key) -> dict[str, object]:
    return {"enum": [*key.choices, None]} if key.choices else _JSON[key.kind]
