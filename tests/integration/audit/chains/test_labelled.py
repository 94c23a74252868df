"""A set with known faults is judged as it is labelled: loss, forgeries, forks, theft, skewed clocks, shuffled lines."""

import json
from pathlib import Path

from benchmarks.labelled import FAULTS, write
from delegation_audit.chains.database import open_database
from delegation_audit.chains.inputs import read_blocks
from delegation_core.records.folders import RECORDS, record_files


def test_every_chain_of_a_labelled_set_is_judged_right(tmp_path: Path) -> None:
    labels = write(tmp_path, 3000, seed=17, faulty=0.5)
    found: dict[str, set[str]] = {}
    with open_database(threads=1) as database:
        database.read(read_blocks(record_files([str(tmp_path)], endings=RECORDS)))
        database.judge()
        assert database.unreadable == []
        for chain, kind in database.rows("SELECT chain, kind FROM findings WHERE chain IS NOT NULL"):
            found.setdefault(json.loads(chain), set()).add(kind)
    assert {chain: sorted(kinds) for chain, kinds in found.items()} == labels
    assert len({tuple(kinds) for kinds in labels.values()}) > 12
    assert len(labels) > 3 * len(FAULTS)


def test_the_same_seed_makes_the_same_set(tmp_path: Path) -> None:
    assert write(tmp_path / "a", 300, seed=3) == write(tmp_path / "b", 300, seed=3)
    files = [sorted(path.read_bytes() for path in (tmp_path / name).iterdir()) for name in "ab"]
    assert files[0] == files[1]
    assert write(tmp_path / "c", 300, seed=4, faulty=1) != write(tmp_path / "d", 300, seed=5, faulty=1)
