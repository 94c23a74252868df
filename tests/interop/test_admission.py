"""Injector, policy and Pod Security in a real API server: no pod is started, all are dry runs."""

from __future__ import annotations

import copy
import json
import secrets
import shutil
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from sidecar.injector.inject import inject
from sidecar.injector.injection import parse_injection
from tests.injector.pods import patched
from tests.interop import helm, kube
from tests.interop.engine import require
from tests.interop.helm import Rendered, render, restricted_problems
from tests.interop.hostile import (
    APPARMOR,
    CONTAINER,
    FAKED_VOLUMES,
    HOSTILE,
    LAWFUL,
    PROFILED,
    RESTRICTED,
    changed_volumes,
    fakes,
    newer_fakes,
    pod,
)
from tests.interop.kube import Api, LocalInjector, Object, apply, kubectl, namespace, version, wait_for
from tests.interop.values import changed, random_values

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

_RUN: Final = secrets.token_hex(3)  # an earlier run's namespaces may still be ending
AGENTS: Final = f"sidecar-test-agents-{_RUN}"
LAX: Final = f"sidecar-test-lax-{_RUN}"  # enables sidecars, without Pod Security
PLAIN: Final = f"sidecar-test-plain-{_RUN}"
QUOTA: Final = f"sidecar-test-quota-{_RUN}"  # a ResourceQuota refuses containers without a cpu limit
SIZED: Final = f"sidecar-test-sized-{_RUN}"  # the same, and the chart's values have a cpu limit for it
RANGED: Final = f"sidecar-test-ranged-{_RUN}"  # the same, and a LimitRange with a default


# Where a cluster has nodes, a kubelet would write the pod's status, and admission would hold sizes to the node's
UNSCHEDULED: Final = {"schedulerName": "none"}
TOKEN_MOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_DEFAULT: Final = "runtime/default"  # as in the annotation
PEM: Final = "-----BEGIN CERTIFICATE-----"  # the start of a CA's PEM
WITH_SECRET: Final = f"injector.tls.certManager.enabled=false,injector.tls.secretName=tls,injector.tls.caBundle={PEM}"


class Cluster:
    """The chart's webhook, with a process of ours behind it, and its policy."""

    def __init__(self, folder: Path) -> None:
        values = {
            "injector": {
                "tls": {"certManager": {"enabled": False}, "secretName": "tls", "caBundle": PEM},
                "namespaces": {SIZED: {"cpuLimit": "1", "startupSeconds": 300}},
            },
            "sidecar": {"image": {"repository": "sidecar", "tag": "dev"}},
        }
        self.api = Api()
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
        apply(*namespace(AGENTS, **labels, **inject), *namespace(PLAIN, **labels), *namespace(LAX, **inject))
        for name in (QUOTA, SIZED, RANGED):
            apply(*namespace(name, **labels, **inject))
        self.injector.start()
        apply(*self.policy)
        self.with_webhook()
        wait_for(lambda: self.try_pod()[0], lambda found: found and found["spec"].get("initContainers"))

    def try_pod(self, asked: Object | None = None, namespace: str = AGENTS) -> tuple[Object | None, str]:
        return self.api.try_pod(pod() if asked is None else asked, namespace)

    def with_webhook(self) -> None:
        apply(self.webhook)

    def without_webhook(self, *, policy: bool = True) -> None:
        kubectl("delete", "mutatingwebhookconfiguration", self.webhook["metadata"]["name"], "--ignore-not-found")
        if policy:
            wait_for(lambda: self.try_pod()[1], lambda said: "sidecar policy: " in said)

    def down(self) -> None:
        kubectl("delete", "mutatingwebhookconfiguration", self.webhook["metadata"]["name"], "--ignore-not-found")
        for one in reversed(self.policy):
            kubectl("delete", one["kind"], one["metadata"]["name"], "--ignore-not-found")
        kubectl("delete", "namespace", AGENTS, PLAIN, LAX, QUOTA, SIZED, RANGED, "--ignore-not-found", "--wait=false")
        self.injector.stop()
        self.api.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require(helm.missing() or kube.missing())
    cluster = Cluster(tmp_path_factory.mktemp("injector"))
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


def static(
    cluster: Cluster, own: Object | None = None, *, base: Object | None = None, volumes: list[Object] | None = None
) -> Object:
    """Return a pod that has the sidecar already, as a team's own chart makes it, or with ``own`` or ``volumes``
    instead.
    """
    made = copy.deepcopy(pod() if base is None else base)
    definition = json.loads(cluster.injection)
    spec = made["spec"]
    kind = {"native": "initContainers", "classic": "containers"}[definition["mode"]]
    spec[kind] = [definition["container"] if own is None else own, *spec.get(kind, ())]
    spec["volumes"] = [*(definition["volumes"] if volumes is None else volumes), *spec.get("volumes", ())]
    spec["volumes"] += [] if own is None else FAKED_VOLUMES
    made["metadata"]["annotations"]["delegation-sidecar.io/settings"] = "settings"
    for name in [one["name"] for one in spec["volumes"] if one["name"].startswith("kube-api-access-")]:
        if own is None:  # and the sidecar has it where Kubernetes mounts its own
            head = spec[kind][0] = copy.deepcopy(spec[kind][0])
            head["volumeMounts"].append({"name": name, "mountPath": TOKEN_MOUNT, "readOnly": True})
    return made


def resizable() -> bool:
    """Tell if this Kubernetes resizes init containers that stay, which it does from 1.35 on."""
    return tuple(map(int, version().split(".")[:2])) >= (1, 35)


def names_of(asked: Object) -> set[str]:
    return {one["name"] for kind in ("containers", "initContainers") for one in asked["spec"].get(kind, ())}


# --- with the webhook


