"""The cost of the hash chain is the difference of two ways that encode the same records."""

from __future__ import annotations

import random

import pytest

from benchmarks.hash_chain import Cost, _record, _unchained, measure
from delegation_core.records.hash_chain import HashChain
from delegation_core.records.record_text import encode


@pytest.mark.parametrize("batch", [1, 3])
def test_each_way_encodes_the_same_records_and_only_one_chains_them(batch: int) -> None:
    rng = random.Random(1)
    chain = HashChain(encode)
    chain([_record(rng, 0)])
    records = [_record(rng, seq) for seq in range(1, batch + 1)]
    plain, chained = _unchained(records).splitlines(), chain(records).splitlines()
    assert [line.rpartition(b',"prev":')[0] for line in plain] == [line.rpartition(b',"prev":')[0] for line in chained]
    assert {line.rpartition(b",")[2] for line in plain} == {b'"prev":null}'}
    assert len({line.rpartition(b",")[2] for line in chained}) == batch


def test_a_measurement_names_its_batch_and_the_least_is_no_more_than_the_median() -> None:
    cost = measure(2, records=4, rounds=3)
    assert isinstance(cost, Cost)
    assert cost.batch == 2
    assert cost.least <= cost.median
