from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.cli import main
from sidecar.injector.fields import MalformedError
from sidecar.injector.trial import pod_of
from tests.injector.pods import RENDERED, bare, statically


@pytest.fixture
def injection_file(tmp_path: Path) -> Path:
    (tmp_path / "injection.json").write_bytes(RENDERED)
    return tmp_path / "injection.json"


def attempt(injection_file: Path, document: object, *words: str, name: str = "pod.yaml") -> int:
    file = injection_file.parent / name
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return main(["injector", f"--injection={injection_file}", f"--try={file}", *words])


def deployment(pod: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": pod}}


@pytest.mark.parametrize("make", [dict, deployment], ids=["a pod", "a deployment"])
def test_a_pod_that_would_be_injected(make: Any, injection_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert attempt(injection_file, make(bare())) == 0
    assert capsys.readouterr().out.endswith("pod.yaml: injected\n")


def test_a_trial_can_be_interrupted(injection_file: Path) -> None:
    attempt(injection_file, bare())
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_pod_that_would_be_refused_with_rule_field_and_fix(
    injection_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt(injection_file, bare({**bare()["spec"], "hostNetwork": True})) == 1
    said = capsys.readouterr().err
    assert "  host_namespace (pod): hostNetwork shares the node's namespace\n      fix: leave it out\n" in said


def test_for_machines(injection_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert attempt(injection_file, bare(), "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["allowed"] is True
    assert made["patch"][0]["path"] == "/spec/initContainers"
    assert attempt(injection_file, statically(image="evil:1"), "--json") == 1
    refused = json.loads(capsys.readouterr().out)
    assert refused["allowed"] is False
    (reason,) = refused["reasons"]
    assert reason["rule"] == "foreign_sidecar"
    assert reason["fix"] == reason["cure"] != ""


def test_a_warning_is_told(injection_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = {"name": "agent", "image": "agent:1", "readinessProbe": {"httpGet": {"port": 8080}}}
    assert attempt(injection_file, bare({"containers": [agent]})) == 0
    assert "warning: container agent: readinessProbe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"kind": "Service"}, "kind is none of Pod, Deployment"),
        ([], "is not an object"),
        ("a: [", "is not valid YAML"),
        ("a: 1\na: 2", "appears twice"),
        ({"kind": "Deployment", "spec": []}, "spec is not an object"),
    ],
    ids=["no pod", "a list", "no YAML", "two of one name", "another shape"],
)
def test_what_holds_no_pod_cannot_be_judged(
    document: object, said: str, injection_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt(injection_file, document) == 2
    told = capsys.readouterr().err
    assert told.startswith("sidecar injector: ")
    assert said in told


def test_a_file_that_is_not_there_and_no_certificate_are_told_with_the_fix(
    injection_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["injector", f"--injection={injection_file}", "--try=/nowhere"]) == 2
    assert "/nowhere: cannot be read" in capsys.readouterr().err
    assert main(["injector", f"--injection={injection_file}"]) == 2
    assert "--tls: is missing; name the folder of tls.crt and tls.key" in capsys.readouterr().err


def test_a_cron_job_makes_pods_too() -> None:
    job = {"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": bare()}}}}
    assert pod_of(job)["spec"] == bare()["spec"]
    with pytest.raises(MalformedError):
        pod_of({"kind": "CronJob", "spec": {"jobTemplate": 1}})


def test_the_namespace_whose_sizes_count_is_the_file_s_or_the_option_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"agents": {"cpuLimit": "1"}}
    file = tmp_path / "injection.json"
    file.write_text(json.dumps({**json.loads(RENDERED), "namespaces": sizes}))

    def limits(document: dict[str, Any], *words: str) -> dict[str, str]:
        assert attempt(file, document, "--json", *words) == 0
        limits: dict[str, str] = json.loads(capsys.readouterr().out)["patch"][0]["value"][0]["resources"]["limits"]
        return limits

    named = {**deployment(bare()), "metadata": {"namespace": "agents"}}
    assert limits(named)["cpu"] == limits(named, "--namespace=other")["cpu"] == "1"
    assert limits(deployment(bare()), "--namespace=agents")["cpu"] == "1"
    assert "cpu" not in limits(deployment(bare()))
