"""The example on a real kubelet while it changes: under constant load, no lawful call is lost."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterable
from typing import Final

import pytest
import yaml

from tests.interop.cluster_identities import processes_of
from tests.interop.cluster_mesh import (
    AGENTS,
    PODS,
    SYSTEM,
    ClusterMesh,
    by_digest,
    commands_of,
    image_values,
    restricted,
    run,
)
from tests.interop.engine import IMAGE, ROOT
from tests.interop.kube import IDLE, Object, apply, kubectl, try_pod, wait_for

pytestmark = [pytest.mark.interop, pytest.mark.timeout(400)]

NEXT: Final = os.environ.get("SIDECAR_IMAGE_NEXT", IMAGE)  # the image of the upgrade


@pytest.fixture
def mesh(mesh_on_cluster: ClusterMesh) -> ClusterMesh:
    return mesh_on_cluster


def lost(told: list[Object]) -> list[str]:
    """Return calls without the answer, a line for each."""
    return [
        f"{one['at']:.1f} {one['status']} {one['body'].get('reason') or one['body']}"
        for one in told
        if one["status"] != 200 or one["body"] != {"draft": "Globex renews on 2027-01-31."}
    ]


def pod(*command: str, image: str = IMAGE) -> Object:
    container = {"name": "agent", "image": image, "command": [*command] or IDLE, "securityContext": restricted()}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "planner-",
            "annotations": {"delegation-sidecar.io/settings": "planner"},
            "labels": {"app": "another"},
        },
        "spec": {"serviceAccountName": "planner", "automountServiceAccountToken": False, "containers": [container]},
    }


# --- the injector


def test_without_an_injector_no_pod_is_made_and_those_that_run_serve_on(mesh: ClusterMesh) -> None:
    run(f"kubectl -n {SYSTEM} scale deployment/mesh-injector --replicas=0")
    try:
        refused = wait_for(lambda: try_pod(pod(), AGENTS), lambda found: found[0] is None)
        assert "failed calling webhook" in refused[1]
        assert mesh.ask()["status"] == 200
    finally:
        run(f"kubectl -n {SYSTEM} scale deployment/mesh-injector --replicas=2")
    run(f"kubectl -n {SYSTEM} rollout status deployment/mesh-injector --timeout=90s")
    made, said = wait_for(lambda: try_pod(pod(), AGENTS), lambda found: found[0] is not None)
    assert made is not None, said
    assert [one["name"] for one in made["spec"]["initContainers"]] == ["sidecar"]


def test_without_the_webhook_s_configuration_the_policy_refuses(mesh: ClusterMesh) -> None:
    run("kubectl delete mutatingwebhookconfiguration injector.delegation-sidecar.io")
    try:
        _, said = wait_for(lambda: try_pod(pod(), AGENTS), lambda found: "sidecar policy: " in found[1])
        assert "rule no_sidecar (layer pod)" in said
        assert mesh.ask()["status"] == 200
    finally:
        mesh.upgrade()
    made, said = wait_for(lambda: try_pod(pod(), AGENTS), lambda found: found[0] is not None)
    assert made is not None, said


# --- under load


def test_new_settings_are_taken_over_and_no_call_is_lost(mesh: ClusterMesh) -> None:
    values = yaml.safe_load((ROOT / "helm" / "example" / "values.yaml").read_text())
    (planner,) = (one for one in values["workloads"] if one["name"] == "planner")
    planner["settings"]["inbound"]["routes"].append(
        {"name": "more", "match": {"path": "/more", "methods": ["POST"]}, "scopes": ["plan.make"], "peers": []}
    )
    (mesh.folder / "changed.yaml").write_text(yaml.safe_dump({"workloads": values["workloads"]}))
    with mesh.load() as told:
        mesh.upgrade("-f", "changed.yaml")
        # a kubelet then syncs at once
        run(f"kubectl -n {AGENTS} annotate pod -l app=planner looked-at=now --overwrite")
        wait_for(lambda: [one["event"] for one in mesh.records("planner")], lambda events: "config.reloaded" in events)
    assert "config.reloaded" in [one["event"] for one in mesh.records("planner")]
    assert lost(told) == []


def test_the_token_service_s_keys_are_rotated_as_the_page_says_and_no_call_is_lost(mesh: ClusterMesh) -> None:
    def keys() -> list[str]:
        return sorted(json.loads(run(f"kubectl -n {SYSTEM} get secret sts-keys -o json"))["data"])

    def reloaded() -> int:
        return sum(one["event"] == "config.reloaded" for one in mesh.records("sts"))

    before = keys()
    with mesh.load() as told:
        mesh.run("\n".join(commands_of("The token service's keys")[0]))
        selected = f"-n {SYSTEM} -l app.kubernetes.io/component=sts"
        run(f"kubectl annotate pod {selected} looked-at=now --overwrite")  # a kubelet then syncs at once
        assert wait_for(reloaded, lambda count: count >= 2) >= 2  # both replicas
    assert (len(keys()), set(before) < set(keys())) == (len(before) + 1, True)
    assert lost(told) == []


def test_an_upgrade_of_everything_loses_no_call_and_neither_does_its_rollback(mesh: ClusterMesh) -> None:
    """Identities are bound to the image: both images have one before the first new pod is created."""
    coming = by_digest(NEXT)
    mesh.upgrade("--set", f"'spiffeIDs.images={{{mesh.image},{coming}}}'")
    before = [pod["metadata"]["name"] for name in PODS for pod in mesh.pods(name)]
    with mesh.load() as told:
        image = f"{image_values(coming)},spiffeIDs.images={{{mesh.image},{coming}}}"
        mesh.upgrade("--set", f"'{image},sidecar.resources.requests.memory=97Mi'")
        mesh.restart_agents()
    assert lost(told) == []
    for name in PODS:
        (found,) = mesh.pods(name)
        assert found["metadata"]["name"] not in before
        (sidecar,) = found["spec"]["initContainers"]
        assert (sidecar["image"], sidecar["resources"]["requests"]["memory"]) == (coming, "97Mi")
    with mesh.load() as told:
        mesh.run(f"helm rollback mesh -n {SYSTEM} --wait --timeout 120s")
    assert lost(told) == []


# --- one pod


def test_a_pod_that_is_deleted_answers_what_it_has_begun_and_its_sidecar_ends_last(mesh: ClusterMesh) -> None:
    """The writer takes five seconds for its answer; meanwhile its pod is deleted."""
    (old,) = mesh.pods("writer")
    name, address = old["metadata"]["name"], old["status"]["podIP"]
    answers: list[Object] = []
    words = ("kubectl", "get", "pod", name, "-n", AGENTS, "--watch", "--output-watch-events", "-o", "json")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as watching:
        asking = threading.Thread(target=lambda: answers.append(mesh.ask(think_s="5")))
        asking.start()
        metrics = f"http://{address}:7090/metrics"
        wait_for(lambda: mesh.get(metrics)["body"], lambda page: "\nsidecar_requests_in_flight 1" in page)
        run(f"kubectl -n {AGENTS} delete pod {name} --timeout=60s")
        asking.join()
        assert watching.stdout is not None
        gone = _at_its_end(watching.stdout)
        watching.terminate()
    assert lost(answers) == []
    ended = {state["name"]: state["state"]["terminated"] for state in _states(gone)}
    assert {name: one["exitCode"] for name, one in ended.items()} == {"agent": 0, "sidecar": 0}
    assert ended["agent"]["finishedAt"] <= ended["sidecar"]["finishedAt"]
    mesh.wait()


def test_of_two_pods_one_may_go_and_no_call_is_lost(mesh: ClusterMesh) -> None:
    """The older one, with all the connections, is deleted; none replaces it."""
    (older,) = (one["metadata"]["name"] for one in mesh.pods("writer"))
    run(f"kubectl -n {AGENTS} annotate pod {older} controller.kubernetes.io/pod-deletion-cost=-1")
    run(f"kubectl -n {AGENTS} scale deployment/writer --replicas=2")
    mesh.wait()
    with mesh.load() as told:
        run(f"kubectl -n {AGENTS} scale deployment/writer --replicas=1")
        run(f"kubectl -n {AGENTS} wait --for=delete pod/{older} --timeout=60s")
    assert [one["metadata"]["name"] for one in mesh.pods("writer")] != [older]
    assert lost(told) == []


def _at_its_end(events: Iterable[str]) -> Object:
    """Return the last state of a watched pod."""
    for line in events:
        event: Object = json.loads(line)
        if event["type"] == "DELETED":
            return dict(event["object"])
    raise AssertionError("the watch ended before the pod")


def _states(found: Object) -> list[Object]:
    return [*found["status"]["initContainerStatuses"], *found["status"]["containerStatuses"]]


def test_a_sidecar_that_crashes_comes_back_in_place_and_its_agent_runs_on(mesh: ClusterMesh) -> None:
    if mesh.identities is None:
        pytest.skip("the tests are not on the node")
    (before,) = mesh.pods("planner")
    for pid in processes_of(before["metadata"]["uid"], "sidecar"):
        os.kill(pid, 9)

    def restarts() -> dict[str, tuple[int, bool]]:
        (found,) = mesh.pods("planner")
        assert found["metadata"]["uid"] == before["metadata"]["uid"]
        return {one["name"]: (one["restartCount"], one["ready"]) for one in _states(found)}

    wanted = {"sidecar": (1, True), "agent": (0, True)}
    assert wait_for(restarts, lambda found: found == wanted) == wanted
    answer = wait_for(mesh.ask, lambda found: found["status"] == 200)
    assert lost([answer]) == []


def test_a_job_with_a_sidecar_completes(mesh: ClusterMesh) -> None:
    calls = "import socket; socket.create_connection(('127.0.0.1', 7080), 5)"
    made = pod("python3", "-Ic", calls, image=mesh.tools)
    metadata = {"annotations": made["metadata"]["annotations"], "labels": {"app": "job"}}
    template = {"metadata": metadata, "spec": {**made["spec"], "restartPolicy": "Never"}}
    job = {"metadata": {"name": "once", "namespace": AGENTS}, "spec": {"template": template, "backoffLimit": 0}}
    apply({"apiVersion": "batch/v1", "kind": "Job", **job})
    run(f"kubectl -n {AGENTS} wait --for=condition=Complete --timeout=90s job/once")
    (found,) = mesh.pods("job")
    assert {one["name"]: one["state"]["terminated"]["exitCode"] for one in _states(found)} == {"agent": 0, "sidecar": 0}


def test_an_identity_that_is_withdrawn_ends_its_calls_and_gives_them_back(mesh: ClusterMesh) -> None:
    if mesh.identities is None:
        pytest.skip("identities are the cluster's own")
    planner = f"spiffe://acme.example/ns/{AGENTS}/sa/planner"
    mesh.identities.withdraw(planner)
    try:
        refused = wait_for(mesh.ask, lambda found: found["status"] != 200)
        assert refused["status"] in (502, 503)
    finally:
        mesh.identities.give_back(planner)
    answer = wait_for(mesh.ask, lambda found: found["status"] == 200)
    assert lost([answer]) == []


# --- the end


def test_the_chart_s_own_tests_pass(mesh: ClusterMesh) -> None:
    assert "Succeeded" in mesh.run(f"helm test mesh -n {SYSTEM} --timeout 90s")


def test_an_uninstall_leaves_nothing(mesh: ClusterMesh) -> None:
    mesh.run(f"helm uninstall mesh -n {SYSTEM} --wait --timeout 120s")
    kinds = run("kubectl api-resources --verbs=list --output=name").split()
    every = ",".join(kind for kind in kinds if not kind.startswith("events"))

    def left() -> str:
        found = kubectl("get", every, "--all-namespaces", "--selector=app.kubernetes.io/instance=mesh", "--output=name")
        return found.stdout

    assert wait_for(left, lambda names: not names) == ""
    secrets = json.loads(kubectl("get", "secrets", "-n", SYSTEM, "-o", "json").stdout)["items"]
    assert sorted(one["metadata"]["name"] for one in secrets) in (["injector-tls", "sts-keys"], ["sts-keys"])
