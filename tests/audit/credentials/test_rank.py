from __future__ import annotations

import pytest

from delegation_audit.credentials.fields import Exposure
from delegation_audit.credentials.kinds import Kind
from delegation_audit.credentials.rank import age_days, rank, severity_of
from delegation_audit.rules import Severity


def of(
    kind: Kind = Kind.API_KEY, exposure: Exposure = Exposure.RECORD, places: int = 1, owners: int = 1, age: int = 1
) -> int:
    return rank(kind, [exposure], places=places, owners=owners, age=age)


def test_the_rank_is_reach_times_exposure_times_age() -> None:
    assert of() == 2 * 1 * 1
    assert of(kind=Kind.AWS_ACCESS_KEY) == 5 * 1 * 1
    assert of(exposure=Exposure.CODE) == 2 * 3 * 1
    assert of(owners=2) == 3 * 1 * 1
    assert of(places=3) == 2 * 2 * 1


@pytest.mark.parametrize(("age", "factor"), [(0, 1), (90, 1), (91, 2), (365, 2), (366, 3), (None, 2)])
def test_age_counts_from_a_quarter_on(age: int | None, factor: int) -> None:
    assert rank(Kind.API_KEY, [Exposure.RECORD], places=1, owners=1, age=age) == 2 * factor


@pytest.mark.parametrize(
    ("number", "severity"),
    [
        (30, Severity.CRITICAL),
        (29, Severity.HIGH),
        (12, Severity.HIGH),
        (11, Severity.MEDIUM),
        (5, Severity.MEDIUM),
        (4, Severity.LOW),
    ],
)
def test_the_severity_follows_from_the_rank(number: int, severity: Severity) -> None:
    assert severity_of(number) is severity


def test_an_age_is_in_days_and_unknown_where_there_is_no_date() -> None:
    assert age_days("2026-09-20", "2026-09-21") == 1
    assert age_days("2026-09-22", "2026-09-21") == 0
    assert age_days(None, "2026-09-21") is None
    assert age_days("no date", "2026-09-21") is None
