"""Records as they wait for their export: those of the native engine by their line, which is read when they leave.

A request of the native engine is no record with all keys, and holds on to its token. So only its line waits, with the
id of its span, which knows more than its text.
"""

from __future__ import annotations

from typing import cast

import orjson

from sidecar.observe.record import Record

Kept = Record | tuple[str, bytes]


def kept(record: object, line: bytes) -> Kept:
    """Return what waits of a record. ``line`` is what its sink gets."""
    return record if isinstance(record, dict) else (cast("Record", record)["span_id"], line)


def record_of(item: Kept) -> Record:
    """Return the whole record."""
    if isinstance(item, dict):
        return item
    span_id, line = item
    record: Record = orjson.loads(line)
    record["span_id"] = span_id
    return record
