"""The example of docs/kubernetes.md on a real kubelet, from its five commands to an uninstall that leaves nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.integration.refusals import REFUSALS
from tests.interop.chains import Hops, whole_chains
from tests.interop.cluster_attackers import WHERE, Attackers, fetched, served
from tests.interop.cluster_mesh import AGENTS, OTHERS, PODS, ClusterMesh, restricted, run, what_to_try
from tests.interop.engine import IMAGE, ROOT
from tests.interop.helm import restricted_problems
from tests.interop.kube import IDLE, Object, apply, kubectl, wait_for

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]


@pytest.fixture
def mesh(mesh_on_cluster: ClusterMesh) -> ClusterMesh:
    return mesh_on_cluster


# --- the five commands


def test_every_agent_of_a_restricted_namespace_has_a_sidecar_that_nobody_wrote_into_it(mesh: ClusterMesh) -> None:
    namespace = json.loads(kubectl("get", "namespace", AGENTS, "-o", "json").stdout)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name in PODS:
        deployed = json.loads(kubectl("get", "deployment", name, "-n", AGENTS, "-o", "json").stdout)
        assert [one["name"] for one in deployed["spec"]["template"]["spec"]["containers"]] == ["agent"]
        (pod,) = mesh.pods(name)
        assert [one["name"] for one in pod["spec"]["initContainers"]] == ["sidecar"], name
        assert restricted_problems(pod["spec"]) == []
        states = [*pod["status"]["initContainerStatuses"], *pod["status"]["containerStatuses"]]
        assert {one["name"]: (one["ready"], one["restartCount"]) for one in states} == {
            "sidecar": (True, 0),
            "agent": (True, 0),
        }


def test_the_agent_starts_when_its_sidecar_serves_and_not_before(mesh: ClusterMesh) -> None:
    for name in PODS:
        (pod,) = mesh.pods(name)
        (serves_at,) = (one["ts"] for one in mesh.records(name) if one["event"] == "started")
        (agent,) = pod["status"]["containerStatuses"]
        assert agent["state"]["running"]["startedAt"] >= f"{serves_at[:19]}Z", name


def test_the_three_hops_from_pod_to_pod_give_alice_her_answer(mesh: ClusterMesh) -> None:
    answer = mesh.ask()
    assert (answer["status"], answer["body"]) == (200, {"draft": "Globex renews on 2027-01-31."})
    refused = mesh.ask(customer="66")["body"]
    assert (refused["got_status"], refused["got"]["reason"]) == (403, "call_not_allowed")


def test_the_page_prints_what_its_commands_print(mesh: ClusterMesh) -> None:
    """In one shell, as a reader has it: commands use variables of earlier ones."""
    lines = ["set +e; exec 2>&1; trap 'kill %1 %2' EXIT"]
    for command, _ in what_to_try():
        lines.append(command)
        if "port-forward" in command:
            lines.append("until curl -sk https://127.0.0.1:7300 && curl -s http://127.0.0.1:8080; do sleep 0.2; done")
        lines.append("echo; echo ===")
    *answers, _ = mesh.run("\n".join(lines)).split("===\n")
    for (command, parts), answer in zip(what_to_try(), answers, strict=True):
        assert [part for part in parts if part.strip() not in answer] == [], (command, answer)
    assert sum(bool(parts) for _, parts in what_to_try()) == 3


def test_the_chain_is_rebuilt_from_the_records_of_every_pod(mesh: ClusterMesh, tmp_path: Path) -> None:
    assert mesh.ask()["status"] == 200

    def audited() -> list[Hops]:
        return whole_chains({name: mesh.records(name) for name in (*PODS, "sts")}, tmp_path)

    whole = wait_for(audited, bool)
    assert whole
    assert [hop["audience"].rpartition("/")[2] for hop in whole[0]] == ["planner", "writer", "crm"]


def test_every_record_of_a_start_says_where_it_runs(mesh: ClusterMesh) -> None:
    for name in PODS:
        (pod,) = mesh.pods(name)
        (started,) = (one["detail"] for one in mesh.records(name) if one["event"] == "started")
        assert started.startswith(("engine=native ", "engine=python "))
        assert started.partition(" ")[2] == (
            f"pod={pod['metadata']['name']} namespace={AGENTS} service_account={name} node={pod['spec']['nodeName']}"
        )


def test_metrics_are_read_at_the_probe_port(mesh: ClusterMesh) -> None:
    for name in PODS:
        (pod,) = mesh.pods(name)
        metrics = mesh.get(f"http://{pod['status']['podIP']}:7090/metrics")
        assert metrics["status"] == 200
        counted = [line for line in metrics["body"].splitlines() if line.startswith("sidecar_requests_total{")]
        assert any('decision="permit"' in line or 'decision="allow"' in line for line in counted), counted
        assert "alice" not in metrics["body"]


# --- identities


def _stranger(name: str, namespace: str, account: str, image: str) -> list[Object]:
    """Return a pod with a sidecar and the settings of the writer."""
    metadata = {"name": name, "namespace": namespace}
    agent = {"name": "agent", "image": image, "command": IDLE, "securityContext": restricted()}
    labels = {"app": name}
    annotations = {"delegation-sidecar.io/settings": "writer"}
    spec = {"serviceAccountName": account, "automountServiceAccountToken": False, "containers": [agent]}
    template = {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}
    deployment = {"selector": {"matchLabels": labels}, "template": template}
    return [{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": deployment}]


def test_whoever_is_called_like_the_writer_elsewhere_or_runs_another_image_is_nobody(mesh: ClusterMesh) -> None:
    labels = {"delegation-sidecar.io/inject": "enabled", "pod-security.kubernetes.io/enforce": "restricted"}
    values = yaml.safe_load((ROOT / "helm" / "example" / "values.yaml").read_text())
    (settings,) = (one["settings"] for one in values["workloads"] if one["name"] == "writer")
    meta = {"name": "writer", "namespace": OTHERS}
    apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OTHERS, "labels": labels}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"sidecar.yaml": yaml.safe_dump(settings)}},
        *_stranger("elsewhere", OTHERS, "writer", mesh.tools),
        *_stranger("otherwise", AGENTS, "writer", IMAGE),
        *_stranger("twin", AGENTS, "writer", mesh.tools),
    )
    run(f"kubectl -n {AGENTS} rollout status deployment/twin --timeout=90s")
    for name, namespace, known in (("elsewhere", OTHERS, 1), ("otherwise", AGENTS, 1), ("twin", AGENTS, 0)):

        def states(name: str = name, namespace: str = namespace) -> list[Object]:
            found = json.loads(kubectl("get", "pods", "-n", namespace, "-l", f"app={name}", "-o", "json").stdout)
            return [one for pod in found["items"] for one in pod["status"].get("initContainerStatuses", ())]

        wait_for(states, lambda found: found and "running" in found[0]["state"])
        told = fetched(namespace, f"deploy/{name}")
        assert told.returncode == known, (name, told.stdout, told.stderr)
        assert all(state["ready"] is (known == 0) for state in states()), name
    run(f"kubectl -n {AGENTS} delete deployment otherwise twin --timeout=90s")
    run(f"kubectl delete namespace {OTHERS} --wait=false")


# --- a pod that asks for keys and for the workload handle


HANDLE: Final = """
import http.client, json, os, socket
def call(**headers):
    connection = http.client.HTTPConnection("127.0.0.1", 7080)
    connection.request("GET", "/status", headers=headers)
    return json.loads(connection.getresponse().read())["reason"]
