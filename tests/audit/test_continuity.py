import pytest

from sidecar.audit.chains import rebuild
from sidecar.audit.findings import Kind
from tests.audit.evidence import read, record


def started(seq: int, run: str = "run", **members: object) -> dict[str, object]:
    return record(event="started", ts="2026-11-24T21:04:05.000000Z", run=run, seq=seq, **members)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        pytest.param([1, 2, 3], [], id="whole"),
        pytest.param([3, 1, 2], [], id="in-any-order"),
        pytest.param([1, 3], ["record 2 is missing from run run"], id="one-lost"),
        pytest.param([1, 5], ["records 2 to 4 are missing from run run"], id="some-lost"),
        pytest.param([2], ["record 1 is missing from run run"], id="the-first-lost"),
        pytest.param(
            [1, 3, 5], ["record 2 is missing from run run", "record 4 is missing from run run"], id="two-gaps"
        ),
    ],
)
def test_a_gap_in_the_numbers_of_a_run_is_named(numbers: list[int], expected: list[str]) -> None:
    findings = rebuild(read(map(started, numbers))).findings
    assert [finding.text for finding in findings] == expected
    assert {finding.kind for finding in findings} <= {Kind.RECORDS_LOST}


def test_each_run_has_numbers_of_its_own() -> None:
    assert rebuild(read([started(1), started(1, run="other"), started(2)])).findings == ()


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        pytest.param(started(1), Kind.REPEATED_RECORD, id="the-same-record-again"),
        pytest.param(started(1, detail="x"), Kind.FORGED_RECORD, id="another-record-in-its-place"),
        pytest.param(started(1, unheard_of="x"), Kind.FORGED_RECORD, id="a-key-that-audit-does-not-know-counts"),
    ],
)
def test_two_records_in_one_place_are_named(second: dict[str, object], expected: Kind) -> None:
    assert [finding.kind for finding in rebuild(read([started(1), second])).findings] == [expected]


def test_a_record_that_lost_its_workload_is_named_with_the_runs_own() -> None:
    findings = rebuild(read([started(1), started(3, workload="spiffe://acme.example/a")])).findings
    assert [finding.text for finding in findings] == ["record 2 is missing from spiffe://acme.example/a (run run)"]
