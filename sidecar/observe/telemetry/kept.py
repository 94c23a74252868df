"""Records queued for export; records of the native engine are queued as lines and parsed at export.

A native-engine request has no full record, and references its token. So only its line is queued, with its span id,
which carries the parent.
"""

from __future__ import annotations

from typing import Any

import orjson

from delegation_core.records.record import Record

Kept = Record | tuple[str, bytes]


def kept(record: Any, line: bytes) -> Kept:
    """Return the queue item for a record. ``line``: the record's line in the sink."""
    return record if isinstance(record, dict) else (record["span_id"], line)


def record_of(item: Kept) -> Record:
    """Return the full record of a queue item."""
    if isinstance(item, dict):
        return item
    span_id, line = item
    record: Record = orjson.loads(line)
    record["span_id"] = span_id
    return record
