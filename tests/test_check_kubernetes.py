"""``sidecar check --kubernetes``: settings as pods of the chart have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from sidecar.cli import main
from sidecar.config import kubernetes
from sidecar.config.kinds import keys_of
from tests.injector.pods import injection

ROOT: Final = Path(__file__).parent.parent
CHART: Final = ROOT / "helm" / "sidecar"
SETTINGS: Final[dict[str, Any]] = yaml.safe_load((CHART / "ci" / "full-values.yaml").read_text())
AGENT: Final[dict[str, Any]] = SETTINGS["workloads"][0]["settings"]
STS: Final[dict[str, Any]] = SETTINGS["sts"]["settings"]


def check(
    folder: Path, document: Any, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[str | None, list[str], list[str]]:
    """Return the kind, the fields with problems, and those with notes; without --kubernetes with ``plain``."""
    path = folder / "file.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    words = ["check", "--json", *(() if "plain" in options else ("--kubernetes",)), str(path)]
    code = main([*words, *(one for one in options if one != "plain")])
    found = json.loads(capsys.readouterr().out)
    problems = [one["field"] for one in found["problems"]]
    assert code == (2 if problems else 0)
    return found["kind"], problems, [one["field"] for one in found["notes"]]


def test_what_the_chart_supplies_is_what_it_renders() -> None:
    env = {one["name"]: one["value"] for one in injection().container["env"] if "value" in one}
    assert {name: kubernetes.SIDECAR[name] for name in env} == env
    assert set(kubernetes.SIDECAR) - set(env) == {"KUBERNETES_SERVICE_HOST"}
    ports = yaml.safe_load((ROOT / "helm" / "sidecar-lib" / "values.yaml").read_text())["ports"]
    assert dict(kubernetes.PORTS) == ports
    values = json.loads((CHART / "values.schema.json").read_text())["properties"]
    assert set(values) - keys_of("sidecar") == kubernetes.VALUES  # a key of both does not tell
    assert not kubernetes.VALUES & (keys_of("sts") | keys_of("platform"))


def test_settings_of_a_pod_need_neither_identity_nor_probe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path, AGENT, capsys) == ("sidecar", [], [])
    assert check(tmp_path, {**AGENT, "probe": {"agent": ["/healthz"]}}, capsys) == ("sidecar", [], [])
    assert "identity.workload_api" in check(tmp_path, AGENT, capsys, "plain")[1]


def test_settings_with_another_port_than_the_pod_s_are_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {**AGENT, "inbound": {**AGENT["inbound"], "listen": "0.0.0.0:8443"}}
    assert check(tmp_path, other, capsys)[1] == ["inbound.listen"]
    values = {"workloads": [{"name": "a", "namespace": "b", "settings": other}]}
    assert check(tmp_path, values, capsys)[1] == ["workloads[0].settings.inbound.listen"]
    assert check(tmp_path, {**values, "sidecar": {"ports": {"inbound": 8443}}}, capsys) == ("values", [], [])


# a key that the chart sets in the settings of the token service → its place
SUPPLIED: Final[dict[str, dict[str, Any]]] = {
    "listen": {"listen": "0.0.0.0:7444"},
    "probe": {"probe": {"listen": "0.0.0.0:7090"}},
    "identity": {"identity": {"workload_api": "unix:///x"}},
    "keys.directory": {"keys": {"directory": "/keys"}},
    "revocation.file": {"revocation": {"file": "/x", "operators": []}},
    "revocation.replicas": {"revocation": {"replicas": ["https://x:1"], "operators": []}},
    "revocation.events.listen": {"revocation": {"events": {"listen": "0.0.0.0:1", "audiences": ["https://x"]}}},
}


def test_settings_of_the_token_service_need_nothing_that_the_chart_sets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    operators = {"operators": [{"spiffe_id": "spiffe://acme.example/ann", "may": ["txn"]}]}
    for settings in (STS, {**STS, "keys": {"max_age_s": 60}}, {**STS, "revocation": operators}):
        assert check(tmp_path, settings, capsys) == ("sts", [], [])
        assert check(tmp_path, {"sts": {"settings": settings}}, capsys) == ("values", [], [])
    assert "keys" in check(tmp_path, STS, capsys, "plain")[1]


@pytest.mark.parametrize("place", SUPPLIED)
def test_a_key_that_the_chart_sets_is_left_out(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert place in check(tmp_path, {**STS, **SUPPLIED[place]}, capsys, "--kind", "sts")[1]
    values = {"sts": {"settings": {**STS, **SUPPLIED[place]}}}
    assert f"sts.settings.{place}" in check(tmp_path, values, capsys)[1]


def test_every_file_of_the_values_is_checked_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {"nonsense": 1}
    values = {
        "workloads": [SETTINGS["workloads"][0], {"name": "b", "namespace": "c", "settings": {**AGENT, **wrong}}],
        "platforms": [{"name": "d", "namespace": "c", "settings": wrong}],
        "sts": {"settings": {**STS, **wrong}},
    }
    assert sorted(check(tmp_path, values, capsys)[1]) == [
        "platforms[0].settings.nonsense",
        "sts.settings.nonsense",
        "workloads[1].settings.nonsense",
    ]


def test_a_workload_below_a_ceiling_of_the_values_is_checked_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ceiling = {"name": "ceiling", "namespace": "agents", "settings": {"allow_self": False}}
    values = {"sidecar": {"platform": "ceiling"}, "platforms": [ceiling], "workloads": SETTINGS["workloads"]}
    assert "workloads[0].settings.issuers[0].issuer" in check(tmp_path, values, capsys)[1]
    elsewhere = {**values, "platforms": [{**ceiling, "namespace": "other"}]}
    assert check(tmp_path, elsewhere, capsys) == ("values", [], [])
    assert check(tmp_path, elsewhere, capsys, "--platform", "x.yaml")[1] == ["--platform"]


def test_values_may_have_anchors_as_helm_reads_them_and_a_variable_for_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"workloads: [{{name: a, namespace: b, settings: &one {json.dumps(AGENT)}}},"
    text += " {name: c, namespace: b, settings: *one}]\n"
    assert check(tmp_path, text, capsys)[:2] == ("values", [])
    bad = "sidecar: {extraEnv: [{name: SIDECAR__DRAIN_S, value: soon}]}\n"
    assert check(tmp_path, text + bad, capsys)[1] == [
        f"workloads[{at}].settings.drain_s (SIDECAR__DRAIN_S)" for at in (0, 1)
    ]
    observing = {**AGENT["inbound"]["routes"][0], "observe_until": "DAY"}
    observed = json.dumps({**AGENT, "inbound": {**AGENT["inbound"], "routes": [observing]}})
    day = f"workloads: [{{name: a, namespace: b, settings: {observed}}}]\n".replace('"DAY"', "2020-01-01")
    assert "workloads[0].settings.inbound.routes[0].observe_until" in check(tmp_path, day, capsys)[2]


@pytest.mark.parametrize("document", ["workloads: 1\n", "sts: []\n", "platforms: [1]\n", "sidecar: {ports: 1}\n"])
def test_values_of_another_shape_are_a_problem(
    document: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(check(tmp_path, document, capsys)[1]) == 1


MATRIX: Final = [one for one in sorted((CHART / "ci").glob("*.yaml")) if yaml.safe_load(one.read_text())]


@pytest.mark.parametrize("path", [*MATRIX, ROOT / "helm" / "example" / "values.yaml"], ids=lambda path: path.stem)
def test_the_values_of_the_matrix_and_of_the_example_have_no_problem(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--kubernetes", str(path)]) == 0, capsys.readouterr().err
