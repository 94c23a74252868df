from __future__ import annotations

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk.resources import Resource

from sidecar.observe.telemetry.logs import log_record
from sidecar.observe.telemetry.spans import nanoseconds
from tests.observe.telemetry.test_spans import record


@pytest.mark.parametrize(
    ("decision", "severity"),
    [("allow", SeverityNumber.INFO), ("deny", SeverityNumber.WARN), (None, SeverityNumber.INFO)],
)
def test_a_record_is_a_log_whose_body_is_its_line(decision: str | None, severity: SeverityNumber) -> None:
    made = log_record(record(decision=decision, path="/a\x07"), '{"subject":"alïce"}'.encode(), Resource({})).log_record
    assert made.body == '{"subject":"alïce"}'
    assert made.severity_number is severity
    assert made.timestamp == nanoseconds("2026-11-29T03:00:00.500000Z")
    assert made.event_name == "delegation.request"
    assert set(made.attributes or {}) <= {
        "delegation.decision", "delegation.reason", "delegation.direction", "delegation.route", "delegation.request_id",
    }  # fmt: skip
