"""Rules, alerts and dashboard agree with the exported metrics, with the reason codes, and with the runbook."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from delegation_core.errors import Reason
from sidecar.injector.metrics import InjectorMetrics
from sidecar.observe.docs import LABELS, families
from sidecar.observe.metrics import Metrics
from sidecar.proxy.listening.agent_watch import LOOK_S
from tests.interop.mesh_of_500 import FAILING, KEPT, ROWS, SIZE, foreign, target

ROOT: Final = Path(__file__).parent.parent
MONITORING: Final = ROOT / "monitoring"
SEVERITIES: Final = {"critical", "warning", "info"}
# 5xx that concern the agent, the next hop or one user, and not the platform.
NOT_OURS: Final = {
    "http_version",
    "card_refused",
    "list_unreadable",
    "subject_busy",
    "upstream_bad_response",
    "upstream_timeout",
    "upstream_unreachable",
}
TARGET: Final = {"job", "namespace", "workload", "pod", "instance"}  # labels that a scrape gives: docs/prometheus.md
FROM_PROMETHEUS: Final = {*TARGET, "le"}
# The rules that sum over pods or workloads, by the labels that they keep of the target. All others keep every label.
BY_WORKLOAD: Final = {"job", "namespace", "workload"}
BY_NAMESPACE: Final = {"job", "namespace"}
SUMMED: Final = {
    "SidecarAbsent": BY_NAMESPACE,  # nothing is left that could have a pod
    "SidecarInjectorDown": BY_NAMESPACE,  # one replica is enough
    "SidecarInjectorRefusesAll": BY_NAMESPACE,  # what one replica admits counts for the other
    "SidecarMachinesOutnumberHumans": BY_NAMESPACE,  # of the process that sees most
    "SidecarTokenServiceGone": BY_NAMESPACE,  # one replica is enough
    "SidecarVersionsDiffer": BY_WORKLOAD,
    "SidecarWorkloadUnnamed": BY_NAMESPACE,
}


@cache
def rules() -> list[dict[str, Any]]:
    files = sorted((MONITORING / "rules").glob("*.yaml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


@cache
def cases() -> list[dict[str, Any]]:
    files = (MONITORING / "tests").glob("*.yaml")
    return [test for file in files for test in yaml.safe_load(file.read_text())["tests"]]


def cases_of(alert: str) -> list[dict[str, Any]]:
    return [test for test in cases() if test["name"].startswith(f"{alert}: ")]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dashboard()["panels"]
    return found


@cache
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MONITORING / "dashboards" / "sidecar.json").read_text())
    return found


def queries() -> Iterator[str]:
    for panel in panels():
        yield from (target["expr"] for target in panel.get("targets", ()))


def of_the_injector() -> Iterable[Metric]:
    """Return the injector's metrics, which the page on Kubernetes lists."""
    return text_string_to_metric_families(InjectorMetrics(Metrics()).render().decode())


@cache
def exported() -> set[str]:
    names: set[str] = set()
    for family in of_the_injector():
        names |= {sample.name for sample in family.samples}
        names |= {f"{family.name}_bucket", f"{family.name}_total", family.name}
    for ours in families():
        parts = ("_bucket", "_count", "_sum") if ours.type == "histogram" else ("",)
        names |= {ours.text_name + part for part in parts}
    return names


@cache
def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


EXPRESSIONS: Final = [rule["expr"] for rule in rules()] + list(queries())
ALERTS: Final = {alert["alert"]: alert for alert in alerts()}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_that_is_asked_for_is_exported_or_recorded(expression: str) -> None:
    asked = set(re.findall(r"[a-z_:0-9]*sidecar_[a-z_0-9:]+", expression))
    assert asked or "up{" in expression
    assert asked <= exported() | recorded()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_label_that_is_asked_for_exists(expression: str) -> None:
    known = {*LABELS, *FROM_PROMETHEUS}
    grouped = re.findall(r"\b(?:by|without|on|ignoring|group_left)\s*\(([^)]*)\)", expression)
    asked = {label.strip() for labels in grouped for label in labels.split(",") if label.strip()}
    matched = {
        name for inside in re.findall(r"\{([^}]*)\}", expression) for name in re.findall(r"(\w+)\s*[=!]", inside)
    }
    assert asked | matched <= known


