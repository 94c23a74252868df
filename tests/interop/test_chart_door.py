"""A door for people's clients in the charts: its port, its certificate, its Service, and who may reach it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from sidecar.injector.inject import RefusedError, inject
from tests.injector.pods import acting, bare, patched
from tests.interop.engine import require
from tests.interop.helm import CHART, ROOT, helms, injection_of, missing, render, restricted_problems, static_chart
from tests.interop.values import changed

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

DOOR: Final[dict[str, Any]] = yaml.safe_load((CHART / "ci" / "full-door-values.yaml").read_text())
FRONT: Final[dict[str, Any]] = DOOR["workloads"][0]
PORT: Final = {"name": "sidecar-door", "containerPort": 8443, "protocol": "TCP"}
ANNOTATIONS: Final = {"delegation-sidecar.io/settings": "planner", "delegation-sidecar.io/door": "front-tls"}


def door_with(**members: Any) -> dict[str, Any]:
    """Return the values with other members of the workload's door; None leaves one out."""
    door = {key: value for key, value in {**FRONT["door"], **members}.items() if value is not None}
    return {**DOOR, "workloads": [{**FRONT, "door": door}]}


def settings_with(listen: str) -> dict[str, Any]:
    settings = {"entry": {"door": {**FRONT["settings"]["entry"]["door"], "listen": listen}}}
    return {**DOOR, "workloads": [{**FRONT, "settings": settings}]}


@pytest.fixture(autouse=True)
def _helm() -> None:
    require(missing())


def test_the_unit_tests_are_about_what_helm_renders() -> None:
    values = {"sidecar": {"platform": "ceiling", "ports": {"door": 8443}}}
    rendered, known = injection_of(render(values)), acting(keys=False, handle=False, door=True)
    assert (rendered.container, list(rendered.volumes)) == (known.container, list(known.volumes))
    assert rendered.ports == known.ports


def test_the_port_is_the_sidecar_s_and_no_other_container_may_have_it() -> None:
    agent = {"name": "agent", "image": "agent:1", "ports": [{"containerPort": 8443}]}
    definition = injection_of(render(DOOR))
    assert PORT in definition.container["ports"]
    with pytest.raises(RefusedError, match="port 8443 is the sidecar's"):
        inject(bare({"containers": [agent]}), definition)
    closed = injection_of(render())
    assert [port["containerPort"] for port in closed.container["ports"]] == [7443, 7090]
    assert inject(bare({"containers": [agent]}), closed).patch


@pytest.mark.parametrize("mode", ["native", "classic"])
def test_an_injected_pod_is_the_pod_that_a_chart_includes_the_library_in(mode: str, tmp_path: Path) -> None:
    definition = injection_of(render(changed("sidecar.mode", mode, DOOR)))
    own = {"mode": mode, "platform": "ceiling", "settings": "planner", "door": "front-tls", "ports": {"door": 8443}}
    spec = render({"sidecar": own}, chart=static_chart(tmp_path / "team")).one("Pod")["spec"]
    spec = {key: value for key, value in spec.items() if value is not None}
    spec["securityContext"]["fsGroup"] = 2747
    asked = bare({"securityContext": {"runAsUser": 1000, "fsGroup": 2747}}, annotations=ANNOTATIONS)
    assert patched(asked, inject(asked, definition).patch)["spec"] == spec
    assert inject(bare(spec), definition).patch[0]["path"].startswith("/metadata/")  # recognised without annotations
    assert restricted_problems({**spec, "containers": [c for c in spec["containers"] if c["name"] == "sidecar"]}) == []


def test_a_door_s_service_leads_to_its_port_and_keeps_callers_addresses() -> None:
    service = render(DOOR).one("Service", "front-door")
    assert service["metadata"]["namespace"] == "agents"
    assert service["metadata"]["annotations"] == FRONT["door"]["annotations"]
    assert service["spec"] == {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "selector": {"app": "front"},
        "ports": [{"name": "door", "port": 443, "targetPort": 8443, "protocol": "TCP"}],
    }
    inside = render(door_with(type=None, annotations=None, port=8443)).one("Service", "front-door")
    assert "annotations" not in inside["metadata"]
    assert inside["spec"] == {
        "type": "ClusterIP",
        "selector": {"app": "front"},
        "ports": [{"name": "door", "port": 8443, "targetPort": 8443, "protocol": "TCP"}],
    }
    assert not [one for one in render().objects if one["metadata"]["name"].endswith("-door")]


