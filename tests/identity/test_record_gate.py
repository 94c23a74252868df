"""Records on their way to OpenSSL: in batches, whole, in order, and not many without data."""

from __future__ import annotations

import collections
import random

import pytest

from sidecar.identity.record_gate import BATCH, MAX_WITHOUT_DATA, RecordGate, TooManyRecordsError


def record(length: int, *, fill: bytes = b"x") -> bytes:
    return b"\x17\3\3" + length.to_bytes(2, "big") + fill * length


def all_of(gate: RecordGate, received: bytes) -> bytes:
    """Everything that OpenSSL gets, if each record has data."""
    passed = b""
    batch = gate.take(received)
    while batch:
        passed += batch
        for _ in range(BATCH):
            gate.count_data()
        batch = gate.more()
    return passed


def test_one_record_is_passed_on_as_it_is() -> None:
    gate = RecordGate()
    one = record(600)
    assert gate.take(one) is one
    assert gate.held_bytes == 0


def test_no_more_than_a_batch_is_passed_on_at_once() -> None:
    gate = RecordGate()
    many = record(3) * (BATCH + 1)
    assert gate.take(many) == record(3) * BATCH
    assert gate.held_bytes == len(record(3))
    assert gate.more() == record(3)
    assert gate.held_bytes == 0
    assert gate.more() == b""


def test_records_without_data_are_refused_when_they_are_too_many() -> None:
    gate = RecordGate()
    gate.take(record(3) * 1000)
    with pytest.raises(TooManyRecordsError, match=f"more than {MAX_WITHOUT_DATA}"):
        collections.deque(iter(gate.more, b""), maxlen=0)
    assert 1000 - gate.held_bytes / len(record(3)) <= MAX_WITHOUT_DATA + BATCH


def test_records_with_data_are_passed_on_however_many_they_are() -> None:
    many = record(3) * 10_000
    assert all_of(RecordGate(), many) == many


def test_what_arrives_later_is_counted_by_itself() -> None:
    gate = RecordGate()
    for _ in range(20):
        assert gate.take(record(3) * BATCH) == record(3) * BATCH
        assert gate.more() == b""


@pytest.mark.parametrize("seed", range(200))
def test_cut_anywhere_all_bytes_come_through_in_order(seed: int) -> None:
    chance = random.Random(seed)
    lengths = [chance.choice([0, 1, 22, 600, 16_000]) for _ in range(chance.choice([1, 3, 200]))]
    sent = b"".join(record(length, fill=bytes([n % 256])) for n, length in enumerate(lengths))
    gate, passed, at = RecordGate(), b"", 0
    while at < len(sent):
        size = chance.choice([1, 2, 4, 5, 6, 1000, 70_000])
        passed += all_of(gate, sent[at : at + size])
        at += size
    assert passed == sent
    assert gate.held_bytes == 0