def aggregations(expression: str) -> list[tuple[str, set[str]]]:
    """Return `by` or `without`, and the labels, of each aggregation. One without either keeps no label."""
    found = re.findall(
        r"\b(?:sum|min|max|avg|group|count|stddev|quantile|topk|bottomk)(?: (by|without) \(([^)]*)\)| *\()", expression
    )
    return [(word or "by", {label.strip() for label in labels.split(",") if label.strip()}) for word, labels in found]


def kept_of(rule: dict[str, Any]) -> set[str]:
    name = rule.get("alert") or rule["record"]
    if name.startswith("workload"):
        return BY_WORKLOAD
    return SUMMED.get(name, TARGET)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_no_rule_drops_a_label_of_the_target(rule: dict[str, Any]) -> None:
    expression = rule["expr"].replace("unless on (version) topk(1, count by (version) (sidecar_build_info))", "")
    for word, labels in aggregations(expression):
        dropped = labels & TARGET if word == "without" else kept_of(rule) - labels
        assert not dropped, f"{word} ({', '.join(labels)})"
    assert not re.search(r"\bon \(", expression), "on () leaves labels of the target out; ignoring () keeps them"


@pytest.mark.parametrize("name", SUMMED)
def test_a_rule_that_sums_does_so_by_the_labels_that_are_said(name: str) -> None:
    assert any(labels & TARGET == SUMMED[name] for _, labels in aggregations(ALERTS[name]["expr"]))


def test_each_alert_has_a_row_of_the_mesh_of_500_at_its_level() -> None:
    assert set(ROWS) == set(ALERTS)
    for name, row in ROWS.items():
        asked = re.findall(r"\bworkload[a-z_]*:", ALERTS[name]["expr"])
        kept = BY_WORKLOAD if asked else SUMMED.get(name, TARGET)
        assert set(KEPT[row.level]) == kept, name


@pytest.mark.parametrize("name", ROWS)
def test_the_mesh_of_500_is_500_and_foreign_pods(name: str) -> None:
    row = ROWS[name]
    targets = [tuple(target(row, number).items()) for number in range(SIZE)]
    assert len(set(targets)) == SIZE == 500
    kept = KEPT[row.level]
    failing = tuple(target(row, FAILING).get(label) for label in kept)
    assert all(tuple(pod.get(label) for label in kept) != failing for pod in foreign(row))
    assert {pod["job"] for pod in foreign(row)} == {row.job}
    assert row.failing != row.working or row.unnamed


