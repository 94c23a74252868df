"""The charts as Helm renders them: the matrix, random values, contradictions, and one definition of the sidecar."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import tarfile
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from delegation_core.deny_list import parse_deny_list
from delegation_core.policy import Deny
from delegation_core.steps import at_once
from sidecar.config import load_sidecar, load_sts
from sidecar.config.sts_model import KeysSection
from sidecar.config.sts_settings import TokenServiceSettings
from sidecar.injector.inject import inject
from sidecar.injector.injection import parse_injection
from sidecar.injector.sizes import ANNOTATIONS
from sidecar.sts.schedule import KeyLags
from tests.injector.pods import RENDERED, bare, patched
from tests.interop.engine import require
from tests.interop.helm import (
    CHART,
    LIBRARY,
    MATRIX,
    ROOT,
    Rendered,
    helms,
    injection_of,
    missing,
    pods,
    render,
    restricted_problems,
    run,
    static_chart,
)
from tests.interop.values import CA, FULL, FULL_VALUES, changed, example, random_values

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

FOREIGN: Final = ("cert-manager.io", "spire.spiffe.io", "monitoring.coreos.com")  # their schemas are not Kubernetes'
SCHEMAS: Final = tuple(f"1.{minor}" for minor in range(29, 38))
VERSIONS: Final = ("1.29.0", "1.33.0", "1.37.2")
EVERY = pytest.mark.parametrize("values", MATRIX, ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def _helm() -> None:
    require(missing())


# --- rendering


@EVERY
def test_the_chart_passes_a_strict_lint(values: Path) -> None:
    for helm in helms():
        done = run(helm, "lint", "--strict", str(CHART), "--values", str(values))
        assert done.returncode == 0, done.stdout + done.stderr


@EVERY
@pytest.mark.parametrize("kube", VERSIONS)
def test_every_helm_renders_the_same_on_every_kubernetes(values: Path, kube: str) -> None:
    first, *others = [render(values, helm=helm, kube=kube) for helm in helms()]
    assert first.objects, first.said
    assert all(other.objects == first.objects for other in others)
    assert bool(first.of("ValidatingAdmissionPolicy")) == (kube != "1.29.0" and values.stem.startswith(("def", "full")))


def test_an_older_kubernetes_is_refused() -> None:
    assert "kubeVersion" in render(kube="1.28.15").said


@EVERY
def test_every_container_is_restricted_by_itself(values: Path) -> None:
    found = dict(pods(render(values)))
    assert found
    for name, spec in found.items():
        assert restricted_problems(spec) == [], name
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name


@EVERY
def test_every_object_has_a_name_and_namespaced_ones_a_namespace(values: Path) -> None:
    cluster = {"MutatingWebhookConfiguration", "ClusterSPIFFEID"}
    for one in render(values).objects:
        if not one["kind"].startswith("ValidatingAdmissionPolicy") and one["kind"] not in cluster:
            assert one["metadata"]["namespace"], one["kind"]


def test_every_image_is_the_one_that_is_set() -> None:
    image = {"repository": "mirror.example:5000/x", "tag": "9"}
    found = render({**changed("spiffeIDs.enabled", False, FULL_VALUES), "sidecar": {"image": image}})
    images = {c["image"] for _, spec in pods(found) for c in (*spec.get("initContainers", ()), *spec["containers"])}
    assert images | {injection_of(found).container["image"]} == {"mirror.example:5000/x:9"}


def test_agents_know_the_partners_that_are_named_and_the_token_service_knows_none() -> None:
    found = render(changed("spiffeIDs.federatesWith", ["partner.example"], FULL_VALUES))
    known = {one["spec"]["spiffeIDTemplate"]: one["spec"].get("federatesWith") for one in found.of("ClusterSPIFFEID")}
    assert sorted(known.values(), key=bool) == [None, ["partner.example"]]
    assert known["spiffe://{{ .TrustDomain }}/sts"] is None
    alone = render(changed("spiffeIDs.federatesWith", [], FULL_VALUES)).of("ClusterSPIFFEID")
    assert alone
    assert not [one for one in alone if "federatesWith" in one["spec"]]


# Names that YAML would not read as text
ODD: Final = ("123", "1e3", "0x10", "true", "null", "no")


@pytest.mark.parametrize("odd", ODD)
def test_a_name_that_looks_like_something_else_stays_a_name(odd: str) -> None:
    workload = {"name": odd, "namespace": odd, "settings": {}}
    values = {
        **FULL_VALUES,
        "injector": {"tls": {"certManager": {"enabled": False}, "secretName": odd, "caBundle": CA}},
        "sts": {**FULL_VALUES["sts"], "keys": {"secretName": odd}},
        "sidecar": {"platform": odd, "workloadApi": {"driver": odd}, "image": {"tag": odd}},
        "workloads": [workload],
        "spiffeIDs": {"enabled": False},
        "nameOverride": "",
        "networkPolicy": {"agentNamespaces": [f"{odd}", "a"]},
    }
    for helm in helms():
        words = ("template", "r", str(CHART), "--namespace", f"{odd}9", "--kube-version=1.33.0", "--values", "-")
        done = run(helm, *words, stdin=json.dumps(values))
        assert done.returncode == 0, done.stderr
        objects = [one for one in yaml.safe_load_all(done.stdout) if one]
        for one in objects:
            named = (one["metadata"]["name"], one["metadata"].get("namespace", ""))
            assert all(isinstance(name, str) for name in named), named
        (sts,) = [one for one in objects if one["kind"] == "Deployment" and one["metadata"]["name"] == "r-sts"]
        volumes = {volume["name"]: volume for volume in sts["spec"]["template"]["spec"]["volumes"]}
        assert (volumes["keys"]["secret"]["secretName"], volumes["workload-api"]["csi"]["driver"]) == (odd, odd)
        (definition,) = [one["data"] for one in objects if "injection.json" in one.get("data", {})]
        assert parse_injection(definition["injection.json"].encode()).driver == odd


@pytest.mark.parametrize("release", ["1x", "a.b"])
def test_a_release_that_no_service_can_be_named_after_is_refused(release: str) -> None:
    for helm in helms():
        assert "name it otherwise" in run(helm, "template", release, str(CHART), "--kube-version=1.33.0").stderr
        longest = "a" * 53
        assert run(helm, "template", longest, str(CHART), "--kube-version=1.33.0").returncode == 0


@EVERY
@pytest.mark.parametrize("kube", SCHEMAS)
def test_the_schemas_of_every_kubernetes_find_nothing(values: Path, kube: str) -> None:
    require(None if find_spec("kubernetes_validate") else "kubernetes-validate is not installed: make chart")
    validate = import_module("kubernetes_validate").validate
    for one in render(values, kube=f"{kube}.0").objects:
        if one["apiVersion"].split("/")[0] not in FOREIGN:
            validate(one, kube, strict=True)


def test_an_unknown_field_is_found_by_those_schemas() -> None:
    require(None if find_spec("kubernetes_validate") else "kubernetes-validate is not installed: make chart")
    deployment = render().one("Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Never"
    with pytest.raises(Exception, match="imagePullPolice"):
        import_module("kubernetes_validate").validate(deployment, "1.33", strict=True)


def test_a_package_has_rules_dashboards_and_library(tmp_path: Path) -> None:
    for helm in helms():
        assert run(helm, "package", str(CHART), "--destination", str(tmp_path)).returncode == 0
        (package,) = tmp_path.glob("*.tgz")
        found = render(FULL, helm=helm, chart=package)
        assert found.objects == render(FULL, helm=helm).objects
        package.unlink()


def test_a_package_made_with_the_library_s_package_has_the_library(tmp_path: Path) -> None:
    """As `helm dependency update` leaves it in ``charts``; files beside the chart's own are left out."""
    for helm in helms():
        chart = tmp_path / helm / "sidecar"
        shutil.copytree(CHART, chart)
        shutil.rmtree(chart / "charts")
        (chart / "charts").mkdir()
        assert run(helm, "package", str(LIBRARY), "--destination", str(chart / "charts")).returncode == 0
        (chart / "sidecar-0.0.9.tgz").write_bytes(b"an older package")
        assert run(helm, "package", str(chart), "--destination", str(tmp_path)).returncode == 0
        (package,) = tmp_path.glob("*.tgz")
        with tarfile.open(package) as packed:
            names = packed.getnames()
        assert "sidecar/charts/sidecar-lib/templates/_container.tpl" in names
        assert not [name for name in names if name.endswith(".tgz")]
        assert render(FULL, helm=helm, chart=package).objects == render(FULL, helm=helm).objects
        package.unlink()


