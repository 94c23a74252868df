"""The alerts with the real promtool: each fires and stays quiet as it should, and every change of one is detected."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.interop.alert_mutants import mutants
from tests.interop.engine import ROOT, output
from tests.test_monitoring import ALERTS, MONITORING

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600), pytest.mark.usefixtures("promtool")]

RULES: Final = sorted(map(str, (MONITORING / "rules").glob("*.yaml")))
TESTS: Final = sorted((MONITORING / "tests").glob("*.yaml"))
RECORDED: Final = re.compile(r"[a-z_]+:\w+(?::\w+)?")  # level:metric:operations


def test_the_rules_are_clean() -> None:
    output(["promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES])


def test_the_configuration_is_one() -> None:
    output(["promtool", "check", "config", "--syntax-only", str(MONITORING / "prometheus.yaml")])


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
