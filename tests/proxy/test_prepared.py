"""Text that the native engine is given of a permit: nothing in it could break a line of a head or of a record."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from delegation_core.records.record import Record
from sidecar.observe.entry import request_record
from sidecar.proxy.native.warm import VARYING, prepare

NATIVE: Any = SimpleNamespace(Prepared=lambda **parts: parts)


def record(**members: object) -> Record:
    return request_record("inbound", "run") | {"route": "docs", "chain_depth": 1, "workload": "w"} | members


def prepared(made: Record, value: bytes = b"alice") -> Any:
    return prepare(NATIVE, made, [(b"delegation-subject", value)], begins=1, ends=9)


def test_a_record_is_cut_at_what_differs_by_request() -> None:
    made = prepared(record(subject="alice"))
    assert len(made["pieces"]) == len(VARYING) + 1
    assert made["lines"] == b"delegation-subject: alice\r\n"
    assert (made["begins"], made["ends"], made["route_name"], made["depth"]) == (1, 9, "docs", 1)


@pytest.mark.parametrize("value", [b"alice\r\nx: y", b"alice\n", b"a\rb", b"a\0b", b"a\x7fb"])
def test_a_value_with_a_control_byte_is_left_to_the_engine_in_python(value: bytes) -> None:
    assert prepared(record(), value) is None


@pytest.mark.parametrize("subject", ["ali\nce", 'ali"ce', "ali\\ce", "al\u00edce", "ali\x7fce", "a" * 3000])
def test_a_record_that_needs_cleaning_is_left_to_the_engine_in_python(subject: str) -> None:
    assert prepared(record(subject=subject)) is None
