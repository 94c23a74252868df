import functools
from typing import Any

import pytest

from delegation_audit.chains.findings import Finding, Kind
from tests.audit.chains.evidence import findings_of_each, read, rebuild
from tests.audit.evidence import record

pytestmark = pytest.mark.integration


def started(seq: int, run: str = "run", **members: object) -> dict[str, object]:
    return record(event="started", ts="2026-11-24T21:04:05.000000Z", run=run, seq=seq, **members)


NUMBERS: list[Any] = [
    pytest.param([1, 2, 3], [], id="whole"),
    pytest.param([3, 1, 2], [], id="in-any-order"),
    pytest.param([1, 3], ["record 2 is missing from run run"], id="one-lost"),
    pytest.param([1, 5], ["records 2 to 4 are missing from run run"], id="some-lost"),
    pytest.param([2], ["record 1 is missing from run run"], id="the-first-lost"),
    pytest.param([1, 3, 5], ["record 2 is missing from run run", "record 4 is missing from run run"], id="two-gaps"),
]
SECOND: list[Any] = [
    pytest.param(started(1), Kind.REPEATED_RECORD, id="the-same-record-again"),
    pytest.param(started(1, detail="x"), Kind.FORGED_RECORD, id="another-record-in-its-place"),
    pytest.param(started(1, unheard_of="x"), Kind.FORGED_RECORD, id="a-key-that-audit-does-not-know-counts"),
    pytest.param(dict(reversed(started(1).items())), Kind.REPEATED_RECORD, id="in-another-order"),
]


@functools.cache
def found_in_cases() -> list[list[Finding]]:
    numbered = [{str(number): started(number) for number in case.values[0]} for case in NUMBERS]
    return findings_of_each([*numbered, *({"first": started(1), "second": case.values[0]} for case in SECOND)])


@pytest.mark.parametrize(
    ("number", "expected"), [pytest.param(n, case.values[1], id=case.id) for n, case in enumerate(NUMBERS)]
)
def test_a_gap_in_the_numbers_of_a_run_is_named(number: int, expected: list[str]) -> None:
    findings = found_in_cases()[number]
    assert [finding.text for finding in findings] == expected
    assert {finding.kind for finding in findings} <= {Kind.RECORDS_LOST}


@pytest.mark.parametrize(
    ("number", "expected"), [pytest.param(n, case.values[1], id=case.id) for n, case in enumerate(SECOND, len(NUMBERS))]
)
def test_two_records_in_one_place_are_named(number: int, expected: Kind) -> None:
    assert [finding.kind for finding in found_in_cases()[number]] == [expected]


def test_each_run_has_numbers_of_its_own() -> None:
    assert rebuild(read([started(1), started(1, run="other"), started(2)])).findings == ()


def test_a_record_that_lost_its_workload_is_named_with_the_runs_own() -> None:
    findings = rebuild(read([started(1), started(3, workload="spiffe://acme.example/a")])).findings
    assert [finding.text for finding in findings] == ["record 2 is missing from spiffe://acme.example/a (run run)"]
