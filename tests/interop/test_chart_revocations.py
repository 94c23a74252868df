"""The token service of the chart when it keeps revocations: a volume for each replica, and a way to the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from sidecar.config import load_sts
from tests.interop.engine import require
from tests.interop.helm import CHART, Object, Rendered, helms, missing, render
from tests.interop.values import changed

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

CONTAIN: Final[dict[str, Any]] = yaml.safe_load((CHART / "ci" / "full-contain-values.yaml").read_text())
OPERATORS: Final = CONTAIN["sts"]["settings"]["revocation"]["operators"]


@pytest.fixture(autouse=True)
def _helm() -> None:
    require(missing())


def settings_of(found: Rendered) -> str:
    text: str = found.one("ConfigMap", "-sts")["data"]["sts.yaml"]
    return text


def ports_of(service: Object) -> dict[str, int]:
    return {one["name"]: one["port"] for one in service["spec"]["ports"]}


def policy_of(found: Rendered) -> Object:
    spec: Object = found.one("NetworkPolicy", "-sts")["spec"]
    return spec


def test_each_replica_keeps_its_orders_on_a_volume_that_outlives_its_pod() -> None:
    found = render(CONTAIN)
    spec = found.one("StatefulSet", "-sts")["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "2Gi"}},
    }
    (container,) = spec["template"]["spec"]["containers"]
    mounts = {one["name"]: one for one in container["volumeMounts"]}
    file = yaml.safe_load(settings_of(found))["revocation"]["file"]
    assert mounts[claim["metadata"]["name"]] == {"name": "revocations", "mountPath": str(Path(file).parent)}
    assert spec["template"]["spec"]["securityContext"]["fsGroup"] == 2747  # the volume is root's
    assert not [one for one in found.of("Deployment") if one["metadata"]["name"].endswith("-sts")]
    plain = render(changed("sts.revocation.storageClassName", "", CONTAIN)).one("StatefulSet", "-sts")
    assert "storageClassName" not in plain["spec"]["volumeClaimTemplates"][0]["spec"]


def test_replicas_find_each_other_before_they_are_ready() -> None:
    found = render(CONTAIN)
    spec = found.one("StatefulSet", "-sts")["spec"]
    service = found.one("Service", "-sts-replicas")
    assert spec["serviceName"] == service["metadata"]["name"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert service["spec"]["selector"] == spec["selector"]["matchLabels"]
    (url,) = yaml.safe_load(settings_of(found))["revocation"]["replicas"]
    assert url == f"https://{service['metadata']['name']}.system.svc:{ports_of(service)['token']}"
    own = {"podSelector": {"matchLabels": spec["selector"]["matchLabels"]}}
    policy = policy_of(found)
    assert own in policy["ingress"][0]["from"]
    assert {"to": [own], "ports": [{"port": 7444, "protocol": "TCP"}]} in policy["egress"]


def test_an_issuer_with_a_path_has_it_in_the_url_of_its_replicas() -> None:
    found = render(changed("sts.settings.issuer", "https://sts.acme.example/mesh/", CONTAIN))
    assert yaml.safe_load(settings_of(found))["revocation"]["replicas"] == [
        "https://mesh-sts-replicas.system.svc:7444/mesh"
    ]


def test_the_settings_have_no_problem_and_keep_the_operators(tmp_path: Path) -> None:
    file = tmp_path / "sts.yaml"
    file.write_text(settings_of(render(CONTAIN)).replace("/etc/sidecar/sts-keys", str(tmp_path)))
    settings = load_sts(file, {})
    assert settings.revocation is not None
    assert sorted(map(str, settings.revocation.operators)) == [one["spiffe_id"] for one in OPERATORS]
    assert settings.events is not None
    assert (settings.events.host, settings.events.port) == ("0.0.0.0", 7446)


def test_the_port_of_events_is_there_only_for_events() -> None:
    quiet = changed("sts.settings.revocation", {"operators": OPERATORS}, CONTAIN)
    for values, there in ((CONTAIN, True), (quiet, False)):
        found = render(values)
        (container,) = found.one("StatefulSet", "-sts")["spec"]["template"]["spec"]["containers"]
        assert ({"name": "events", "containerPort": 7446, "protocol": "TCP"} in container["ports"]) is there
        assert (ports_of(found.one("Service", "-sts")).get("events") == 7446) is there
        assert ("events" in settings_of(found)) is there


def test_operators_and_events_come_only_from_where_the_values_say() -> None:
    let_in = CONTAIN["networkPolicy"]["stsIngress"]
    assert [rule for rule in let_in if rule in policy_of(render(CONTAIN))["ingress"]] == let_in
    closed = policy_of(render(changed("networkPolicy.stsIngress", [], CONTAIN)))
    assert [port["port"] for rule in closed["ingress"] for port in rule["ports"]] == [7444, 7090]


def test_the_autoscaler_scales_what_there_is() -> None:
    scaled = changed("sts.autoscaling.enabled", True, CONTAIN)
    assert render(scaled).one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["kind"] == "StatefulSet"
    assert "replicas" not in render(scaled).one("StatefulSet")["spec"]


def test_nothing_of_it_is_there_unless_it_is_asked_for() -> None:
    settings = {key: value for key, value in CONTAIN["sts"]["settings"].items() if key != "revocation"}
    found = render(changed("sts.revocation", {}, changed("sts.settings", settings, CONTAIN)))
    assert found.one("Deployment", "-sts")
    assert not found.of("StatefulSet")
    assert [one["metadata"]["name"] for one in found.of("Service")] == ["mesh-injector", "mesh-sts"]
    assert "revocation" not in settings_of(found)
    assert len(policy_of(found)["egress"]) == 1


# contradicting values → the fix
CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "orders that end with their pod": (
        changed("sts.revocation.enabled", False, CONTAIN),
        "sts.settings.revocation: the orders would end with their pod; set sts.revocation.enabled",
    ),
    "nobody who may revoke": (
        changed("sts.settings.revocation", {}, CONTAIN),
        "sts.revocation: nobody may revoke anything; name operators or events",
    ),
    "a file of its own": (
        changed("sts.settings.revocation.file", "/tmp/x", CONTAIN),
        "sts.settings.revocation.file: the chart sets it; leave it out",
    ),
    "replicas of its own": (
        changed("sts.settings.revocation.replicas", ["https://x"], CONTAIN),
        "sts.settings.revocation.replicas: the chart sets it; leave it out",
    ),
    "a listener of its own": (
        changed("sts.settings.revocation.events.listen", "0.0.0.0:1", CONTAIN),
        "sts.settings.revocation.events.listen: the chart sets it, port 7446; leave it out",
    ),
}


@pytest.mark.parametrize(("values", "fix"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_is_refused_with_the_fix(values: dict[str, Any], fix: str) -> None:
    for helm in helms():
        assert fix in render(values, helm=helm).said


MISTYPED: Final[dict[str, Any]] = {
    "sts.revocation.enabled": "yes",
    "sts.revocation.size": "1 GB",
    "sts.revocation.size ": 0,
    "sts.revocation.storageClassName": "Fast Disk",
    "sts.revocation.more": 1,
    "sts.revocation.size  ": None,
    "networkPolicy.stsIngress": ["operators"],
}


@pytest.mark.parametrize("path", MISTYPED)
def test_a_value_out_of_its_range_is_refused(path: str) -> None:
    found = render(changed(path.strip(), MISTYPED[path], CONTAIN))
    assert not found.objects
    assert path.strip().rpartition(".")[2] in found.said