def test_a_plain_agent_gets_a_native_sidecar_in_a_restricted_namespace(cluster: Cluster) -> None:
    made, said = cluster.try_pod(pod({"automountServiceAccountToken": False}), AGENTS)
    assert made is not None, said
    own = json.loads(cluster.injection)["container"]
    first = made["spec"]["initContainers"][0]
    assert {key: first[key] for key in own} == own  # Kubernetes changes nothing of ours
    assert set(first) - set(own) == set()  # and fills in nothing
    assert restricted_problems({"containers": [], "initContainers": [first], "volumes": made["spec"]["volumes"]}) == []
    asked = [record["op"] for record in cluster.injector.records() if record["event"] == "pod.injected"]
    assert set(asked) <= {"injected", "unchanged"}


def test_elsewhere_nobody_is_asked(cluster: Cluster) -> None:
    made, said = cluster.try_pod(pod(), PLAIN)
    assert made is not None, said
    assert "initContainers" not in made["spec"]


def test_a_pod_with_a_token_of_kubernetes_is_the_same_at_the_second_look(cluster: Cluster) -> None:
    """The API server puts its token into our container, too, between the two calls."""
    made, said = cluster.try_pod(pod({"automountServiceAccountToken": True}), AGENTS)
    assert made is not None, said
    mounted = {mount["name"] for mount in made["spec"]["initContainers"][0]["volumeMounts"]}
    assert any(name.startswith("kube-api-access-") for name in mounted)


