"""Memory of what the native engine keeps beside a permit or an issued token, and its account, ``PREPARED_BYTES``."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import Final

import pytest

from delegation_core.records.record import Record
from delegation_core.records.record_text import MAX_TEXT
from sidecar.engine import PREPARED_BYTES
from sidecar.libc_memory import allocated_bytes
from sidecar.observe.entry import request_record
from sidecar.proxy.journeys.headers import IDENTITY
from sidecar.proxy.native.warm import VARYING, _pieces_of, prepare
from sidecar.wire.message import Field
from tests.native import module, needs_native

pytestmark = needs_native

MANY: Final = 1000


def inbound(workload: str, value: bytes) -> tuple[Record, Sequence[Field]]:
    """Return a record with a workload, and the fields that the agent gets, each with a value."""
    return request_record("inbound", "0" * 16) | {"workload": workload}, [(name, value) for name in IDENTITY]


def longest() -> str:
    """Return a workload with which a record is as long as the engine takes."""
    record, fields = inbound("", b"")
    lengths = range(MAX_TEXT)
    last = next(n for n in lengths if _pieces_of(record | {"workload": "x" * (n + 1)}) is None)
    assert prepare(module(), record | {"workload": "x" * last}, fields, begins=0, ends=1) is not None
    return "x" * last


def taken(record: Record, fields: Sequence[Field]) -> float:
    """Measure the bytes of one of many: those that the C library has allocated, the object, and the list for it."""
    kept: list[object] = [None] * MANY
    before = allocated_bytes()
    for number in range(MANY):
        kept[number] = prepare(module(), record, fields, begins=0, ends=1)
    after = allocated_bytes()
    if before is None or after is None:
        pytest.skip("this C library does not tell what it has allocated")
    size: int = module().Prepared.__basicsize__
    return (after - before) / MANY + size + sys.getsizeof([None])


@pytest.mark.parametrize(
    ("workload", "value"),
    [
        pytest.param("", b"", id="the shortest"),
        pytest.param("spiffe://acme.example/agent/writer", b"spiffe://acme.example/agent/planner", id="as usual"),
        pytest.param(None, b"", id="the longest record"),
        pytest.param(None, b"x" * 8000, id="the longest of both"),
    ],
)
def test_what_is_kept_takes_between_half_and_all_of_its_account(workload: str | None, value: bytes) -> None:
    record, fields = inbound(longest() if workload is None else workload, value)
    gc.collect()
    measured = taken(record, fields)
    accounted = PREPARED_BYTES + sum(len(value) for _, value in fields)
    print(f"taken {measured:.0f} accounted {accounted}")  # noqa: T201
    assert accounted / 2 < measured < accounted


def test_an_object_tells_its_size_with_its_texts() -> None:
    record, fields = inbound("spiffe://acme.example/agent/writer", b"value")
    prepared = prepare(module(), record, fields, begins=0, ends=1)
    pieces = _pieces_of(record)
    assert pieces is not None
    assert len(pieces) == len(VARYING) + 1
    texts = sum(map(len, pieces)) + sum(len(name) + len(value) + 4 for name, value in fields)
    assert sys.getsizeof(prepared) == module().Prepared.__basicsize__ + texts
