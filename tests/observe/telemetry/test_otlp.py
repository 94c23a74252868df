"""The way to a collector: what goes with a batch, and what does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.observe.telemetry.otlp import TelemetryExport
from sidecar.observe.telemetry.settings import TracingSettings
from tests.fakes.collector import Collector, open_collector
from tests.observe.telemetry.test_spans import record


@pytest.fixture
def collector() -> Iterator[Collector]:
    with open_collector() as opened:
        yield opened


def export(collector: Collector, **settings: Any) -> TelemetryExport:
    return TelemetryExport(TracingSettings(endpoint=collector.url, timeout_s=1.0, **settings), "run")


def test_spans_arrive_with_the_headers_of_the_settings_and_none_of_the_environment(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "OTEL_EXPORTER_OTLP_HEADERS": "x-environment=1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "OTEL_SDK_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    secret = tmp_path / "token"
    secret.write_text("Bearer one\n")
    secret.chmod(0o600)
    made = export(collector, headers={"authorization": secret})
    made.offer([record()], b"{}\n")
    collector.wait_for(lambda: len(collector.requests) == 1)
    secret.write_text("Bearer two\n")  # a renewed token
    made.offer([record()], b"{}\n")
    collector.wait_for(lambda: len(collector.requests) == 2)
    made.close()
    (path, fields, _), (_, later, _) = collector.requests
    assert path == "/v1/traces"
    assert (fields["authorization"], later["authorization"]) == ("Bearer one", "Bearer two")
    assert fields["content-type"] == "application/x-protobuf"
    assert "x-environment" not in fields
    assert [span.name for span in collector.spans] == ["POST draft"] * 2
    assert {key: count for key, count in made.counts().items() if count} == {("spans", "sent"): 2}


def test_a_header_whose_file_cannot_be_used_costs_the_batch(
    collector: Collector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "token"
    secret.write_text("Bearer one\n")
    secret.chmod(0o644)
    made = export(collector, headers={"authorization": secret})
    made.offer([record()], b"{}\n")
    made.close()
    assert collector.requests == []
    assert made.counts()["spans", "failed"] == 1
    assert "Bearer" not in caplog.text


def test_without_its_key_no_subject_leaves(collector: Collector, tmp_path: Path) -> None:
    made = export(collector, subject_key=tmp_path / "key")
    made.offer([record()], b"{}\n")
    made.close()
    assert collector.requests == []
    assert made.counts()["spans", "failed"] == 1


@pytest.mark.parametrize("status", [301, 307])
def test_a_collector_that_points_elsewhere_is_not_followed(collector: Collector, status: int) -> None:
    collector.status = status
    made = export(collector)
    made.offer([record()], b"{}\n")
    made.close()
    assert collector.requests == []
    assert {key: count for key, count in made.counts().items() if count} == {("spans", "failed"): 1}


def test_a_file_of_certificates_that_is_not_there_is_named(
    collector: Collector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = export(collector, ca=tmp_path / "ca.pem")
    made.offer([record()], b"{}\n")
    made.close()
    (said,) = [one for one in caplog.records if one.name == "sidecar.telemetry"]
    assert str(tmp_path / "ca.pem") in said.why  # type: ignore[attr-defined]


def test_the_environment_neither_proves_who_we_are_nor_whom_to_trust(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(tmp_path / "client.pem"))
    made = export(collector)
    made.offer([record()], b"{}\n")
    made.close()
    assert (made._span_session.verify, made._span_session.cert) == (True, None)
    assert len(collector.requests) == 1


def test_only_recorded_requests_are_spans_and_all_records_are_logs(collector: Collector) -> None:
    made = export(collector, records=True)
    opened = record(event="request.opened")
    started = {**dict.fromkeys(record()), "event": "started", "ts": "2026-11-29T03:00:00.000000Z"}
    made.offer([record(), opened, record(span_id="2" * 16), started], b"{1}\n{2}\n{3}\n{4}\n")
    made.close()
    assert [span.span_id for span in collector.spans] == ["1" * 16]
    assert [log.body for log in collector.logs] == ["{1}", "{2}", "{3}", "{4}"]
    assert [log.span_id for log in collector.logs] == ["1" * 16, "1" * 16, "2" * 16, ""]
    assert collector.logs[3].event == "delegation.started"