@pytest.mark.parametrize(("hostile", "rule"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_pod_is_refused_by_the_webhook_with_its_rule(cluster: Cluster, hostile: Object, rule: str) -> None:
    made, said = cluster.try_pod(hostile, AGENTS)
    assert made is None
    assert "sidecar injector: " in said, said
    assert f"rule {rule} (layer " in said, said


@pytest.mark.parametrize("asked", LAWFUL.values(), ids=LAWFUL)
def test_a_strange_pod_that_is_lawful_gets_exactly_the_sidecar(cluster: Cluster, asked: Object) -> None:
    made, said = cluster.try_pod(asked)
    assert made is not None, said
    definition = json.loads(cluster.injection)
    own = made["spec"]["initContainers"][0]
    without_token = [one for one in own["volumeMounts"] if not one["name"].startswith("kube-api-access-")]
    assert {**own, "volumeMounts": without_token} == definition["container"]
    others = [*made["spec"]["initContainers"][1:], *made["spec"]["containers"]]
    names = {volume["name"] for volume in definition["volumes"]}
    assert not names & {mount["name"] for other in others for mount in other.get("volumeMounts", ())}


def test_a_sidecar_that_is_nearly_ours_is_refused_by_the_webhook(cluster: Cluster) -> None:
    definition = json.loads(cluster.injection)
    for name, fake in {**fakes(definition["container"]), **newer_fakes(definition["container"])}.items():
        made, said = cluster.try_pod(static(cluster, fake))
        assert (made, "rule foreign_sidecar" in said) == (None, True), (name, said)
    for name, volumes in changed_volumes(definition["volumes"]).items():
        made, said = cluster.try_pod(static(cluster, volumes=volumes))
        assert made is None, name
        assert any(f"rule {rule}" in said for rule in ("sidecar_volume", "no_settings", "foreign_sidecar")), (
            name,
            said,
        )
    made, said = cluster.try_pod(static(cluster))
    assert made is not None, said


def test_a_pod_by_server_side_apply_is_a_pod_like_any_other(cluster: Cluster) -> None:
    metadata = {**pod()["metadata"], "generateName": None, "name": "applied", "namespace": AGENTS}
    made, said = cluster.api.try_object({**pod(), "metadata": metadata})
    assert made is not None, said
    assert made["spec"]["initContainers"][0]["name"] == "sidecar"
    made, said = cluster.api.try_object({**pod({"shareProcessNamespace": True}), "metadata": metadata})
    assert (made, "rule shared_process_namespace" in said) == (None, True), said


def test_a_sidecar_behind_another_container_is_put_before_it(cluster: Cluster) -> None:
    asked = static(cluster, base=pod({"initContainers": [{**CONTAINER, "name": "early"}]}))
    asked["spec"]["initContainers"].reverse()
    made, said = cluster.try_pod(asked)
    assert made is not None, said
    assert [one["name"] for one in made["spec"]["initContainers"]] == ["sidecar", "early"]


def test_root_is_refused_by_pod_security_after_the_injection(cluster: Cluster) -> None:
    made, said = cluster.try_pod(
        pod(agent={"securityContext": {**RESTRICTED, "runAsUser": 0, "runAsNonRoot": False}}), AGENTS
    )
    assert made is None
    assert 'violates PodSecurity "restricted' in said


def test_a_webhook_that_is_down_means_no_pod_there_and_pods_elsewhere(cluster: Cluster) -> None:
    cluster.injector.stop()
    try:
        made, said = cluster.try_pod(pod(), AGENTS)
        assert made is None
        assert "failed calling webhook" in said
        assert cluster.try_pod(pod(), PLAIN)[0] is not None
    finally:
        cluster.injector.start()
    assert cluster.try_pod(pod(), AGENTS)[0] is not None


# --- sizes


LIMITED: Final = {"resources": {"requests": {"cpu": "10m"}, "limits": {"cpu": "1"}}}  # of the agent


@pytest.fixture(scope="module")
def quotas(cluster: Cluster) -> None:
    """Return quotas in force: their controller has seen them."""
    for name in (QUOTA, SIZED, RANGED):
        meta = {"name": "cpu", "namespace": name}
        apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": {"limits.cpu": "8"}}})
        words = ("get", "resourcequota", "cpu", "-n", name, "-o", "jsonpath={.status.hard}")
        assert wait_for(lambda words=words: kubectl(*words).stdout, bool)  # type: ignore[misc]
    default = {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "20m"}}
    meta = {"name": "cpu", "namespace": RANGED}
    apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": meta, "spec": {"limits": [default]}})


def sized(**sizes: str) -> Object:
    return pod(agent=LIMITED, annotations={f"delegation-sidecar.io/{name}": size for name, size in sizes.items()})


@pytest.mark.usefixtures("quotas")
def test_a_quota_over_cpu_limits_takes_a_pod_whose_annotation_its_namespace_s_value_or_its_limit_range_sets_one(
    cluster: Cluster,
) -> None:
    made, said = cluster.try_pod(sized(), QUOTA)
    assert (made, "must specify limits.cpu for: sidecar" in said) == (None, True), said
    limits = {}
    for name, asked in ((QUOTA, sized(**{"cpu-limit": "2"})), (SIZED, sized()), (RANGED, sized())):
        made, said = cluster.try_pod(asked, name)
        assert made is not None, said
        limits[name] = made["spec"]["initContainers"][0]["resources"]["limits"]["cpu"]
        seconds = made["spec"]["initContainers"][0]["startupProbe"]["failureThreshold"]
        assert seconds == (300 if name == SIZED else 120)
    assert limits == {QUOTA: "2", SIZED: "1", RANGED: "500m"}


def test_an_annotation_sets_a_size_within_the_bounds_and_is_refused_outside_them(cluster: Cluster) -> None:
    lawful = {"cpu-request": "0.1", "memory-request": "128Mi", "memory-limit": "1024Mi", "startup-seconds": "600"}
    made, said = cluster.try_pod(sized(**lawful))
    assert made is not None, said
    own = made["spec"]["initContainers"][0]
    assert own["resources"] == {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
    assert own["startupProbe"]["failureThreshold"] == 600
    for name, size in (("cpu-limit", "9"), ("memory-limit", "64Mi"), ("startup-seconds", "901"), ("cpu-limit", "much")):
        made, said = cluster.try_pod(sized(**{name: size}))
        assert (made, f"rule size (layer annotation delegation-sidecar.io/{name})" in said) == (None, True), said


def test_who_may_do_everything_in_a_namespace_may_not_relabel_it(cluster: Cluster) -> None:
    """Kubernetes' own role `admin`: a namespace's labels are the platform's."""
    subject = {"kind": "User", "name": "team", "apiGroup": "rbac.authorization.k8s.io"}
    role = {"kind": "ClusterRole", "name": "admin", "apiGroup": "rbac.authorization.k8s.io"}
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "roleRef": role}
    apply({**binding, "metadata": {"name": "team", "namespace": AGENTS}, "subjects": [subject]})

    def may(verb: str, what: str) -> bool:
        return kubectl("auth", "can-i", verb, what, "-n", AGENTS, "--as=team").stdout.strip() == "yes"

    assert wait_for(lambda: may("create", "pods"), bool)
    assert [verb for verb in ("update", "patch", "delete") if may(verb, f"namespaces/{AGENTS}")] == []


# --- releases: a release's webhook is called too, so no other test may run


@pytest.fixture
def vacant(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster without webhook and policy, which exist once per cluster."""
    kubectl("delete", "mutatingwebhookconfiguration", cluster.webhook["metadata"]["name"])
    for one in reversed(cluster.policy):
        kubectl("delete", one["kind"], one["metadata"]["name"])
    yield cluster
    apply(*cluster.policy)
    cluster.with_webhook()
    wait_for(lambda: cluster.try_pod()[0], lambda found: found and found["spec"].get("initContainers"))


KINDS: Final = (
    "mutatingwebhookconfigurations,validatingadmissionpolicies,validatingadmissionpolicybindings,deployments,"
    "statefulsets,services,"
    "configmaps,serviceaccounts,poddisruptionbudgets,networkpolicies,horizontalpodautoscalers"
)


def made_by(release: str) -> set[str]:
    """Return the names of all objects of a release, in any namespace."""
    label = f"app.kubernetes.io/instance={release}"
    found = kubectl("get", KINDS, "--all-namespaces", "-l", label, "-o", "name", "--ignore-not-found")
    assert found.returncode == 0, found.stderr
    return set(found.stdout.split())


@pytest.mark.parametrize("helm_n", range(2))
def test_a_release_is_installed_upgraded_rolled_back_and_leaves_nothing(vacant: Cluster, helm_n: int) -> None:
    program = (helm.helms() * 2)[helm_n]
    release = f"try{secrets.token_hex(2)}"
    home = f"sidecar-test-home-{release}"
    apply(*namespace(home))
    sets = ("--set", WITH_SECRET, "--set", "injector.replicas=2", "--namespace", home)

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


def installable(seed: int) -> dict[str, Any]:
    """Return random values without objects that only an operator knows."""
    values = random_values(seed)
    tls = {"certManager": {"enabled": False}, "secretName": "tls", "caBundle": PEM}
    values = changed("injector.tls", tls, values)
    for part in ("spiffeIDs", "podMonitor", "prometheusRule"):
        values = changed(f"{part}.enabled", value=False, base=values)
    for part in ("workloads", "platforms", "networkPolicy.agentNamespaces"):  # of missing namespaces
        values = changed(part, [], values)
    return values


def test_a_release_goes_from_random_values_to_others_and_back(vacant: Cluster) -> None:
    """Fields that the API server does not let one change (selectors, names) must not depend on values."""
    program, release = helm.helms()[-1], f"try{secrets.token_hex(2)}"
    home = f"sidecar-test-home-{release}"
    apply(*namespace(home))
    seeds = (seed for seed in range(100) if render(installable(seed), kube=version()).objects)
    try:
        for command in ("install", "upgrade", "upgrade"):
            words = (command, release, str(helm.CHART), "--namespace", home, "--values", "-")
            done = helm.run(program, *words, stdin=json.dumps(installable(next(seeds))))
            assert done.returncode == 0, done.stderr
        done = helm.run(program, "rollback", release, "1", "--namespace", home)
        assert done.returncode == 0, done.stderr
    finally:
        helm.run(program, "uninstall", release, "--namespace", home)
        kubectl("delete", "namespace", home, "--wait=false")
    assert made_by(release) == set()


def test_a_release_is_installed_from_a_package_made_with_the_library_s_package(vacant: Cluster, tmp_path: Path) -> None:
    for program in helm.helms():
        chart = tmp_path / program / "sidecar"
        shutil.copytree(helm.CHART, chart, ignore=shutil.ignore_patterns("charts"))
        for words in (
            ("package", str(helm.LIBRARY), "--destination", str(chart / "charts")),
            ("package", str(chart), "--destination", str(tmp_path / program)),
        ):
            assert helm.run(program, *words).returncode == 0
        (package,) = (tmp_path / program).glob("*.tgz")
        release = f"try{secrets.token_hex(2)}"
        home = f"sidecar-test-home-{release}"
        apply(*namespace(home))
        try:
            done = helm.run(program, "install", release, str(package), "--namespace", home, "--set", WITH_SECRET)
            assert done.returncode == 0, done.stderr
            assert f"deployment.apps/{release}-injector" in made_by(release)
        finally:
            helm.run(program, "uninstall", release, "--namespace", home)
            kubectl("delete", "namespace", home, "--wait=false")


def test_a_second_release_is_refused_with_the_fix_until_the_first_is_gone(vacant: Cluster) -> None:
    first, second = (f"try{secrets.token_hex(2)}" for _ in range(2))
    homes = {release: f"sidecar-test-home-{release}" for release in (first, second)}
    apply(*(one for home in homes.values() for one in namespace(home)))
    programs = helm.helms()

    def run(program: str, command: str, release: str, *words: str) -> tuple[int, str]:
        chart = () if command == "uninstall" else (str(helm.CHART), "--set", WITH_SECRET)
        done = helm.run(program, command, release, *chart, "--namespace", homes[release], *words)
        return done.returncode, done.stderr

    try:
        assert run(programs[0], "install", first)[0] == 0
        before = made_by(first)
        for program in programs:
            code, said = run(program, "install", second)
            assert code != 0
            assert f'this cluster has one, of the release "{first}" in the namespace "{homes[first]}"' in said, said
            assert "upgrade or uninstall that release, or set injector.enabled=false here" in said
            assert made_by(second) == set()
            helm.run(program, "uninstall", second, "--namespace", homes[second])  # Helm keeps the failed release
        # the same name in another namespace is another release
        other = helm.run(programs[-1], "install", first, str(helm.CHART), "--set", WITH_SECRET, "-n", homes[second])
        assert (other.returncode != 0, "this cluster has one" in other.stderr) == (True, True), other.stderr
        assert made_by(first) == before
        code, said = run(programs[-1], "upgrade", first, "--set", "injector.replicas=3")
        assert code == 0, said
        code, said = run(programs[-1], "install", second, "--set", "injector.enabled=false,dashboards.enabled=true")
        assert code == 0, said
        run(programs[-1], "uninstall", second)
        run(programs[-1], "uninstall", first)
        code, said = run(programs[-1], "install", second)
        assert code == 0, said
    finally:
        for release in homes:
            run(programs[-1], "uninstall", release)
        kubectl("delete", "namespace", *homes.values(), "--wait=false")
    assert made_by(first) | made_by(second) == set()


OLD_IMAGE, NEW_IMAGE, AGENT_IMAGE = (
    f"registry.example/{name}@sha256:{digit * 64}"
    for name, digit in (("sidecar", "0"), ("sidecar", "1"), ("agent", "2"))
)


@pytest.fixture
def serving(vacant: Cluster) -> Iterator[str]:
    """Create a pod whose sidecar is ready, and the resource of its identity; return the pod's name."""
    names = {"kind": "ClusterSPIFFEID", "plural": "clusterspiffeids", "singular": "clusterspiffeid"}
    name = "clusterspiffeids.spire.spiffe.io"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [{"name": "v1alpha1", "served": True, "storage": True, "schema": schema}]
    resource = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": {"group": "spire.spiffe.io", "names": names, "scope": "Cluster", "versions": versions},
    }
    there = kubectl("get", "crd", name).returncode == 0
    if not there:
        apply(resource)
        kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=30s")
    own = {**CONTAINER, "name": "sidecar", "image": OLD_IMAGE, "restartPolicy": "Always"}
    made = pod({"initContainers": [own], **UNSCHEDULED}, {"image": AGENT_IMAGE})
    made["metadata"]["name"] = "serving"
    done = wait_for(  # the API server forgets the policy a moment after it is deleted
        lambda: kubectl("create", "-n", LAX, "-f", "-", document=made),
        lambda done: "sidecar policy: " not in done.stderr,
    )
    assert done.returncode == 0, done.stderr
    readiness("serving", ready=True)
    yield "serving"
    kubectl("delete", "pod", "serving", "-n", LAX, "--force", "--grace-period=0")
    if not there:
        kubectl("delete", "crd", name)


def readiness(name: str, *, ready: bool) -> None:
    own = {"name": "sidecar", "image": OLD_IMAGE, "imageID": OLD_IMAGE, "ready": ready, "restartCount": 0}
    code, said = changed_pod(name, {"status": {"initContainerStatuses": [own]}}, "--subresource=status")
    assert code == 0, said


@pytest.mark.parametrize("helm_n", range(2))
def test_an_upgrade_that_would_take_the_identity_from_a_pod_that_serves_is_refused(serving: str, helm_n: int) -> None:
    program, release = (helm.helms() * 2)[helm_n], f"try{secrets.token_hex(2)}"
    home = f"sidecar-test-home-{release}"
    apply(*namespace(home))
    entry = {"namespace": LAX, "serviceAccount": "default", "images": [AGENT_IMAGE]}
    other = {**entry, "images": [AGENT_IMAGE.replace("2" * 64, "3" * 64)]}

    def run(command: str, image: str, images: list[str], **identities: Any) -> str:
        """Return the error; empty if the command succeeded."""
        repository, _, digest = image.partition("@")
        chosen = {"enabled": True, "images": images, "workloads": [entry], **identities}
        values = {
            "injector": {"enabled": False},
            "sidecar": {"image": {"repository": repository, "digest": digest}},
            "spiffeIDs": chosen,
        }
        words = (command, release, str(helm.CHART), "--namespace", home, "--values", "-")
        done = helm.run(program, *words, stdin=json.dumps(values))
        return done.stderr if done.returncode else ""

    def given() -> set[str]:
        """Return the images that have identities."""
        found = json.loads(kubectl("get", "clusterspiffeids", "-o", "json").stdout)["items"]
        texts = {selector for one in found for selector in one["spec"]["workloadSelectorTemplates"]}
        return {text.partition("image:")[2] for text in texts if text.startswith("k8s:container-image:")}

    try:
        assert run("install", OLD_IMAGE, [OLD_IMAGE]) == ""
        refused = {
            "a digest alone": (run("upgrade", NEW_IMAGE, [OLD_IMAGE]), "would have no identity; add it"),
            "one image for another": (
                run("upgrade", NEW_IMAGE, [NEW_IMAGE]),
                f"the pod {LAX}/{serving} runs {OLD_IMAGE}",
            ),
            "another image of the agent": (
                run("upgrade", OLD_IMAGE, [OLD_IMAGE], workloads=[other]),
                "spiffeIDs.workloads",
            ),
            "no identities": (run("upgrade", OLD_IMAGE, [OLD_IMAGE], enabled=False), f"runs {OLD_IMAGE}"),
        }
        for name, (said, why) in refused.items():
            assert why in said, (name, said)
            assert given() == {OLD_IMAGE}, name
        assert run("upgrade", NEW_IMAGE, [OLD_IMAGE, NEW_IMAGE], workloads=[entry, other]) == ""
        assert given() == {OLD_IMAGE, NEW_IMAGE}
        assert f"runs {OLD_IMAGE}" in run("upgrade", NEW_IMAGE, [NEW_IMAGE])
        assert run("upgrade", NEW_IMAGE, [NEW_IMAGE], withdraw=[OLD_IMAGE]) == ""  # on purpose
        assert given() == {NEW_IMAGE}
        assert run("upgrade", NEW_IMAGE, [OLD_IMAGE, NEW_IMAGE]) == ""
        assert run("upgrade", NEW_IMAGE, [NEW_IMAGE], workloads=[other], withdraw=[f"{LAX}/default"]) == ""
        assert run("upgrade", NEW_IMAGE, [OLD_IMAGE, NEW_IMAGE]) == ""
        readiness(serving, ready=False)  # as one that never had an identity
        assert run("upgrade", NEW_IMAGE, [NEW_IMAGE]) == ""
    finally:
        helm.run(program, "uninstall", release, "--namespace", home)
        kubectl("delete", "namespace", home, "--wait=false")


# --- without the webhook: only the policy


@pytest.fixture
def alone(cluster: Cluster) -> Iterator[Cluster]:
    cluster.without_webhook()
    yield cluster
    cluster.with_webhook()
    wait_for(lambda: cluster.try_pod()[0], bool)


def test_the_policy_refuses_pods_without_a_sidecar_and_fakes_and_everything_hostile(alone: Cluster) -> None:
    made, said = alone.try_pod()
    assert made is None
    assert "rule no_sidecar (layer pod)" in said
    made, said = alone.try_pod(static(alone))
    assert made is not None, said
    definition = json.loads(alone.injection)
    for name, fake in fakes(definition["container"]).items():
        made, said = alone.try_pod(static(alone, fake), LAX)
        rule = "no_sidecar" if fake["restartPolicy"] is None else "foreign_sidecar"
        assert (made, f"rule {rule}" in said) == (None, True), (name, said)
    for name, volumes in changed_volumes(definition["volumes"]).items():
        made, said = alone.try_pod(static(alone, volumes=volumes), LAX)
        assert (made, "rule sidecar_volume" in said) == (None, True), (name, said)
    for name, (hostile, rule) in HOSTILE.items():
        if rule == "foreign_sidecar" and "sidecar" in names_of(hostile):  # a name must be unique
            made, said = alone.try_pod(hostile, LAX)
            assert (made, "rule no_sidecar" in said or f"rule {rule}" in said) == (None, True), (name, said)
        else:
            made, said = alone.try_pod(static(alone, base=hostile), LAX)
            assert (made, f"rule {rule}" in said) == (None, True), (name, said)
    behind = static(alone, base=pod({"initContainers": [{**CONTAINER, "name": "early"}]}))
    behind["spec"]["initContainers"].reverse()
    made, said = alone.try_pod(behind)
    assert (made, "rule no_sidecar" in said) == (None, True), said


def test_the_policy_refuses_a_fake_by_a_newer_field_or_the_field_is_gone(alone: Cluster) -> None:
    own = json.loads(alone.injection)["container"]
    without_token = pod({"automountServiceAccountToken": False})
    for name, fake in newer_fakes(own).items():
        made, said = alone.try_pod(static(alone, fake, base=without_token), LAX)
        dropped = made is not None and made["spec"]["initContainers"][0] == own
        assert dropped or "rule foreign_sidecar" in said, (name, said)


OTHERWISE: Final[dict[str, Any]] = {
    "injector": {
        "allowOptOut": True,
        "tls": {"certManager": {"enabled": False}, "secretName": "tls", "caBundle": PEM},
    },
    "sidecar": {
        "mode": "classic",
        "platform": "ceiling",
        "image": {"repository": "registry.example:5000/a.b/sidecar", "tag": "1"},
    },
}
WITHOUT: Final = {"delegation-sidecar.io/inject": "disabled"}


@pytest.fixture
def otherwise(alone: Cluster) -> Iterator[Cluster]:
    """The policy with other values: classic, with a ceiling, with opt-out."""
    other = Cluster.__new__(Cluster)
    other.api, other.rendered = alone.api, render(OTHERWISE)
    other.injection = other.rendered.one("ConfigMap", "injector")["data"]["injection.json"]
    without = pod(labels=WITHOUT)
    apply(*other.rendered.of("ValidatingAdmissionPolicy"))
    wait_for(lambda: other.try_pod(without)[0], bool)
    yield other
    apply(*alone.rendered.of("ValidatingAdmissionPolicy"))
    wait_for(lambda: other.try_pod(without)[0], lambda found: not found)


def test_the_policy_of_other_values_holds_a_classic_sidecar_and_who_does_without(otherwise: Cluster) -> None:
    definition = json.loads(otherwise.injection)
    own = definition["container"]
    made, said = otherwise.try_pod(static(otherwise), LAX)
    assert made is not None, said
    made, said = otherwise.try_pod(static(otherwise, {**own, "image": f"{own['image']}.2"}), LAX)
    assert made is not None, said
    hook = own["lifecycle"]["postStart"]["exec"]["command"]
    assert hook[-1] == "--wait=120"

    def hooked(*command: str) -> Object:
        return {"lifecycle": {**own["lifecycle"], "postStart": {"exec": {"command": [*command]}}}}

    made, said = otherwise.try_pod(static(otherwise, {**own, **hooked(*hook[:-1], "--wait=600")}), LAX)
    assert made is not None, said
    wrong = {
        **{name: {**own, **changed} for name, changed in {
            "a hook that waits for nothing": hooked(*hook[:-1], "--wait=0"),
            "a hook that does not wait": hooked(*hook[:-1]),
            "a hook with one word more": hooked(*hook, "--wait=1"),
            "no ceiling": {"args": own["args"][:2]},
            "a dot that is any letter": {"image": "registry.example:5000/aXb/sidecar:1"},
            "no hook": {"lifecycle": None},
            "half a hook": {"lifecycle": {"postStart": own["lifecycle"]["postStart"]}},
            "another hook": {"lifecycle": {**own["lifecycle"], "preStop": {"exec": {"command": ["sh"]}}}},
        }.items()},
    }  # fmt: skip
    for name, fake in wrong.items():
        made, said = otherwise.try_pod(static(otherwise, fake), LAX)
        assert (made, "rule foreign_sidecar" in said) == (None, True), (name, said)
    made, said = otherwise.try_pod(static(otherwise, {**own, "restartPolicy": "Never"}), LAX)
    dropped = made is not None and "restartPolicy" not in made["spec"]["containers"][0]  # as Kubernetes 1.34 does
    assert dropped or "rule foreign_sidecar" in said, said
    for source in ({"name": "mine"}, {"name": "ceiling", "items": [{"key": "higher.yaml", "path": "platform.yaml"}]}):
        ceiling = [
            {**one, "configMap": source} if one["name"] == "sidecar-platform" else one for one in definition["volumes"]
        ]
        made, said = otherwise.try_pod(static(otherwise, volumes=ceiling), LAX)
        assert (made, "rule sidecar_volume" in said) == (None, True), (source, said)
    behind = static(otherwise)
    behind["spec"]["containers"].reverse()
    made, said = otherwise.try_pod(behind, LAX)
    assert (made, "rule no_sidecar" in said) == (None, True), said
    # a pod that opts out may share its processes, but must not pass for one with a sidecar
    made, said = otherwise.try_pod(pod({"shareProcessNamespace": True}, labels=WITHOUT), LAX)
    assert made is not None, said
    for asked, rule in (
        (pod({"containers": [{**CONTAINER, "name": "sidecar"}]}, labels=WITHOUT), "foreign_sidecar"),
        (pod({"volumes": definition["volumes"][:1]}, labels=WITHOUT), "sidecar_volume"),
        (pod({"volumes": [{"name": "run", "hostPath": {"path": "/run"}}]}, labels=WITHOUT), "sidecar_volume"),
        (pod({"hostNetwork": True}, labels=WITHOUT), "host_namespace"),
        (static(otherwise, base=pod(labels=WITHOUT)), "foreign_sidecar"),
    ):
        made, said = otherwise.try_pod(asked, LAX)
        assert (made, f"rule {rule}" in said) == (None, True), said


ACTING: Final[dict[str, Any]] = {
    "injector": {**OTHERWISE["injector"], "allowKeys": True, "allowWorkloadHandle": True},
    "sidecar": {"platform": "ceiling", "ports": {"door": 8443}},
}
ASKING: Final = {
    "delegation-sidecar.io/keys": "planner-keys",
    "delegation-sidecar.io/door": "planner-tls",
    "delegation-sidecar.io/workload-handle": "agent",
}


@pytest.fixture
def acting(alone: Cluster) -> Iterator[Cluster]:
    """The policy where pods may ask for keys, for a door's certificate and for the workload handle."""
    other = Cluster.__new__(Cluster)
    other.api, other.rendered = alone.api, render(ACTING)
    other.injection = other.rendered.one("ConfigMap", "injector")["data"]["injection.json"]
    apply(*other.rendered.of("ValidatingAdmissionPolicy"))
    wait_for(lambda: other.try_pod(acted(other))[0], bool)
    yield other
    apply(*alone.rendered.of("ValidatingAdmissionPolicy"))
    wait_for(lambda: other.try_pod(acted(other))[0], lambda found: not found)


def acted(cluster: Cluster, spec: Object | None = None, **annotations: str) -> Object:
    """Return a pod as the injector leaves it; it asks for all three unless ``annotations`` say."""
    asked = pod({"securityContext": {"fsGroup": 2747}, **(spec or {})}, annotations=annotations or ASKING)
    return patched(asked, inject(asked, parse_injection(cluster.injection.encode())).patch)


def test_the_policy_holds_keys_and_door_to_the_sidecar_and_the_handle_to_one_agent(acting: Cluster) -> None:
    second: Object = {**CONTAINER, "name": "second"}
    for asked in (acted(acting), acted(acting, x="y"), acted(acting, {"containers": [CONTAINER, second]})):
        made, said = acting.try_pod(asked)  # in a restricted namespace
        assert made is not None, said
    variable = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "planner-keys", "key": "openai"}}}
    source = {"secret": {"name": "planner-keys"}}
    handle = {"name": "sidecar-handle", "mountPath": "/run/sidecar-handle", "readOnly": True}
    wrong: list[tuple[str, Object, Object]] = [
        ("keys", {"volumes": [{"name": "own", "secret": {"secretName": "planner-keys"}}]}, {}),
        ("keys", {"volumes": [{"name": "own", "projected": {"sources": [source]}}]}, {}),
        ("keys", {}, {"env": [variable]}),
        ("keys", {}, {"envFrom": [{"secretRef": {"name": "planner-keys"}}]}),
        ("door", {"volumes": [{"name": "own", "secret": {"secretName": "planner-tls"}}]}, {}),
        ("door", {"volumes": [{"name": "own", "projected": {"sources": [{"secret": {"name": "planner-tls"}}]}}]}, {}),
        ("door", {}, {"envFrom": [{"secretRef": {"name": "planner-tls"}}]}),
        ("sidecar_volume", {}, {"volumeMounts": [{"name": "sidecar-keys", "mountPath": "/keys"}]}),
        ("sidecar_volume", {}, {"volumeMounts": [{"name": "sidecar-door", "mountPath": "/door"}]}),
        ("workload_handle", {}, {"volumeMounts": [handle]}),
        ("workload_handle", {}, {"volumeMounts": [{**handle, "readOnly": False}]}),
    ]
    for rule, spec, members in wrong:
        asked = acted(acting, {"containers": [CONTAINER, second]})
        asked["spec"]["volumes"] += spec.get("volumes", [])
        asked["spec"]["containers"][1] = {**second, **members}
        made, said = acting.try_pod(asked, LAX)
        assert (made, f"rule {rule} (" in said) == (None, True), (rule, spec, members, said)
    for changed_mount in ({"readOnly": False}, {"mountPath": "/elsewhere"}, {"subPath": "x"}):
        asked = acted(acting)
        asked["spec"]["containers"][0]["volumeMounts"] = [{**handle, **changed_mount}]
        made, said = acting.try_pod(asked, LAX)
        assert (made, "rule workload_handle (" in said) == (None, True), (changed_mount, said)
    for name, volumes in changed_volumes(acted(acting)["spec"]["volumes"]).items():
        if (
            name not in ("sidecar-keys", "sidecar-door") and "token" not in name
        ):  # Secrets; no container mounts the token
            made, said = acting.try_pod({**acted(acting), "spec": {**acted(acting)["spec"], "volumes": volumes}}, LAX)
            assert (made, "rule sidecar_volume (" in said) == (None, True), (name, said)


