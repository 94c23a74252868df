"""Each line of a run holds the hash of the line before it, as it stands in the file."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import orjson
import pytest

from delegation_core.records.hash_chain import HashChain, line_hash
from delegation_core.records.record import FIELDS
from delegation_core.records.record_text import encode

BLANK: dict[str, Any] = {**dict.fromkeys(FIELDS), "event": "started", "ts": "2026-01-01T00:00:00.000000Z", "run": "a"}


def records(*numbers: int, **fields: Any) -> list[dict[str, Any]]:
    return [{**BLANK, "seq": number, **fields} for number in numbers]


def prevs(lines: bytes) -> list[str | None]:
    return [orjson.loads(line)["prev"] for line in lines.splitlines()]


def hashes(lines: bytes) -> list[str]:
    return [sha256(line).hexdigest() for line in lines.splitlines()]


def test_the_first_line_of_a_run_holds_null_and_each_other_the_hash_of_the_one_before() -> None:
    lines = HashChain(encode)(records(1, 2, 3))
    assert prevs(lines) == [None, *hashes(lines)[:2]]


def test_batches_join_as_if_they_had_been_one() -> None:
    chain = HashChain(encode)
    assert chain(records(1, 2)) + chain([]) + chain(records(3)) + chain(records(4, 5)) == HashChain(encode)(
        records(1, 2, 3, 4, 5)
    )


@pytest.mark.parametrize(
    "path", ["/plain", "/a\u202eb", "/" + "x" * 4000, '/"prev":null}', "/eyJhbGciOiJFUzI1NiJ9.e30.c2ln"]
)
def test_only_the_hash_differs_from_the_line_without_a_chain(path: str) -> None:
    chain = HashChain(encode)
    chain(records(1))
    (line,) = chain(records(2, path=path)).splitlines()
    (plain,) = encode(records(2, path=path))
    assert {**orjson.loads(line), "prev": None} == orjson.loads(plain)
    assert list(orjson.loads(line)) == list(FIELDS)


def test_a_lost_record_leaves_a_gap_in_the_numbers_and_none_in_the_chain() -> None:
    lines = HashChain(encode)(records(1, 3))
    assert prevs(lines)[1] == hashes(lines)[0]


def test_a_failure_to_encode_leaves_the_chain_where_it_was() -> None:
    broken = False

    def fails(batch: Any) -> list[bytes]:
        if broken:
            raise RuntimeError("a bug")
        return encode(batch)

    chain = HashChain(fails)
    first = chain(records(1))
    broken = True
    with pytest.raises(RuntimeError):
        chain(records(2))
    broken = False
    assert chain.head == (1, hashes(first)[0])
    assert prevs(chain(records(3))) == hashes(first)


def test_the_head_is_the_last_line_and_nothing_before_the_first() -> None:
    chain = HashChain(encode)
    assert chain.head is None
    lines = chain(records(1, 2))
    assert chain.head == (2, line_hash(lines.splitlines()[-1]))