def test_a_package_of_a_build_has_labels_that_kubernetes_takes(tmp_path: Path) -> None:
    """A version may name its build after a plus, which a label must not contain."""
    words = ("--version", f"0.1.0+{'build.' * 12}7", "--destination", str(tmp_path))
    assert run(helms()[0], "package", str(CHART), *words).returncode == 0
    (package,) = tmp_path.glob("*.tgz")
    for one in render(FULL, chart=package).objects:
        for value in one["metadata"]["labels"].values():
            assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", value), value


# the notes after an installation → values that print them, and values that do not
NOTES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no ValidatingAdmissionPolicy": ({"admissionPolicy": {"mode": "disabled"}}, {}),
    "run without a sidecar: ": ({"injector": {"allowOptOut": True}}, {}),
    "kubectl label namespace": ({}, {"injector": {"enabled": False}}),
    "kube-prometheus-stack": ({"prometheusRule": {"enabled": True}}, {}),
    "NetworkPolicies have an effect only": ({}, {"networkPolicy": {"enabled": False}}),
}


@pytest.fixture(scope="module")
def notes_as_an_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart with its notes as an object: `helm template` leaves them out, `helm install` needs a cluster."""
    chart = tmp_path_factory.mktemp("chart") / "sidecar"
    shutil.copytree(CHART, chart)
    lines = (chart / "templates" / "NOTES.txt").read_text().splitlines()
    text = "".join(f"  {line}\n" for line in lines)
    (chart / "templates" / "notes.yaml").write_text(f"kind: Notes\nmetadata: {{name: notes}}\ntext: |\n{text}")
    return chart


@pytest.mark.parametrize("said", NOTES)
def test_the_notes_are_true(said: str, notes_as_an_object: Path) -> None:
    for values, there in zip(NOTES[said], (True, False), strict=True):
        found = render(values, chart=notes_as_an_object)
        assert (said in found.one("Notes")["text"]) == there, found.said


def test_a_pod_that_may_do_without_is_asked_about_all_the_same() -> None:
    """It must not pass for one with a sidecar either; and a label added later opens nothing."""
    found = render({"injector": {"allowOptOut": True}})
    assert "objectSelector" not in found.one("MutatingWebhookConfiguration")["webhooks"][0]
    assert "objectSelector" not in found.one("ValidatingAdmissionPolicy")["spec"]["matchConstraints"]


def test_another_name_than_the_release_s_is_in_the_name_of_every_object_and_in_no_selector() -> None:
    plain, named = (render(changed("nameOverride", name, FULL_VALUES)) for name in ("", "delegation"))
    names = {one["metadata"]["name"] for one in named.objects}
    assert {"delegation-injector", "delegation-sts", "delegation-mesh"} <= names
    assert not [name for name in names if name.startswith("mesh-")]
    selectors = [[one["spec"]["selector"] for one in found.of("Deployment")] for found in (plain, named)]
    assert selectors[0] == selectors[1]
    for helm in helms():  # where the release's name makes no valid Service name
        words = ("template", "1x", str(CHART), "--kube-version=1.33.0", "--set=nameOverride=delegation")
        assert run(helm, *words).returncode == 0


def test_pods_have_the_labels_annotations_variables_and_constraints_that_are_set() -> None:
    found = render(FULL)
    for part in ("injector", "sts"):
        template = found.one("Deployment", f"-{part}")["spec"]["template"]
        own = {"app.kubernetes.io/name": "sidecar", "app.kubernetes.io/component": part}
        assert template["metadata"]["labels"].items() >= {**own, "team": "platform"}.items()
        annotations = template["metadata"]["annotations"]
        assert annotations["example.com/team"] == "platform"
        assert annotations["kubectl.kubernetes.io/default-container"] == part
        env = [one["name"] for one in template["spec"]["containers"][0]["env"]]
        assert env[0] == "POD_NAME"
        assert env[-1] == {"injector": "GODEBUG", "sts": "REGION"}[part]
        (constraint,) = template["spec"]["topologySpreadConstraints"]
        selected = constraint["labelSelector"]["matchLabels"]
        assert selected.items() >= ({"team": "platform"} if part == "sts" else own).items()
    plain = render().one("Deployment", "-injector")["spec"]["template"]
    assert "topologySpreadConstraints" not in plain["spec"]
    assert "team" not in plain["metadata"]["labels"]


def test_the_sidecar_has_the_workers_and_variables_that_are_set() -> None:
    container = injection_of(render(FULL)).container
    assert container["args"][-1] == "--workers=2"
    assert container["env"][-1] == {"name": "ODD", "value": 'it\'s "a" <b>\\'}
    plain = injection_of(render()).container
    assert not [word for word in plain["args"] if "workers" in word]
    assert plain["env"][-1]["name"] == "NODE_NAME"


def test_namespaces_have_the_sizes_that_are_set() -> None:
    definition = injection_of(render(FULL))
    own = patched(bare(), inject(bare(), definition, "agents").patch)["spec"]["initContainers"][0]
    assert own["resources"] == {
        "limits": {"cpu": "1", "memory": "512Mi"},
        "requests": {"cpu": "100m", "memory": "128Mi"},
    }
    assert own["startupProbe"]["failureThreshold"] == 300
    other = patched(bare(), inject(bare(), definition, "other").patch)["spec"]["initContainers"][0]
    assert other["resources"]["limits"] == {"memory": "256Mi"}


def test_a_cluster_has_one_webhook_and_one_policy_whatever_the_release_is_called() -> None:
    """Applied without Helm, a second release replaces the first instead of standing beside it."""
    kinds = ("MutatingWebhookConfiguration", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    for release, namespace in (("mesh", "sidecar"), ("other", "elsewhere")):
        words = ("template", release, str(CHART), "--namespace", namespace, "--kube-version=1.33.0")
        objects = [one for one in yaml.safe_load_all(run(helms()[-1], *words).stdout) if one]
        named = {(one["kind"], one["metadata"]["name"]) for one in objects if one["kind"] in kinds}
        assert named == {(kind, "injector.delegation-sidecar.io") for kind in kinds}


# --- one definition of the sidecar


@pytest.mark.parametrize("mode", ["native", "classic"])
@pytest.mark.parametrize("platform", ["", "ceiling"])
def test_an_injected_pod_is_the_pod_that_a_chart_includes_the_library_in(
    mode: str, platform: str, tmp_path: Path
) -> None:
    values = {"sidecar": {"mode": mode, "platform": platform}}
    definition = injection_of(render(values))
    static = render({"sidecar": {**values["sidecar"], "settings": "planner"}}, chart=static_chart(tmp_path / "team"))
    spec = static.one("Pod")["spec"]
    spec = {key: value for key, value in spec.items() if value is not None}
    assert patched(bare(), inject(bare(), definition).patch)["spec"] == spec
    assert inject(bare(spec), definition).patch[0]["path"].startswith("/metadata/")  # and it is recognised
    assert restricted_problems({**spec, "containers": [c for c in spec["containers"] if c["name"] == "sidecar"]}) == []


def test_the_unit_tests_are_about_what_helm_renders() -> None:
    rendered = json.loads(render().one("ConfigMap", "injector")["data"]["injection.json"])
    assert rendered == json.loads(RENDERED)


def test_a_static_sidecar_without_settings_is_refused_with_the_fix(tmp_path: Path) -> None:
    assert "settings: name the ConfigMap" in render(chart=static_chart(tmp_path / "team")).said


# --- settings and monitoring are those of the project


def test_the_settings_that_the_chart_writes_have_no_problem(tmp_path: Path) -> None:
    found = render(FULL)
    sts, crm = tmp_path / "sts.yaml", tmp_path / "sidecar.yaml"
    sts.write_text(found.one("ConfigMap", "-sts")["data"]["sts.yaml"].replace("/etc/sidecar/sts-keys", str(tmp_path)))
    assert load_sts(sts, {}).policy.issuer == "https://sts.acme.example"
    crm.write_text(found.one("ConfigMap", "crm")["data"]["sidecar.yaml"])
    environ = {
        variable["name"]: variable["value"] for variable in injection_of(found).container["env"] if "value" in variable
    }
    assert load_sidecar(crm, environ).probe.port == 7090


def test_a_workload_with_deny_has_the_rows_of_all_and_its_own_in_a_file_that_its_settings_name() -> None:
    workload = {"name": "w", "namespace": "a", "settings": {"issuers": []}}
    rows = [{"actor": "spiffe://acme.example/agent/planner"}, {"jti": "own"}]
    values = {"deny": rows[:1], "workloads": [{**workload, "deny": rows[1:]}, {**workload, "name": "without"}]}
    made = {one["metadata"]["name"]: one["data"] for one in render(values).of("ConfigMap") if "data" in one}
    settings, denied = yaml.safe_load(made["w"]["sidecar.yaml"]), made["w"]["deny.json"].encode()
    assert settings == {"issuers": [], "deny_file": "/etc/sidecar/settings/deny.json"}
    assert at_once(parse_deny_list(denied)) == Deny(actors=frozenset({rows[0]["actor"]}), jtis=frozenset({"own"}))
    assert made["without"].keys() == {"sidecar.yaml"}
    assert "deny_file" not in made["without"]["sidecar.yaml"]


def _token_service(folder: Path, values: dict[str, Any]) -> TokenServiceSettings:
    """Load the rendered settings of the token service, its directory of keys replaced by ``folder``."""
    text = render(values).one("ConfigMap", "-sts")["data"]["sts.yaml"]
    assert yaml.safe_load(text)["keys"]["directory"] == "/etc/sidecar/sts-keys"
    (folder / "sts.yaml").write_text(text.replace("/etc/sidecar/sts-keys", str(folder)))
    settings: TokenServiceSettings = load_sts(folder / "sts.yaml", {})
    return settings


def test_each_setting_of_signing_keys_reaches_the_token_service(tmp_path: Path) -> None:
    times = {"mount_lag_s": 60, "max_age_s": 61, "refresh_s": 62}
    assert times.keys() == KeysSection.model_fields.keys() - {"directory"}
    found = _token_service(tmp_path, changed("sts.settings.keys", times, FULL_VALUES))
    assert asdict(found.key_lags) == times
    assert found.key_directory == tmp_path
    assert asdict(_token_service(tmp_path, FULL_VALUES).key_lags) == asdict(KeyLags())


def test_bound_targets_and_introspection_reach_the_token_service(tmp_path: Path) -> None:
    targets = [{**FULL_VALUES["sts"]["settings"]["targets"][0], "bound": True}]
    values = changed("sts.settings.targets", targets, changed("sts.settings.introspection", {}, FULL_VALUES))
    found, plain = _token_service(tmp_path, values), _token_service(tmp_path, FULL_VALUES)
    assert (found.introspection is None, plain.introspection is None) == (False, True)
    assert found.policy != plain.policy


def test_the_settings_of_the_example_have_no_problem(tmp_path: Path) -> None:
    digest = f"sha256:{'0' * 64}"
    values = yaml.safe_load(example("values.yaml", f"registry.example/sidecar@{digest}"))
    values = changed("spiffeIDs.images", [f"docker.io/library/sidecar@{digest}"], values)
    found = render({**values, "sidecar": {"image": {"digest": digest}}})
    environ = {"SPIFFE_ENDPOINT_SOCKET": "unix:///spiffe-workload-api/spire-agent.sock"}
    environ["SIDECAR__PROBE__LISTEN"] = "0.0.0.0:7090"
    for name in ("front", "planner", "writer", "crm"):
        file = tmp_path / f"{name}.yaml"
        file.write_text(found.one("ConfigMap", name)["data"]["sidecar.yaml"])
        assert load_sidecar(file, environ).probe.port == 7090
    sts = tmp_path / "sts.yaml"
    sts.write_text(found.one("ConfigMap", "-sts")["data"]["sts.yaml"].replace("/etc/sidecar/sts-keys", str(tmp_path)))
    assert load_sts(sts, {}).policy.issuer == "https://mesh-sts.sidecar.svc:7444"


def test_the_agents_of_the_example_are_restricted_and_lawful() -> None:
    definition = injection_of(render())
    for one in yaml.safe_load_all((ROOT / "helm" / "example" / "agents.yaml").read_text()):
        if one["kind"] == "Deployment":
            template = one["spec"]["template"]
            assert restricted_problems(template["spec"]) == []
            if one["metadata"]["namespace"] == "agents":
                pod = bare(template["spec"], **template["metadata"])
                assert inject(pod, definition).warnings == []


def _dns(found: Rendered) -> list[list[dict[str, Any]]]:
    """Return the egress rules that name a port of DNS, or no port or no peer at all, of each policy with egress."""
    policies = [one["spec"] for one in found.of("NetworkPolicy") if one["spec"].get("egress")]
    return [
        [rule for rule in spec["egress"] if not rule.get("to") or {53, 5353} & {p["port"] for p in rule["ports"]}]
        for spec in policies
    ]


def test_names_are_asked_of_the_cluster_s_dns_alone_or_of_those_that_a_value_names() -> None:
    own = {"kubernetes.io/metadata.name": "kube-system"}
    cluster = [{"namespaceSelector": {"matchLabels": own}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]
    node = [*cluster, {"ipBlock": {"cidr": "169.254.20.10/32"}}]
    both = {"TCP", "UDP"}
    for values, to, port in (({}, cluster, 53), ({"to": node, "port": 5353}, node, 5353)):
        found = _dns(render(changed("networkPolicy.dns", values, FULL_VALUES)))
        assert len(found) == 2  # of agents, and of the token service; the injector has no egress
        for rules in found:
            assert [rule["to"] for rule in rules] == [to]
            assert {(one["port"], one["protocol"]) for one in rules[0]["ports"]} == {(port, name) for name in both}


@pytest.mark.parametrize("to", [[], [{}], None])
def test_dns_of_everywhere_is_refused(to: Any) -> None:
    for helm in helms():
        found = render(changed("networkPolicy.dns.to", to), helm=helm)
        assert (found.objects, "dns" in found.said) == ([], True), found.said


def test_a_change_of_settings_rolls_the_token_service_and_nothing_else_does() -> None:
    values = yaml.safe_load(FULL.read_text())
    before = render(values)
    values["sts"]["settings"]["token_life_s"] = 200
    after = render(values)
    assert before.one("Deployment", "-sts") != after.one("Deployment", "-sts")
    assert before.one("Deployment", "-injector") == after.one("Deployment", "-injector")


def test_rules_and_dashboard_are_the_files_that_compose_uses() -> None:
    found = render(FULL)
    files = sorted((ROOT / "monitoring" / "rules").glob("*.yaml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    rendered = found.one("PrometheusRule")["spec"]["groups"]
    for group in rendered:
        for rule in group["rules"]:
            if "annotations" in rule:
                base, _, page = rule["annotations"]["runbook_url"].partition("/docs/")
                assert base == "https://wiki.acme.example/sidecar"
                rule["annotations"]["runbook_url"] = f"docs/{page}"
    assert rendered == groups
    dashboard = (ROOT / "monitoring" / "dashboards" / "sidecar.json").read_text()
    assert found.one("ConfigMap", "-dashboard")["data"]["sidecar.json"] == dashboard


def test_the_webhook_s_port_is_the_one_that_the_page_tells_firewalls_to_let_through() -> None:
    found = render()
    (ports,) = [one["ports"] for one in found.one("Deployment", "-injector")["spec"]["template"]["spec"]["containers"]]
    (target,) = [one["targetPort"] for one in found.one("Service", "-injector")["spec"]["ports"] if one["port"] == 443]
    assert {one["name"]: one["containerPort"] for one in ports}["webhook"] == target
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    assert f"port 443, which leads to **port {target} of its pods**" in page


def test_the_sizes_that_the_page_names_are_the_chart_s() -> None:
    bounds = yaml.safe_load((CHART / "values.yaml").read_text())["injector"]["bounds"]
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    for name, annotation in ANNOTATIONS.items():
        assert f"| `{annotation}` | `{name}` | {bounds[name]['min']} to {bounds[name]['max']} |" in page


def test_the_jobs_have_the_names_that_the_alerts_know() -> None:
    assert {one["metadata"]["name"] for one in render(FULL).of("PodMonitor")} == {"sidecar", "sts", "injector"}


def test_included_lists_of_the_token_service_lie_below_its_settings() -> None:
    values = yaml.safe_load(FULL.read_text())
    (alone,) = [one for one in _sts_volumes(render(values)) if one["name"] == "settings"]
    assert set(alone) == {"name", "configMap"}
    more = changed("sts.include", [{"configMap": "team-a", "keys": ["rules.yaml", "targets.yaml"]}], values)
    found = render(changed("sts.settings.include", ["own.yaml"], more))
    (volume,) = [one for one in _sts_volumes(found) if one["name"] == "settings"]
    own, team = volume["projected"]["sources"]
    assert own == {"configMap": alone["configMap"]}
    assert team["configMap"]["name"] == "team-a"
    assert [one["path"] for one in team["configMap"]["items"]] == [
        "include/team-a/rules.yaml",
        "include/team-a/targets.yaml",
    ]
    (text,) = [one["data"]["sts.yaml"] for one in found.of("ConfigMap") if "sts.yaml" in one.get("data", {})]
    assert yaml.safe_load(text)["include"] == ["own.yaml", "include/team-a"]
    assert not render(changed("sts.include", [{"configMap": "team-a", "keys": ["rules.txt"]}], values)).objects


def _sts_volumes(found: Rendered) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = found.one("Deployment", "-sts")["spec"]["template"]["spec"]["volumes"]
    return volumes


def pod_monitors(found: Rendered) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one["spec"] for one in found.of("PodMonitor")}


def test_sidecars_are_scraped_in_named_namespaces_alone() -> None:
    values = yaml.safe_load(FULL.read_text())
    assert pod_monitors(render(values))["sidecar"]["namespaceSelector"] == {"matchNames": ["agents"]}
    named = changed("podMonitor.namespaces", ["team-a", "team-b"], values)
    assert pod_monitors(render(named))["sidecar"]["namespaceSelector"] == {"matchNames": ["team-a", "team-b"]}
    for name in ("sts", "injector"):
        assert "namespaceSelector" not in pod_monitors(render(named))[name]  # the release's own
    nowhere = render(changed("networkPolicy.agentNamespaces", [], values))
    assert (nowhere.objects, "podMonitor.namespaces is empty" in nowhere.said) == ([], True)


def test_a_scraped_pod_cannot_choose_its_namespace_pod_or_workload() -> None:
    for spec in pod_monitors(render(FULL)).values():
        (endpoint,) = spec["podMetricsEndpoints"]
        assert endpoint["honorLabels"] is False  # a label `namespace` of its samples becomes `exported_namespace`
        assert spec["sampleLimit"] == 20000


# pod, kind and name of its controller → workload
WORKLOADS: Final = {
    ("planner-6c5f7d9b4-x2xvz", "ReplicaSet", "planner-6c5f7d9b4"): "planner",
    ("model-server-abcde", "ReplicaSet", "model-server"): "model-server",
    ("crm-0", "StatefulSet", "crm"): "crm",
    ("agents-x2xvz", "DaemonSet", "agents"): "agents",
    ("report-28473920-x2xvz", "Job", "report-28473920"): "report",
    ("import-x2xvz", "Job", "import"): "import",
    ("alone", "", ""): "alone",
}


@pytest.mark.parametrize("pod", WORKLOADS)
def test_a_workload_is_the_pod_s_owner(pod: tuple[str, str, str]) -> None:
    (endpoint,) = pod_monitors(render(FULL))["sidecar"]["podMetricsEndpoints"]
    name, kind, controller = pod
    prefix = "__meta_kubernetes_pod_"
    labels = {f"{prefix}name": name, f"{prefix}controller_kind": kind, f"{prefix}controller_name": controller}
    for step in endpoint["relabelings"]:
        found = re.fullmatch(step.get("regex", "(.*)"), ";".join(labels.get(one, "") for one in step["sourceLabels"]))
        if step["action"] == "replace" and found is not None:
            labels[step["targetLabel"]] = found[1]
    assert labels["workload"] == WORKLOADS[pod]


# --- refused values


# contradicting values → the fix
CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "two certificates": (changed("injector.tls.secretName", "tls"), "set certManager.enabled to false"),
    "no certificate": (changed("injector.tls.certManager.enabled", False), "set certManager.enabled to true"),
    "no CA": (
        changed("injector.tls", {"certManager": {"enabled": False}, "secretName": "tls"}),
        "--set-file injector.tls.caBundle",
    ),
    "a CA for nothing": (changed("injector.tls.caBundle", CA), "leave it empty"),
    "an issuer without a name": (changed("injector.tls.certManager.issuerRef", {"kind": "Issuer"}), "write {name"),
    "a budget that stops every drain": (changed("injector.podDisruptionBudget.minAvailable", 2), "make it smaller"),
    "settings for all": (changed("sidecar.settings", "one"), "delegation-sidecar.io/settings"),
    "a token service without settings": (changed("sts.enabled", True), "write at least issuer"),
    "a listener of its own": (changed("sts.settings.listen", "0.0.0.0:1", FULL_VALUES), "leave it out"),
    "keys of its own": (changed("sts.settings.keys", "ephemeral", FULL_VALUES), "leave it out"),
    "a directory of its own": (changed("sts.settings.keys.directory", "/keys", FULL_VALUES), "leave it out"),
    "no keys": (changed("sts.keys.secretName", "", FULL_VALUES), "sidecar sts keygen"),
    "more at least than at most": (changed("sts.autoscaling.minReplicas", 9, FULL_VALUES), "swap them"),
    "a drain without time": (changed("sts.settings.drain_s", 30, FULL_VALUES), "make it larger"),
    "a drain without time for what is before it": (changed("sts.settings.drain_s", 26, FULL_VALUES), "5 s before it"),
    "a request above the limit": (
        changed("sidecar.resources", {"requests": {"memory": "1Gi"}}),
        "sidecar.resources: requests.memory 1Gi is above limits.memory 256Mi; raise the limit",
    ),
    "a request above the limit, of the token service": (
        changed("sts.resources", {"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}),
        "sts.resources: requests.cpu 2 is above",
    ),
    "a CA that is none": (
        changed("injector.tls", {"certManager": {"enabled": False}, "secretName": "tls", "caBundle": "ca.pem"}),
        "it is not a certificate in PEM; pass --set-file",
    ),
    "a budget for one": (changed("injector.replicas", 1), "0 makes no budget"),
    "a budget for one token service": (
        changed("sts.autoscaling", {"enabled": False}, changed("sts.replicas", 1, FULL_VALUES)),
        "0 makes no budget",
    ),
    "settings in place of the definition": (
        changed("workloads", [{"name": "mesh-injector", "namespace": "system", "settings": {"issuers": []}}]),
        "give each a name",
    ),
    "two deny files": (
        changed("workloads", [{"name": "w", "namespace": "a", "deny": [], "settings": {"deny_file": "/deny.json"}}]),
        "the chart sets it for deny",
    ),
    "agents beside the injector": (changed("networkPolicy.agentNamespaces", ["system"]), "give agents another"),
    "agents beside the cluster's resolver": (
        changed("networkPolicy.agentNamespaces", ["kube-system"]),
        "kube-system is never injected into",
    ),
    "a policy without an injector": (
        {"injector": {"enabled": False}, "admissionPolicy": {"mode": "enabled"}},
        "enable the injector",
    ),
    "one port twice": (changed("sidecar.ports.probe", 7443), "give each a number"),
    "the user of a service mesh": (changed("sidecar.uid", 1337), "take another"),
    "no image": (changed("sidecar.image.tag", ""), "set image.tag"),
    "bounds upside down": (changed("injector.bounds.cpuLimit", {"min": 2, "max": "500m"}), "swap them"),
    "a namespace beyond the bounds": (
        changed("injector.namespaces", {"agents": {"cpuLimit": "9"}}),
        "injector.namespaces.agents.cpuLimit: 9 is above injector.bounds.cpuLimit.max 8; lower it, or raise the bound",
    ),
    "a namespace's time to start beyond the bounds": (
        changed("injector.namespaces", {"agents": {"startupSeconds": 901}}),
        "injector.bounds.startupSeconds.max 900",
    ),
    "a namespace's request above the limit": (
        changed("injector.namespaces", {"agents": {"memoryRequest": "512Mi"}}),
        "injector.namespaces.agents: requests.memory 512Mi is above limits.memory 256Mi",
    ),
    "a default beyond the bounds": (
        changed("sidecar.resources", {"requests": {"cpu": "5m"}}),
        "sidecar's cpuRequest: 5m is below injector.bounds.cpuRequest.min 10m",
    ),
    "more workers than memory": (changed("sidecar.workers", 3), "set resources.limits.memory to 280Mi or more"),
    "a variable of the chart's": (
        changed("sidecar.extraEnv", [{"name": "SIDECAR__PROBE__LISTEN", "value": "x"}]),
        "extraEnv: the chart sets SIDECAR__PROBE__LISTEN; leave it out",
    ),
    "a variable twice": (
        changed("injector.extraEnv", [{"name": "A", "value": "x"}, {"name": "A", "value": "y"}]),
        "injector.extraEnv: A is there twice",
    ),
    "a fact of the chart's": (
        changed("sts.extraEnv", [{"name": "POD_NAME", "value": "x"}], FULL_VALUES),
        "sts.extraEnv: the chart sets POD_NAME",
    ),
    "a label of the chart's": (
        changed("injector.podLabels", {"app.kubernetes.io/component": "x"}),
        "injector.podLabels: the chart sets app.kubernetes.io/component; leave it out",
    ),
    "an annotation of the chart's": (
        changed("sts.podAnnotations", {"checksum/settings": "x"}, FULL_VALUES),
        "sts.podAnnotations: the chart sets checksum/settings",
    ),
    "one name twice": (
        changed("platforms", [{"name": "crm", "namespace": "agents", "settings": {}}], FULL_VALUES),
        "give each a name",
    ),
}


@pytest.mark.parametrize(("values", "fix"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_is_refused_with_the_fix(values: dict[str, Any], fix: str) -> None:
    for helm in helms():
        assert fix in render(values, helm=helm).said


def test_a_policy_that_kubernetes_does_not_have_is_refused() -> None:
    assert "set it to auto" in render(changed("admissionPolicy.mode", "enabled"), kube="1.29.0").said
    assert render(changed("admissionPolicy.mode", "enabled"), kube="1.30.0").objects


UNKNOWN: Final = (
    "more",
    "sidecar.more",
    "sidecar.image.more",
    "injector.more",
    "injector.tls.certManager.more",
    "sidecar.resources.limit",
    "injector.bounds.gpu",
    "injector.namespaces.agents.gpu",
)
MISTYPED: dict[str, Any] = {
    "sidecar.mode": "both",
    "sidecar.uid": "root",
    "sidecar.uid ": 0,
    "sidecar.ports.inbound": 80,
    "sidecar.resources": {"limits": {"memory": "256MB"}},
    "sts.resources": {"requests": {"cpu": "1 core"}},
    "sidecar.image.digest": "sha256:abc",
    "sidecar.image.repository": "a b",
    "injector.replicas": 0,
    "injector.timeoutSeconds": 31,
    "admissionPolicy.mode": "yes",
    "networkPolicy.agentNamespaces": ["UPPER"],
    "workloads": [{"name": "x"}],
    "deny": [{"actor": "planner"}],
    "deny ": [{"jti": "j", "txn": "t"}],
    "podMonitor.interval": "often",
    "podMonitor.namespaces": ["UPPER"],
    "podMonitor.sampleLimit": 0,
    "spiffeIDs.agentTemplate": "https://x",
    "nameOverride": "1x",
    "sidecar.workers": 0,
    "sidecar.extraEnv": [{"name": "A"}],
    "injector.extraEnv": [{"name": "a b", "value": "x"}],
    "injector.bounds.cpuLimit": {"min": "1 core", "max": "2"},
    "injector.namespaces": {"UPPER": {}},
    "sts.podLabels": {"a": 1},
    "injector.topologySpreadConstraints": ["zone"],
    "spiffeIDs.federatesWith": ["spiffe://partner.example"],
}


# null removes a default: without port, backstop, or restriction of monitoring
NONE: Final = (
    "sidecar.mode",
    "sidecar.ports.inbound",
    "sidecar.workloadApi.socket",
    "sidecar.image.pullPolicy",
    "sidecar.startup",
    "injector.enabled",
    "injector.tls",
    "injector.bounds.memoryLimit",
    "admissionPolicy.mode",
    "networkPolicy.monitoringNamespace",
)


@pytest.mark.parametrize("path", NONE)
def test_a_value_that_is_taken_away_is_refused(path: str) -> None:
    for helm in helms():
        found = render(changed(path, None), helm=helm)
        assert (found.objects, path.rpartition(".")[2] in found.said) == ([], True), found.said


@pytest.mark.parametrize("path", UNKNOWN)
def test_an_unknown_value_is_refused(path: str) -> None:
    assert "not allowed" in render(changed(path, 1)).said


@pytest.mark.parametrize("path", MISTYPED)
def test_a_value_out_of_its_range_is_refused(path: str) -> None:
    found = render(changed(path.strip(), MISTYPED[path]))
    assert not found.objects
    assert "schema" in found.said


# --- random values


@pytest.mark.parametrize("seed", range(int(os.environ.get("CHART_SEEDS", "25"))))
def test_random_values_are_rendered_alike_and_restricted_or_refused_with_a_fix(seed: int) -> None:
    values = random_values(seed)
    kube = random.Random(seed).choice(VERSIONS)
    first, *others = [render(values, helm=helm, kube=kube) for helm in helms()]
    if not first.objects:
        assert "execution error" in first.said, first.said
        assert "; " in first.said
    for other in others:
        assert other.objects == first.objects
    for name, spec in pods(first):
        problems = [one for one in restricted_problems(spec) if not one.endswith(": resources")]
        assert problems == [], name
    if first.of("MutatingWebhookConfiguration"):
        definition = injection_of(first)
        once = patched(bare(), inject(bare(), definition).patch)
        assert inject(once, definition).patch == []