def test_the_policy_holds_debuggers_out_of_keys_and_handle(acting: Cluster) -> None:
    made = acted(acting)
    made["metadata"]["name"] = "acting"
    done = kubectl("create", "-n", LAX, "-f", "-", document=made)
    assert done.returncode == 0, done.stderr
    try:
        volumes = made["spec"]["volumes"]
        secret, certificate = [one["secret"]["secretName"] for one in volumes if "secret" in one]
        names = ("sidecar-keys", "sidecar-handle", "sidecar-door")
        mounts = [{"name": name, "mountPath": "/run/x", "readOnly": True} for name in names]
        key = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": secret, "key": "openai"}}}
        holes: list[tuple[dict[str, Any], int]] = [
            *(({"volumeMounts": [mount]}, 1) for mount in mounts),
            ({"envFrom": [{"secretRef": {"name": secret}}]}, 1),
            ({"envFrom": [{"secretRef": {"name": certificate}}]}, 1),
            ({"env": [key]}, 1),
            ({"envFrom": [{"secretRef": {"name": "of-others", "optional": True}}]}, 0),  # the last: it is taken
        ]
        for hole, held in holes:
            debugger = {"name": "debug", "image": "x:1", "securityContext": RESTRICTED, **hole}
            asked = {"spec": {"ephemeralContainers": [debugger]}}
            code, said = changed_pod("acting", asked, "--subresource=ephemeralcontainers")
            assert (code, "rule debugger" in said) == (held, bool(held)), (hole, said)
    finally:
        kubectl("delete", "pod", "acting", "-n", LAX, "--force", "--grace-period=0")


