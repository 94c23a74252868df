"""Injector, policy and Pod Security in a real API server: nothing is started, every pod is asked about."""

from __future__ import annotations

import copy
import json
import secrets
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.interop import helm, kube
from tests.interop.engine import require
from tests.interop.helm import MATRIX, Rendered, pods, render, restricted_problems
from tests.interop.kube import LocalInjector, Object, apply, kubectl, try_pod, wait_for

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

_RUN: Final = secrets.token_hex(3)  # an earlier run's namespaces may still be ending
AGENTS: Final = f"sidecar-test-agents-{_RUN}"
LAX: Final = f"sidecar-test-lax-{_RUN}"  # asks for sidecars, and for nothing of Pod Security
PLAIN: Final = f"sidecar-test-plain-{_RUN}"


def namespace(name: str, **labels: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod(spec: dict[str, Any] | None = None, agent: dict[str, Any] | None = None, marker: str | None = None) -> Object:
    """An agent that passes *restricted* and mentions no sidecar; ``spec`` and ``agent`` change members."""
    context = {
        "runAsUser": 1000,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "agent", "image": "agent:1", "securityContext": context, **(agent or {})}
    annotations = {"delegation-sidecar.io/settings": "planner"}
    if marker is not None:
        annotations["delegation-sidecar.io/status"] = marker
    metadata = {"generateName": "planner-", "annotations": annotations}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container], **(spec or {})},
    }


class Cluster:
    """The chart's webhook, pointed at a process of ours, and its policy."""

    def __init__(self, folder: Path) -> None:
        values = {
            "injector": {"tls": {"certManager": {"enabled": False}, "secretName": "tls", "caBundle": "x"}},
            "sidecar": {"image": {"repository": "sidecar", "tag": "dev"}},
        }
        self.rendered: Rendered = render(values)
        self.injection = self.rendered.one("ConfigMap", "injector")["data"]["injection.json"]
        self.injector = LocalInjector(folder, self.injection)
        self.webhook = copy.deepcopy(self.rendered.one("MutatingWebhookConfiguration"))
        self.webhook["webhooks"][0]["clientConfig"] = {
            "url": self.injector.url,
            "caBundle": b64encode(self.injector.ca.encode()).decode(),
        }
        self.policy = [
            *self.rendered.of("ValidatingAdmissionPolicy"),
            *self.rendered.of("ValidatingAdmissionPolicyBinding"),
        ]

    def up(self) -> None:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        inject = {"delegation-sidecar.io/inject": "enabled"}
        apply(namespace(AGENTS, **labels, **inject), namespace(PLAIN, **labels), namespace(LAX, **inject))
        for name in (AGENTS, PLAIN, LAX):
            apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}})
        self.injector.start()
        apply(*self.policy)
        self.with_webhook()
        wait_for(lambda: try_pod(pod(), AGENTS)[0], lambda found: found and found["spec"].get("initContainers"))

    def with_webhook(self) -> None:
        apply(self.webhook)

    def without_webhook(self) -> None:
        kubectl("delete", "mutatingwebhookconfiguration", self.webhook["metadata"]["name"], "--ignore-not-found")
        wait_for(lambda: try_pod(pod(), AGENTS)[1], lambda said: "sidecar policy: " in said)

    def down(self) -> None:
        kubectl("delete", "mutatingwebhookconfiguration", self.webhook["metadata"]["name"], "--ignore-not-found")
        for one in reversed(self.policy):
            kubectl("delete", one["kind"], one["metadata"]["name"], "--ignore-not-found")
        kubectl("delete", "namespace", AGENTS, PLAIN, LAX, "--ignore-not-found", "--wait=false")
        self.injector.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require(helm.missing() or kube.missing())
    cluster = Cluster(tmp_path_factory.mktemp("injector"))
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


# --- with the webhook


