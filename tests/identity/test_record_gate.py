"""Records on their way to OpenSSL: in batches, whole, in order, and few without data."""

from __future__ import annotations

import random

import pytest

from sidecar.identity import record_gate
from sidecar.identity.record_gate import (
    _TINY_BYTES,
    BATCH,
    BATCH_BYTES,
    MAX_OVERHEAD_BYTES,
    MAX_TINY,
    MAX_WITHOUT_DATA,
    WINDOW_S,
    RecordGate,
    TooManyRecordsError,
)


def record(length: int, *, fill: bytes = b"x") -> bytes:
    return b"\x17\3\3" + length.to_bytes(2, "big") + fill * length


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def established(clock: Clock | None = None) -> RecordGate:
    gate = RecordGate(clock or Clock())
    gate.establish()
    return gate


class Reader:
    """Reads as OpenSSL does: whole records, each of which has data."""

    def __init__(self, gate: RecordGate) -> None:
        self._gate = gate
        self._unread = b""

    def read_all(self, received: bytes) -> bytes:
        """Return all received data."""
        passed = b""
        batch = self._gate.take(received)
        while batch:
            passed += batch
            self._unread += batch
            while (size := self._whole()) is not None:
                self._gate.count_data(size - 22)
                self._unread = self._unread[size:]
            batch = self._gate.more()
        return passed

    def _whole(self) -> int | None:
        size = 5 + int.from_bytes(self._unread[3:5], "big")
        return size if len(self._unread) >= max(size, 5) else None


def all_of(gate: RecordGate, received: bytes) -> bytes:
    return Reader(gate).read_all(received)


def drained(gate: RecordGate) -> bytes:
    """Return everything that OpenSSL gets, if none of it is data."""
    return b"".join(iter(gate.more, b""))


def test_one_record_is_passed_on_as_it_is() -> None:
    gate = established()
    one = record(600)
    assert gate.take(one) is one
    assert gate.held_bytes == 0
    assert not gate.busy


def test_no_more_than_a_batch_is_passed_on_at_once() -> None:
    gate = established()
    many = record(60) * (BATCH + 1)
    assert gate.take(many) == record(60) * BATCH
    assert gate.held_bytes == len(record(60))
    assert gate.more() == record(60)
    assert gate.held_bytes == 0
    assert gate.more() == b""


def test_a_batch_of_large_records_ends_earlier() -> None:
    gate = established()
    assert gate.take(record(16_000) * 5) == record(16_000) * 2


@pytest.mark.parametrize(
    ("received", "why"),
    [
        (record(22) * 1000, "many records without data"),
        (record(16_000) * 5, "many records without data"),
        (record(2_100) * 60, "many records without data"),
    ],
    ids=["small", "large", "padded"],
)
def test_records_without_data_are_refused_when_they_are_too_many(received: bytes, why: str) -> None:
    gate = established()
    passed = len(gate.take(received))
    with pytest.raises(TooManyRecordsError, match=why):
        passed += len(drained(gate))
    assert len(received) - gate.held_bytes <= max(MAX_OVERHEAD_BYTES, MAX_WITHOUT_DATA * 27) + 2 * BATCH_BYTES


@pytest.mark.parametrize("pause_s", [0.0, 2 * WINDOW_S], ids=["at once", "now and then"])
def test_they_are_counted_over_a_while_however_they_arrive(pause_s: float) -> None:
    clock = Clock()
    gate = established(clock)
    cut = False
    for _ in range(10):
        clock.now += pause_s
        try:
            gate.take(record(22) * BATCH)
        except TooManyRecordsError:
            cut = True
    assert cut == (pause_s == 0)


@pytest.mark.parametrize(
    ("limit", "counter"),
    [("MAX_WITHOUT_DATA", "_without_data"), ("MAX_OVERHEAD_BYTES", "_overhead_bytes"), ("MAX_TINY", "_tiny")],
)
def test_a_limit_is_reached_within_its_window_and_never_passed(
    limit: str, counter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    gate = established(clock)
    gate.take(record(18) * 10)
    monkeypatch.setattr(record_gate, limit, getattr(gate, counter))
    assert gate.more() == b""
    monkeypatch.setattr(record_gate, limit, getattr(gate, counter) - 1)
    clock.now += WINDOW_S
    with pytest.raises(TooManyRecordsError):
        gate.more()
    clock.now += 0.5
    assert gate.more() == b""


@pytest.mark.parametrize(("length", "tiny"), [(_TINY_BYTES - 1, 2), (_TINY_BYTES, 0)])
def test_a_record_is_tiny_below_a_size(length: int, tiny: int) -> None:
    gate = established()
    gate.take(record(length) * 2)
    assert gate._tiny == tiny


def test_records_with_data_are_passed_on_however_many_they_are() -> None:
    many = record(60) * 10_000
    assert all_of(established(), many) == many


@pytest.mark.parametrize(("number", "cut"), [(MAX_TINY, False), (MAX_TINY + BATCH + 1, True)])
def test_records_of_hardly_any_data_are_limited_too(number: int, cut: bool) -> None:
    gate, many = established(), record(18) * number
    if cut:
        with pytest.raises(TooManyRecordsError, match="hardly any data"):
            all_of(gate, many)
    else:
        assert all_of(gate, many) == many


def test_a_certificate_chain_of_a_handshake_is_not_counted_by_bytes() -> None:
    gate, flight = RecordGate(Clock()), record(16_000) * 3
    assert gate.take(flight) + drained(gate) == flight


@pytest.mark.parametrize("first", [True, False], ids=["alone", "after data"])
def test_a_second_handshake_is_refused(first: bool) -> None:
    renegotiation = b"\x16\3\3" + record(40)[3:]
    sent = renegotiation if first else record(60) + renegotiation
    assert all_of(RecordGate(Clock()), sent) == sent
    with pytest.raises(TooManyRecordsError, match="handshake"):
        all_of(established(), sent)


def test_a_second_handshake_is_refused_after_data_that_looks_like_a_record() -> None:
    gate, inner = established(), record(40)
    assert gate.take(record(len(inner), fill=b"")) == record(len(inner), fill=b"")  # a head without its data
    assert gate.take(inner) == inner  # its data
    with pytest.raises(TooManyRecordsError, match="handshake"):
        gate.take(b"\x16\3\3" + record(40)[3:])


def test_nothing_is_busy_once_all_records_have_given_their_data() -> None:
    gate = established()
    gate.take(record(60) * 3)
    for left in (True, True, False):
        gate.count_data(43)
        assert gate.busy is left


@pytest.mark.parametrize("seed", range(50))
def test_cut_anywhere_all_bytes_come_through_in_order(seed: int) -> None:
    chance = random.Random(seed)
    lengths = [chance.choice([32, 60, 600, 16_000]) for _ in range(chance.choice([1, 3, 200]))]
    sent = b"".join(record(length, fill=bytes([n % 256])) for n, length in enumerate(lengths))
    gate, passed, at = established(), b"", 0
    reader = Reader(gate)
    while at < len(sent):
        size = chance.choice([1, 2, 4, 5, 6, 1000, 70_000])
        passed += reader.read_all(sent[at : at + size])
        at += size
    assert passed == sent
    assert gate.held_bytes == 0
    assert not gate.busy