def test_the_policy_takes_what_is_lawful_and_every_image_of_the_platform_s(alone: Cluster) -> None:
    for name, asked in LAWFUL.items():
        made, said = alone.try_pod(static(alone, base=asked))
        assert made is not None, (name, said)
    own = json.loads(alone.injection)["container"]
    digest = f"sha256:{'0' * 64}"
    slow = {**own, "startupProbe": {**own["startupProbe"], "failureThreshold": 600}}
    made, said = alone.try_pod(static(alone, {**slow, "resources": {"limits": {"cpu": "2", "memory": "1Gi"}}}))
    assert made is not None, said
    for image in ("sidecar:dev", "sidecar:1.2.3-rc.1_x", f"sidecar@{digest}", f"sidecar:1@{digest}"):
        made, said = alone.try_pod(static(alone, {**own, "image": image}))
        assert made is not None, (image, said)


def test_the_policy_takes_the_annotation_that_kubernetes_makes_of_a_pod_s_profile_and_no_other(alone: Cluster) -> None:
    """Kubernetes 1.30 to 1.33 write it for every container, the sidecar too, before the policy is called."""
    made, said = alone.try_pod(static(alone, base=pod({"securityContext": PROFILED}, annotations={APPARMOR: _DEFAULT})))
    assert made is not None, said
    for spec, profile in (({}, _DEFAULT), ({"securityContext": PROFILED}, "unconfined")):
        made, said = alone.try_pod(static(alone, base=pod(spec, annotations={APPARMOR: profile})), LAX)
        assert (made, "rule foreign_sidecar" in said) == (None, True), (spec, said)