def test_a_plain_agent_gets_a_native_sidecar_in_a_restricted_namespace(cluster: Cluster) -> None:
    made, said = try_pod(pod({"automountServiceAccountToken": False}), AGENTS)
    assert made is not None, said
    own = json.loads(cluster.injection)["container"]
    first = made["spec"]["initContainers"][0]
    assert {key: first[key] for key in own} == own  # Kubernetes writes nothing of ours otherwise
    assert set(first) - set(own) == set()  # and there is nothing that it fills in
    assert restricted_problems({"containers": [], "initContainers": [first], "volumes": made["spec"]["volumes"]}) == []
    asked = [record["op"] for record in cluster.injector.records() if record["event"] == "pod.injected"]
    assert set(asked) <= {"injected", "unchanged"}


def test_elsewhere_nobody_is_asked(cluster: Cluster) -> None:
    made, said = try_pod(pod(), PLAIN)
    assert made is not None, said
    assert "initContainers" not in made["spec"]


def test_a_pod_with_a_token_of_kubernetes_is_the_same_at_the_second_look(cluster: Cluster) -> None:
    """The API server puts its token into our container, too, between the two calls."""
    made, said = try_pod(pod({"automountServiceAccountToken": True}), AGENTS)
    assert made is not None, said
    mounted = {mount["name"] for mount in made["spec"]["initContainers"][0]["volumeMounts"]}
    assert any(name.startswith("kube-api-access-") for name in mounted)


SIDECAR_NAMED: Final = {"name": "sidecar", "image": "evil:1"}
RESTRICTED: Final = pod()["spec"]["containers"][0]["securityContext"]

