from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import prometheus_client.core as theirs
import pytest
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

import sidecar.observe.exposition as ours
from sidecar.observe.exposition import process_metrics, text_of_metrics

VALUES = [0, 1, -1, True, 0.1, 1 / 3, 999999, 1e6, 1234567.0, 1234567.25, 1e15, 1e16, 1e17, 1e300, -1e7, 1e-7]
VALUES += [math.inf, -math.inf, math.nan, 2**53 + 1]
TEXTS = ["", "plain", 'quo"te', "back\\slash", "line\nbreak", "ünï", "a,b={}", "\\n"]


class Given(Collector):
    def __init__(self, families: Iterable[Any]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Any]:
        return self._families


def families(of: Any) -> Iterator[Any]:
    """Make the same families by the prometheus library's classes, or by ours."""
    yield of.InfoMetricFamily("build", "The version.", value={"version": "1.0", "a": 'b"'})
    for number, value in enumerate(VALUES):
        yield of.GaugeMetricFamily(f"gauge_{number}", "Help.", value=value)
        yield of.CounterMetricFamily(f"counter_{number}", "Help.", value=value)
    for number, text in enumerate(TEXTS):
        yield of.GaugeMetricFamily(f"text_{number}", text or "none", value=1)
    labelled = of.CounterMetricFamily("labelled", "Two labels.", labels=("z", "a"))
    for text in TEXTS:
        labelled.add_metric((text, "x"), 1)
    yield labelled
    yield of.CounterMetricFamily("ends_in_total", "Help.", value=1)
    yield of.CounterMetricFamily("cpu_seconds_total", "Help.", value=1)
    yield of.GaugeMetricFamily("empty", "No series.", labels=("a",))
    histogram = of.HistogramMetricFamily("seconds", "Help.", labels=("direction",))
    histogram.add_metric(("in",), [("0.1", 1), ("1.0", 2), ("+Inf", 3)], 4.5)
    yield histogram
    yield of.HistogramMetricFamily("depth", "Help.", buckets=[("1.0", 0), ("+Inf", 0)], sum_value=0)


def test_the_text_is_the_prometheus_librarys_own() -> None:
    assert text_of_metrics(families(ours)) == generate_latest(Given(families(theirs)))
    assert ours.CONTENT_TYPE == CONTENT_TYPE_LATEST


def test_a_series_has_a_value_for_each_label() -> None:
    family = ours.CounterMetricFamily("name", "Help.", labels=("a", "b"))
    with pytest.raises(ValueError, match="argument"):
        family.add_metric(("x",), 1)


def test_the_process_has_the_figures_that_the_prometheus_library_collects() -> None:
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(namespace="sidecar", registry=registry)
    theirs_now = {metric.name: metric for metric in registry.collect()}
    ours_now = {metric.name: metric for metric in process_metrics("sidecar_process")}
    assert ours_now.keys() == theirs_now.keys()
    for name, metric in ours_now.items():
        assert (metric.type, metric.documentation) == (theirs_now[name].type, theirs_now[name].documentation)
        assert metric.samples[0].name == theirs_now[name].samples[0].name
        assert metric.samples[0].value == pytest.approx(theirs_now[name].samples[0].value, rel=0.2, abs=2)


def test_where_the_kernel_does_not_tell_there_are_no_figures_of_the_process(tmp_path: Path) -> None:
    assert list(process_metrics("sidecar_process", tmp_path)) == []