def created(cluster: Cluster, spec: Object) -> Iterator[str]:
    """Create a pod with the sidecar, in a namespace without Pod Security."""
    made = static(cluster, base=pod({**spec, **UNSCHEDULED}))
    made["metadata"]["name"] = "running"
    done = kubectl("create", "-n", LAX, "-f", "-", document=made)
    assert done.returncode == 0, done.stderr
    yield "running"
    kubectl("delete", "pod", "running", "-n", LAX, "--force", "--grace-period=0")


@pytest.fixture
def running(alone: Cluster) -> Iterator[str]:
    """Create a pod whose containers name their users."""
    yield from created(alone, {})


@pytest.fixture
def of_one_user(alone: Cluster) -> Iterator[str]:
    """Create a pod that names a user for debuggers too: those of kubectl name none."""
    yield from created(alone, {"securityContext": {"runAsUser": 1000}})


def changed_pod(name: str, what: dict[str, Any], *words: str) -> tuple[int, str]:
    done = kubectl("patch", "pod", name, "-n", LAX, "--type=strategic", "-p", json.dumps(what), *words)
    return done.returncode, done.stderr


def test_the_policy_holds_running_pods_to_their_image(running: str) -> None:
    other = {"spec": {"initContainers": [{"name": "sidecar", "image": "sidecar:other"}]}}
    code, said = changed_pod(running, other)
    assert (code, "rule foreign_sidecar" in said) == (1, True), said
    code, said = changed_pod(running, {"metadata": {"labels": {"x": "y"}}})
    assert code == 0, said