with socket.socket(socket.AF_UNIX) as own:
    own.connect("/run/sidecar-handle/handle.sock")
    said = json.loads(own.makefile().read())
shown = {"Delegation-Handle": said["handle"]}
print(json.dumps([said["expires_in"] > 0, call(**shown), call(), os.path.exists("/var/run/keys")]))
"""
KEY_OF_SIDECAR: Final = """
import time
from delegation_core.errors import Unavailable
from sidecar.features.outside.static_keys import StaticKeys
keys = StaticKeys()
for _ in range(100):  # a thread reads the file
    try:
        print(keys.of("/var/run/keys/openai").value.decode())
        break
    except Unavailable:
        time.sleep(0.1)
"""


def test_a_pod_that_asks_gets_its_keys_in_the_sidecar_and_the_handle_in_its_agent(mesh: ClusterMesh) -> None:
    values = yaml.safe_load((ROOT / "helm" / "example" / "values.yaml").read_text())
    (settings,) = (one["settings"] for one in values["workloads"] if one["name"] == "writer")
    planner = "spiffe://acme.example/ns/agents/sa/planner"
    own = {"name": "status", "match": {"prefix": "/status"}, "upstream": "https://planner:7443", "token": "self"}
    settings["outbound"]["routes"].append({**own, "peer": planner, "audience": planner, "scopes": ["plan.make"]})
    socket = "/run/sidecar-handle/handle.sock"
    settings["workload_handle"] = {"may_call": ["status"], "socket": socket, "agent_uids": [1000]}
    meta = {"name": "acting", "namespace": AGENTS}
    (deployment,) = _stranger("acting", AGENTS, "writer", mesh.tools)
    template = deployment["spec"]["template"]
    template["metadata"]["annotations"] = {
        "delegation-sidecar.io/settings": "acting",
        "delegation-sidecar.io/keys": "acting",
        "delegation-sidecar.io/workload-handle": "agent",
    }
    template["spec"]["securityContext"] = {"fsGroup": 2747}
    plain = yaml.safe_dump(json.loads(json.dumps(settings)), default_flow_style=False)
    apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"sidecar.yaml": plain}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"openai": "sk-of-the-sidecar"}},
        deployment,
    )
    try:
        run(f"kubectl -n {AGENTS} rollout status deployment/acting --timeout=90s")
        agent = kubectl("exec", "-n", AGENTS, "deploy/acting", "-c", "agent", "--", "python3", "-Ic", HANDLE)
        assert agent.returncode == 0, agent.stderr
        # the token service has no self rule for the writer, so the handle opens the route and no more
        assert json.loads(agent.stdout) == [True, "exchange_denied", "no_request_context", False]
        words = ("exec", "-n", AGENTS, "deploy/acting", "-c", "sidecar", "--", "python3", "-c", KEY_OF_SIDECAR)
        sidecar = kubectl(*words)
        assert (sidecar.stdout.strip(), sidecar.returncode) == ("sk-of-the-sidecar", 0), sidecar.stderr
    finally:
        run(f"kubectl -n {AGENTS} delete deployment,configmap,secret acting --timeout=90s")


# --- attackers in pods


@pytest.fixture(scope="module")
def attackers(mesh_on_cluster: ClusterMesh) -> Iterator[Attackers]:
    attackers = Attackers(mesh_on_cluster)
    yield attackers
    attackers.leave()


@pytest.mark.parametrize("attacker", WHERE)
def test_an_attack_from_a_pod_fails_and_no_agent_hears_of_it(attackers: Attackers, attacker: str) -> None:
    before = served()
    tried = attackers.try_all(attacker)
    assert [(one["title"], one["said"]) for one in tried if not one["held"]] == []
    lawful = Counter(name for one in tried for name in one["reached"])
    assert served() - before == lawful
    assert lawful
    assert any("refusal" in one for one in tried)


# Where the example lacks a route of the demo's: the same attack on one that it has
OTHERWISE: Final = {"the export, with a token for reading": "a plan with crm.read"}


def test_every_attack_of_the_demo_is_made_from_a_pod_and_told_the_same(attackers: Attackers) -> None:
    tried = [one for name in WHERE for one in attackers.tried.get(name) or attackers.try_all(name)]
    told = {one["title"]: tuple(one["refusal"]) for one in tried if "refusal" in one}
    assert {title: told.get(OTHERWISE.get(title, title)) for title in REFUSALS} == REFUSALS