def test_only_the_named_sources_reach_the_door_and_only_in_the_entry_s_pods() -> None:
    found = render(DOOR)
    policy = found.one("NetworkPolicy", "front-door")
    assert policy["metadata"]["namespace"] == "agents"
    assert policy["spec"] == {
        "podSelector": {"matchLabels": {"app": "front"}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": FRONT["door"]["from"], "ports": [{"port": 8443, "protocol": "TCP"}]}],
    }
    mesh = found.one("NetworkPolicy", "-mesh")["spec"]["ingress"]
    assert 8443 not in [port["port"] for one in mesh for port in one["ports"]]
    # Where the namespace has no policy one for the door would shut out the mesh.
    unpoliced = {**door_with(**{"from": None}), "networkPolicy": {}}
    assert render(unpoliced).one("Service", "front-door")
    assert not [one for one in render(unpoliced).of("NetworkPolicy") if one["metadata"]["name"] == "front-door"]
    off = changed("networkPolicy.enabled", False, DOOR)
    assert not render(off).of("NetworkPolicy")
    assert render(off).one("Service", "front-door")


def test_the_files_of_the_page_are_where_the_charts_mount_them() -> None:
    mounts = {one["name"]: one["mountPath"] for one in injection_of(render(DOOR)).container["volumeMounts"]}
    page = (ROOT / "docs" / "door.md").read_text()
    files = re.findall(r"(?:certificate|key): (/\S+)", page)
    assert files == [f"{mounts['sidecar-door']}/tls.crt", f"{mounts['sidecar-door']}/tls.key"]
    assert [FRONT["settings"]["entry"]["door"][name] for name in ("certificate", "key")] == files


def test_the_policy_holds_the_certificate_to_the_sidecar_where_doors_are_allowed() -> None:
    said = {name: str(render(values).one("ValidatingAdmissionPolicy")) for name, values in (("a", DOOR), ("b", {}))}
    for word in ("sidecar-door", "rule door"):
        assert (word in said["a"], word in said["b"]) == (True, False), word


# contradicting values → the fix
CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "one port twice": (
        changed("sidecar.ports.door", 7443, {**DOOR, "workloads": []}),
        "ports: inbound, outbound, probe and door are one port twice",
    ),
    "a door of no port": (
        changed("sidecar.ports.door", 0, DOOR),
        "workloads: front: door: the sidecar has no such port; set sidecar.ports.door",
    ),
    "another port": (
        settings_with("0.0.0.0:9443"),
        "workloads: front: door: its settings do not listen on port 8443, sidecar.ports.door",
    ),
    "no door in the settings": (
        {**DOOR, "workloads": [{**FRONT, "settings": {}}]},
        "write entry.door.listen: 0.0.0.0:8443",
    ),
    "doors that every ceiling forbids": (
        changed("platforms", [{"name": "ceiling", "namespace": "agents", "settings": {"allow_self": True}}], DOOR),
        "sidecar.ports.door: platforms: ceiling forbids it in agents; write `doors: [URL]` there",
    ),
    "a policy that lets nobody in": (
        door_with(**{"from": []}),
        "workloads: front: door.from: the policy of agents would let nobody in; name the callers",
    ),
    "callers of no policy": (
        {**DOOR, "networkPolicy": {}},
        "workloads: front: door.from: agents has no policy; name it in networkPolicy.agentNamespaces",
    ),
    "no name for a Service": (
        {**DOOR, "workloads": [{**FRONT, "name": "front.v1"}]},
        "no Service can be named front.v1-door; name the workload otherwise",
    ),
    "one certificate for all": (
        changed("sidecar.door", "front-tls", DOOR),
        "sidecar.door: each pod names its own by the annotation delegation-sidecar.io/door",
    ),
}


@pytest.mark.parametrize(("values", "fix"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_is_refused_with_the_fix(values: dict[str, Any], fix: str) -> None:
    for helm in helms():
        assert fix in render(values, helm=helm).said


def test_a_certificate_without_a_port_is_refused(tmp_path: Path) -> None:
    chart = static_chart(tmp_path / "team")
    said = render({"sidecar": {"settings": "front", "door": "front-tls"}}, chart=chart).said
    assert "door: the sidecar has no port for it; set ports.door" in said


MISTYPED: Final[dict[str, dict[str, Any]]] = {
    "selector": door_with(selector={}),
    "type": door_with(type="ExternalName"),
    "from": door_with(**{"from": [{}]}),
    "port": door_with(port="443"),
    "ports.door": changed("sidecar.ports.door", 443, DOOR),
    "secret": door_with(secret="front-tls"),
}


@pytest.mark.parametrize("path", MISTYPED)
def test_a_value_out_of_its_range_is_refused(path: str) -> None:
    found = render(MISTYPED[path])
    assert not found.objects
    assert path.rpartition(".")[2] in found.said