SIZES: Final = {
    "more, within the bounds": ({"memory": "512Mi"}, {"cpu": "100m", "memory": "128Mi"}, True),
    "beyond the bounds": ({"memory": "5Gi"}, {"cpu": "100m"}, False),
    "below the bounds": ({"memory": "64Mi"}, {"cpu": "100m", "memory": "32Mi"}, False),
    "a request beyond the bounds": ({"memory": "512Mi"}, {"cpu": "5"}, False),
    "no limit": ({}, {"cpu": "100m", "memory": "128Mi"}, False),
}


def test_the_policy_holds_a_sidecar_s_size_when_it_is_made(alone: Cluster) -> None:
    own = json.loads(alone.injection)["container"]
    for name, (limits, requests, lawful) in SIZES.items():
        sized = {**own, "resources": {"limits": limits, "requests": requests}}
        made, said = alone.try_pod(static(alone, sized), LAX)
        assert (made is not None, "rule size (" in said) == (lawful, not lawful), (name, said)


def resize(name: str, limits: Object, requests: Object) -> tuple[int, str]:
    sized = {"name": "sidecar", "resources": {"limits": limits, "requests": requests}}
    return changed_pod(name, {"spec": {"initContainers": [sized]}}, "--subresource=resize")


def test_a_resize_of_the_sidecar_is_held_to_the_bounds_by_the_policy_and_by_the_webhook(
    running: str, cluster: Cluster
) -> None:
    if not resizable():
        pytest.skip("this Kubernetes resizes no sidecar")
    beyond = {name: sizes[:2] for name, sizes in SIZES.items() if not sizes[2] and sizes[0]}
    for name, sizes in beyond.items():
        code, said = resize(running, *sizes)
        assert (code, "sidecar policy: rule size (" in said) == (1, True), (name, said)
    policy, binding = cluster.policy
    kubectl("delete", binding["kind"], binding["metadata"]["name"])
    try:
        cluster.with_webhook()
        wait_for(lambda: resize(running, {"memory": "5Gi"}, {"cpu": "50m"})[1], lambda said: "injector: " in said)
        for name, sizes in beyond.items():
            code, said = resize(running, *sizes)
            assert (code, "sidecar injector: rule size (" in said) == (1, True), (name, said)
    finally:
        cluster.without_webhook(policy=False)
        apply(policy, binding)
        wait_for(lambda: cluster.try_pod()[1], lambda said: "sidecar policy: " in said)
    code, said = resize(running, {"memory": "512Mi"}, {"cpu": "60m", "memory": "128Mi"})
    assert code == 0, said