# Each hostile pod, and the rule that refuses it; Pod Security alone would refuse some of them
HOSTILE: dict[str, tuple[Object, str]] = {
    "the node's network": (pod({"hostNetwork": True}), "host_namespace"),
    "one process namespace": (pod({"shareProcessNamespace": True}), "shared_process_namespace"),
    "our user": (pod(agent={"securityContext": {**RESTRICTED, "runAsUser": 2747}}), "sidecar_uid"),
    "our user, of the pod": (
        pod(
            {"securityContext": {"runAsUser": 2747}},
            {"securityContext": {key: value for key, value in RESTRICTED.items() if key != "runAsUser"}},
        ),
        "sidecar_uid",
    ),
    "privileged": (pod(agent={"securityContext": {"privileged": True}}), "privileged"),
    "a capability": (pod(agent={"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}), "privileged"),
    "the Workload API": (
        pod(
            {"volumes": [{"name": "own", "csi": {"driver": "csi.spiffe.io", "readOnly": True}}]},
            {"volumeMounts": [{"name": "own", "mountPath": "/x"}]},
        ),
        "sidecar_volume",
    ),
    "our volume": (
        pod(agent={"volumeMounts": [{"name": "sidecar-workload-api", "mountPath": "/x"}]}),
        "sidecar_volume",
    ),
    "a path of the node": (pod({"volumes": [{"name": "run", "hostPath": {"path": "/run"}}]}), "sidecar_volume"),
    "a sidecar of its own": (
        pod({"initContainers": [{**SIDECAR_NAMED, "restartPolicy": "Always", "securityContext": RESTRICTED}]}),
        "foreign_sidecar",
    ),
}


@pytest.mark.parametrize(("hostile", "rule"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_pod_is_refused_by_the_webhook_with_its_rule(cluster: Cluster, hostile: Object, rule: str) -> None:
    made, said = try_pod(hostile, AGENTS)
    assert made is None
    assert "sidecar injector: " in said or "is invalid" in said, said
    assert f"rule {rule} (layer " in said or "is invalid" in said, said


def test_a_marker_that_is_faked_buys_nothing(cluster: Cluster) -> None:
    made, said = try_pod(pod(marker="injected"), AGENTS)
    assert made is not None, said
    assert made["spec"]["initContainers"][0]["name"] == "sidecar"


def test_root_is_refused_by_pod_security_after_the_injection(cluster: Cluster) -> None:
    made, said = try_pod(pod(agent={"securityContext": {**RESTRICTED, "runAsUser": 0, "runAsNonRoot": False}}), AGENTS)
    assert made is None
    assert 'violates PodSecurity "restricted' in said


def test_a_webhook_that_is_down_means_no_pod_there_and_pods_elsewhere(cluster: Cluster) -> None:
    cluster.injector.stop()
    try:
        made, said = try_pod(pod(), AGENTS)
        assert made is None
        assert "failed calling webhook" in said
        assert try_pod(pod(), PLAIN)[0] is not None
    finally:
        cluster.injector.start()
    assert try_pod(pod(), AGENTS)[0] is not None


# --- everything that the chart makes

FOREIGN: Final = ("cert-manager.io", "spire.spiffe.io", "monitoring.coreos.com")
EVERY = pytest.mark.parametrize("values", MATRIX, ids=lambda path: path.stem)


@EVERY
def test_the_api_server_takes_every_object_strictly(cluster: Cluster, values: Path) -> None:
    for one in render(values).objects:
        if one["apiVersion"].split("/")[0] in FOREIGN or one["kind"] == "Pod":
            continue
        if "namespace" in one["metadata"]:
            one["metadata"]["namespace"] = PLAIN
        done = kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", document=one)
        assert (done.returncode, "arning" in done.stderr) == (0, False), (one["kind"], done.stderr)


@EVERY
def test_pod_security_restricted_takes_every_pod(cluster: Cluster, values: Path) -> None:
    for name, spec in pods(render(values)):
        metadata = {"generateName": "made-"}
        alike = {**spec, "serviceAccountName": "default", "priorityClassName": None}
        made, said = try_pod({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": alike}, PLAIN)
        assert made is not None, (name, said)


KINDS: Final = (
    "mutatingwebhookconfigurations,validatingadmissionpolicies,validatingadmissionpolicybindings,deployments,services,"
    "configmaps,serviceaccounts,poddisruptionbudgets,networkpolicies,horizontalpodautoscalers"
)


def made_by(release: str) -> set[str]:
    """The names of all objects of a release, whatever their namespace."""
    label = f"app.kubernetes.io/instance={release}"
    found = kubectl("get", KINDS, "--all-namespaces", "-l", label, "-o", "name", "--ignore-not-found")
    assert found.returncode == 0, found.stderr
    return set(found.stdout.split())


@pytest.mark.parametrize("helm_n", range(2))
def test_a_release_is_installed_upgraded_rolled_back_and_leaves_nothing(cluster: Cluster, helm_n: int) -> None:
    program = (helm.helms() * 2)[helm_n]
    release = f"try{secrets.token_hex(2)}"
    home = f"sidecar-test-home-{release}"
    apply(namespace(home))
    tls = "injector.tls.certManager.enabled=false,injector.tls.secretName=tls,injector.tls.caBundle=x"
    sets = ("--set", tls, "--set", "injector.replicas=2", "--namespace", home)

    def run(*words: str) -> None:
        done = helm.run(program, *words)
        assert done.returncode == 0, done.stderr

    def replicas() -> str:
        words = ("get", "deployment", f"{release}-injector", "-n", home, "-o", "jsonpath={.spec.replicas}")
        return kubectl(*words).stdout

    try:
        run("install", release, str(helm.CHART), *sets)
        first = made_by(release)
        assert len(first) >= 9
        run("upgrade", release, str(helm.CHART), *sets, "--set", "injector.replicas=3")
        assert (replicas(), made_by(release)) == ("3", first)
        run("rollback", release, "1", "--namespace", home)
        assert (replicas(), made_by(release)) == ("2", first)
    finally:
        helm.run(program, "uninstall", release, "--namespace", home)
        kubectl("delete", "namespace", home, "--wait=false")
    assert made_by(release) == set()


# --- without it: the policy alone


@pytest.fixture
def alone(cluster: Cluster) -> Iterator[Cluster]:
    cluster.without_webhook()
    yield cluster
    cluster.with_webhook()
    wait_for(lambda: try_pod(pod(), AGENTS)[0], bool)


def injected(cluster: Cluster, base: Object | None = None, **changed: Any) -> Object:
    """A pod that has the sidecar already, as a chart of its own makes it; ``changed`` members of that container."""
    made = copy.deepcopy(base or pod())
    definition = json.loads(cluster.injection)
    made["spec"].setdefault("initContainers", []).insert(0, {**definition["container"], **changed})
    made["spec"].setdefault("volumes", []).extend(definition["volumes"])
    return made


def test_the_policy_refuses_pods_without_a_sidecar_and_fakes_and_everything_hostile(alone: Cluster) -> None:
    made, said = try_pod(pod(), AGENTS)
    assert made is None
    assert "rule no_sidecar (layer pod)" in said
    made, said = try_pod(injected(alone), AGENTS)
    assert made is not None, said
    fakes: dict[str, dict[str, Any]] = {
        "image": {"image": "evil:1"},
        "image prefix": {"image": "sidecar-evil:1"},
        "command": {"command": ["sleep", "9"]},
        "arguments": {"args": ["healthcheck"]},
        "other settings": {"args": ["run", "--config=/tmp/x"]},
        "no arguments": {"args": []},
        "user": {"securityContext": {**json.loads(alone.injection)["container"]["securityContext"], "runAsUser": 5}},
        "no identity": {"volumeMounts": []},
        "ends": {"restartPolicy": None, "startupProbe": None, "readinessProbe": None, "livenessProbe": None},
    }
    for name, fake in fakes.items():
        made, said = try_pod(injected(alone, **fake), AGENTS)
        assert made is None, name
        assert "rule foreign_sidecar" in said or "rule no_sidecar" in said, (name, said)
    for name, (hostile, rule) in HOSTILE.items():
        if rule != "foreign_sidecar":
            made, said = try_pod(injected(alone, hostile), LAX)
            assert made is None, name
            assert f"rule {rule}" in said, (name, said)


def test_the_policy_holds_running_pods_to_their_image_and_debuggers_out(alone: Cluster) -> None:
    made = injected(alone)
    made["metadata"]["name"] = "running"
    done = kubectl("create", "-n", AGENTS, "-f", "-", document=made)
    assert done.returncode == 0, done.stderr

    def patched(what: dict[str, Any], *words: str) -> tuple[int, str]:
        done = kubectl("patch", "pod", "running", "-n", AGENTS, "--type=strategic", "-p", json.dumps(what), *words)
        return done.returncode, done.stderr

    other = {"spec": {"initContainers": [{"name": "sidecar", "image": "sidecar:other"}]}}
    code, said = patched(other)
    assert (code, "rule foreign_sidecar" in said) == (1, True), said
    code, said = patched({"metadata": {"labels": {"x": "y"}}})
    assert code == 0, said
    debugger: dict[str, Any] = {"name": "debug", "image": "x:1", "securityContext": RESTRICTED}
    holes: list[dict[str, Any]] = [
        {"targetContainerName": "sidecar"},
        {"securityContext": {**RESTRICTED, "runAsUser": 2747}},
        {"volumeMounts": [{"name": "sidecar-workload-api", "mountPath": "/x"}]},
    ]
    for hole in holes:
        code, said = patched(
            {"spec": {"ephemeralContainers": [{**debugger, **hole}]}}, "--subresource=ephemeralcontainers"
        )
        assert (code, "rule debugger" in said) == (1, True), (hole, said)
    code, said = patched(
        {"spec": {"ephemeralContainers": [{**debugger, "targetContainerName": "agent"}]}},
        "--subresource=ephemeralcontainers",
    )
    assert code == 0, said
