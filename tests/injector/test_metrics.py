from __future__ import annotations

from pathlib import Path

from sidecar.injector.metrics import INJECTED, InjectorMetrics
from sidecar.injector.rules import RULES
from sidecar.observe.metrics import Metrics

PAGE = Path(__file__).parents[2] / "docs" / "kubernetes.md"


def test_every_series_is_there_from_the_start_and_counts() -> None:
    metrics = InjectorMetrics(Metrics())
    metrics.count_allowed(INJECTED)
    metrics.count_refused("privileged")
    metrics.certificate(1_800_000_000)
    text = metrics.render().decode()
    assert 'sidecar_injector_reviews_total{decision="allow",rule="injected"} 1.0' in text
    assert 'sidecar_injector_reviews_total{decision="deny",rule="privileged"} 1.0' in text
    assert "sidecar_injector_certificate_not_after_seconds 1.8e+09" in text
    for rule in RULES:
        assert f'sidecar_injector_reviews_total{{decision="deny",rule="{rule}"}}' in text


def test_reloads_and_lost_records_are_told() -> None:
    counts = Metrics()
    text = InjectorMetrics(counts)
    counts.reloaded(ok=False)
    counts.event_lost(3)
    assert 'sidecar_injector_reloads{result="refused"} 1.0' in text.render().decode()
    assert "sidecar_injector_records_lost 3.0" in text.render().decode()


def test_the_page_names_each_metric_and_each_rule() -> None:
    page = PAGE.read_text()
    for word in ("reviews_total", "reloads", "certificate_not_after_seconds", "records_lost", "connections_refused"):
        assert f"sidecar_injector_{word}" in page
    assert all(f"`{rule}`" in page for rule in RULES)