def test_the_policy_holds_debuggers_out_of_the_sidecar(running: str) -> None:
    debugger: dict[str, Any] = {"name": "debug", "image": "x:1", "securityContext": RESTRICTED}
    holes: list[dict[str, Any]] = [
        {"securityContext": {**RESTRICTED, "runAsUser": None}},
        {"targetContainerName": "sidecar"},
        {"securityContext": {**RESTRICTED, "runAsUser": 2747}},
        {"securityContext": {"privileged": True}},
        {"securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}},
        {"volumeMounts": [{"name": "sidecar-workload-api", "mountPath": "/x"}]},
    ]
    for hole in holes:
        attached = {"spec": {"ephemeralContainers": [{**debugger, **hole}]}}
        code, said = changed_pod(running, attached, "--subresource=ephemeralcontainers")
        assert (code, "rule debugger" in said) == (1, True), (hole, said)
    lawful = {"spec": {"ephemeralContainers": [{**debugger, "targetContainerName": "agent"}]}}
    code, said = changed_pod(running, lawful, "--subresource=ephemeralcontainers")
    assert code == 0, said


KUBECTL_DEBUG: Final = {
    "--target=sidecar --profile=restricted": "debugger",
    "--target=agent --profile=general": "debugger",  # it adds SYS_PTRACE
    "--copy-to=copy --profile=restricted --share-processes=true": "shared_process_namespace",
    "--copy-to=copy --profile=restricted --share-processes=false --keep-init-containers=false": "no_sidecar",
    "--copy-to=copy --profile=general --share-processes=false": "privileged",
    "--copy-to=copy --profile=restricted --share-processes=false": "",
    "--target=agent --profile=restricted": "",
}


def test_what_people_do_with_kubectl_debug_does_not_reach_the_sidecar_either(of_one_user: str) -> None:
    for options, rule in KUBECTL_DEBUG.items():
        done = kubectl("debug", of_one_user, "-n", LAX, "--image=x:1", *options.split())
        assert (done.returncode == 0, f"rule {rule} " in done.stderr) == (not rule, bool(rule)), (options, done.stderr)
