"""The alerts with the real promtool: each fires and stays quiet as it should, and every change of one is detected."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.interop.alert_mutants import mutants
from tests.interop.engine import ROOT, output, require
from tests.interop.mesh_of_500 import ROWS, document
from tests.test_monitoring import ALERTS, MONITORING

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600), pytest.mark.usefixtures("promtool")]

RULES: Final = sorted(map(str, (MONITORING / "rules").glob("*.yaml")))
TESTS: Final = sorted((MONITORING / "tests").glob("*.yaml"))
RECORDED: Final = re.compile(r"[a-z_]+:\w+(?::\w+)?")  # level:metric:operations


def test_the_rules_are_clean() -> None:
    output(["promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES])


def test_the_configuration_is_one() -> None:
    output(["promtool", "check", "config", "--syntax-only", str(MONITORING / "prometheus.yaml")])


def test_the_example_for_alertmanager_is_one() -> None:
    require(None if shutil.which("amtool") else "amtool is not on PATH")
    output(["amtool", "check-config", str(MONITORING / "alertmanager.yaml")])


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_alerts_fire_and_stay_quiet_as_they_should(file: Path) -> None:
    output(["promtool", "test", "rules", str(file)])


@pytest.mark.parametrize("name", ALERTS)
def test_no_change_of_an_alert_goes_unnoticed(name: str, tmp_path: Path) -> None:
    changed = dict(mutants(ALERTS[name]))
    assert len(changed) >= 3
    lawful = judged(name, {"as it is": ALERTS[name]}, tmp_path)
    assert lawful == {"as it is"}
    assert judged(name, changed, tmp_path) == set()


@pytest.mark.parametrize("name", ALERTS)
def test_one_of_500_fires_with_its_labels_whatever_foreign_pods_report(name: str, tmp_path: Path) -> None:
    rules = rules_of(name)
    ran = at_500(name, rules, tmp_path)
    assert ran.returncode == 0, ran.stdout
    for dropped, changed in without_a_label(rules):
        assert at_500(name, changed, tmp_path).returncode == 1, dropped


def rules_of(name: str) -> list[dict[str, Any]]:
    """Return the groups of an alert and of the recorded series that it reads."""
    return [*recordings(ALERTS[name]["expr"]), {**group_of(name), "rules": [ALERTS[name]]}]


def at_500(name: str, rules: list[dict[str, Any]], folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": rules}))
    order = {"rule_files": ["rules.yaml"], "group_eval_order": [group["name"] for group in rules]}
    test = document(name, ALERTS[name]["labels"]["severity"], ROWS[name])
    (folder / "test.yaml").write_text(json.dumps(order | test))
    return subprocess.run(
        ["promtool", "test", "rules", "test.yaml"], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def without_a_label(rules: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Return these rules with one label of the target dropped from every aggregation."""
    for label in ("namespace", "workload", "pod", "instance"):
        text = json.dumps(rules)
        text = re.sub(r"(without \()(?=[^)]*\))", rf"\1{label}, ", text)
        text = re.sub(rf"(by \([^)]*)\b{label}, |(by \([^)]*), {label}\b", r"\1\2", text)
        if text != json.dumps(rules):
            yield label, json.loads(text)


def judged(name: str, alerts: dict[str, dict[str, Any]], folder: Path) -> set[str]:
    """Return those of these alerts that pass every test of ``name``: one promtool run, each in a folder of its own."""
    (file,) = [file for file in TESTS if f'- name: "{name}: ' in file.read_text()]
    places: dict[str, str] = {}
    for number, (change, alert) in enumerate(alerts.items()):
        place = folder / f"{len(alerts)}-{number}"
        (place / "rules").mkdir(parents=True)
        (place / "tests").mkdir()
        (place / "rules" / "recording.yaml").write_text(yaml.safe_dump({"groups": recordings(alert["expr"])}))
        shutil.copy(file, place / "tests")
        group = {**group_of(name), "rules": [alert]}
        (place / "rules" / "alerts.yaml").write_text(yaml.safe_dump({"groups": [group]}))
        places[str(place / "tests" / file.name)] = change
    ran = subprocess.run(
        ["promtool", "test", "rules", "--run", f"^{name}:", *places], cwd=ROOT, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert "parse error" not in ran.stderr, ran.stderr
    told = {block.split()[0]: "SUCCESS" in block for block in ran.stdout.split("Unit Testing:")[1:]}
    assert set(told) == set(places), ran.stdout
    return {places[path] for path, passed in told.items() if passed}


def recordings(expression: str) -> list[dict[str, Any]]:
    """Return the groups of recorded series that this expression reads: the others cost most of promtool's time."""
    document = yaml.safe_load((MONITORING / "rules" / "recording.yaml").read_text())
    read = RECORDED.findall(expression)
    groups = [
        {**group, "rules": [rule for rule in group["rules"] if rule["record"] in read]} for group in document["groups"]
    ]
    assert not any(RECORDED.search(rule["expr"]) for group in groups for rule in group["rules"])  # none reads another
    return [group for group in groups if group["rules"]]


def group_of(name: str) -> dict[str, Any]:
    document = yaml.safe_load((MONITORING / "rules" / "alerts.yaml").read_text())
    return next(group for group in document["groups"] if any(rule["alert"] == name for rule in group["rules"]))