def test_no_label_is_made_of_what_a_caller_sends() -> None:
    """Names of users, tokens and paths are in records; as labels each would be a series."""
    every = {label for family in families() for label in family.labels}
    assert every & {"subject", "sub", "user", "path", "peer", "actor", "jti", "source", "client_id"} == set()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in SEVERITIES
    assert "for" in alert
    notes = alert["annotations"]
    assert notes["summary"]
    assert notes["description"]
    page, _, anchor = notes["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}
    assert anchor == name.lower()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_tested_while_it_fires_and_while_it_is_quiet(name: str) -> None:
    checks = [check for test in cases_of(name) for check in test["promql_expr_test"]]
    assert any(check["exp_samples"] for check in checks)
    assert any(not check["exp_samples"] for check in checks)


def test_the_runbook_has_no_heading_of_an_alert_that_is_gone() -> None:
    headings = re.findall(r"^## (Sidecar\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert headings == list(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_a_heading_of_the_runbook_says_where_to_look_the_fix_and_when_it_is_fixed(name: str) -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    meaning, *parts = re.split(r"^- \*\*(Look|Fix|Fixed)\b", runbook.partition(f"## {name}\n")[2], flags=re.MULTILINE)
    assert meaning.strip()
    assert not meaning.startswith("## ")
    assert parts[0:6:2] == ["Look", "Fix", "Fixed"]


def test_the_error_ratios_count_every_reason_of_the_platform_and_no_other() -> None:
    ours = {str(reason) for reason in Reason if reason.answer.status >= 500} - NOT_OURS
    ratios = [rule["expr"] for rule in rules() if rule.get("record", "").startswith("instance:sidecar_errors:")]
    assert len(ratios) == 6
    for expression in ratios:
        (pattern,) = re.findall(r'reason=~"([a-z_|]+)"', expression)
        assert set(pattern.split("|")) == ours, (
            "monitoring/rules/recording.yaml: the rules sidecar_errors must name exactly the reasons of 5xx that are"
            f" errors of the platform; differs: {sorted(set(pattern.split('|')) ^ ours)}. What agents and their callers"
            " cause belongs in NOT_OURS of this test"
        )


def test_every_metric_that_the_runbook_names_is_exported() -> None:
    named = set(re.findall(r"\bsidecar_[a-z_]+", (ROOT / "docs" / "runbook.md").read_text()))
    recorded = {rule["record"].split(":")[1] for rule in rules() if "record" in rule}
    assert named - recorded <= exported()


def test_every_reason_that_a_rule_names_is_a_reason() -> None:
    known = set(map(str, Reason))
    for expression in EXPRESSIONS:
        for pattern in re.findall(r'reason[=!]~?"([a-z_|]+)"', expression):
            assert set(pattern.split("|")) <= known


def test_what_inhibits_an_alert_and_what_is_inhibited_are_alerts() -> None:
    rules = yaml.safe_load((MONITORING / "alertmanager.yaml").read_text())["inhibit_rules"]
    for matcher in (one for rule in rules for side in ("source_matchers", "target_matchers") for one in rule[side]):
        name, _, value = matcher.partition("=")
        pattern = value.lstrip("~").strip('"')
        assert name == "alertname"
        assert [alert for alert in ALERTS if re.fullmatch(pattern, alert)]


def test_the_dashboard_is_for_any_prometheus() -> None:
    found = dashboard()
    assert (found["uid"], found["title"]) == ("delegation-sidecar", "Delegation sidecar")
    assert [one["name"] for one in found["templating"]["list"]] == [
        "datasource",
        "job",
        "namespace",
        "workload",
        "pod",
        "instance",
    ]
    sources = re.findall(r'"uid": "([^"]+)"', json.dumps(found["panels"]))
    assert set(sources) == {"${datasource}"}
    assert len(json.dumps(found)) < 1_000_000


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_a_panel_follows_each_variable(query: str) -> None:
    for selector in re.findall(r"(?:sidecar_\w+|\bup)(?::\w+)?\{([^}]*)\}", query):
        assert {f'{label}=~"${label}"' for label in TARGET} <= set(selector.split(", ")), selector
    assert not re.search(r"\bsidecar_\w+(?![\w:{])", query), "a metric without the variables"


def test_each_panel_has_a_place_a_title_and_a_number_of_its_own() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    assert all(panel["title"] for panel in panels())
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_a_rate_on_the_dashboard_goes_with_its_resolution() -> None:
    for expression in queries():
        windows = set(re.findall(r"\[([^\]]+)\]", expression))
        assert windows <= {"$__rate_interval", "5m", "1h", "1d"}


def test_a_dead_agent_is_critical_within_a_minute_by_the_defaults() -> None:
    groups = yaml.safe_load((MONITORING / "rules" / "alerts.yaml").read_text())["groups"]
    (group,) = (one for one in groups if any(rule["alert"] == "SidecarAgentDown" for rule in one["rules"]))
    (rule,) = (rule for rule in group["rules"] if rule["alert"] == "SidecarAgentDown")
    values = yaml.safe_load((ROOT / "helm" / "sidecar" / "values.yaml").read_text())
    evaluated_s = seconds(group["interval"])
    fires_s = ceil(seconds(rule["for"]) / evaluated_s) * evaluated_s
    assert rule["labels"]["severity"] == "critical"
    assert LOOK_S + seconds(values["podMonitor"]["interval"]) + evaluated_s + fires_s < 60


def seconds(text: str) -> int:
    assert text.endswith("s"), text
    return int(text[:-1])
