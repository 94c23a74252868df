"""The port without TLS in the charts, for callers that have no sidecar yet, and the ways out of the mesh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from sidecar.config import load_sidecar
from sidecar.injector.inject import RefusedError, inject
from tests.injector.pods import bare
from tests.interop.engine import require
from tests.interop.helm import CHART, ROOT, Object, Rendered, helms, injection_of, missing, render
from tests.interop.values import changed

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

ACTING: Final[dict[str, Any]] = yaml.safe_load((CHART / "ci" / "full-acting-values.yaml").read_text())
PLAIN: Final = {"name": "sidecar-plain", "containerPort": 7444, "protocol": "TCP"}


@pytest.fixture(autouse=True)
def _helm() -> None:
    require(missing())


def policy_of(found: Rendered) -> Object:
    spec: Object = found.one("NetworkPolicy", "-mesh")["spec"]
    return spec


def test_the_port_is_the_sidecar_s_and_no_other_container_may_have_it() -> None:
    definition = injection_of(render(ACTING))
    assert PLAIN in definition.container["ports"]
    agent = {"name": "agent", "image": "agent:1", "ports": [{"containerPort": 7444}]}
    with pytest.raises(RefusedError, match="port 7444 is the sidecar's"):
        inject(bare({"containers": [agent]}), definition)
    closed = injection_of(render(changed("sidecar.ports.plain", 0, changed("networkPolicy.plainFrom", [], ACTING))))
    assert [port["containerPort"] for port in closed.container["ports"]] == [7443, 7090]
    assert inject(bare({"containers": [agent]}), closed).patch


def test_only_the_named_callers_reach_it() -> None:
    rule = {"from": ACTING["networkPolicy"]["plainFrom"], "ports": [{"port": 7444, "protocol": "TCP"}]}
    assert rule in policy_of(render(ACTING))["ingress"]
    nobody = policy_of(render(changed("networkPolicy.plainFrom", [], ACTING)))
    assert [port["port"] for one in nobody["ingress"] for port in one["ports"]] == [7443, 7090]


def test_agents_reach_what_is_named_besides_the_mesh() -> None:
    (rule,) = ACTING["networkPolicy"]["agentEgress"]
    assert rule in policy_of(render(ACTING))["egress"]
    shut = policy_of(render(changed("networkPolicy.agentEgress", [], ACTING)))
    assert [port["port"] for one in shut["egress"] for port in one["ports"]] == [53, 53, 7443, 7444]


def test_the_example_s_settings_open_that_port_under_the_ceiling_that_the_chart_writes(tmp_path: Path) -> None:
    found = render(ACTING)
    (ceiling,) = [one for one in found.of("ConfigMap") if one["metadata"].get("namespace") == "agents"]
    written = yaml.safe_load(ceiling["data"]["platform.yaml"])
    issuers = yaml.safe_load((ROOT / "config" / "platform.yaml").read_text())["issuers"]
    file = tmp_path / "platform.yaml"
    file.write_text(json.dumps({**written, "issuers": issuers}))
    settings = yaml.safe_load((ROOT / "config" / "observe.yaml").read_text())
    own = tmp_path / "sidecar.yaml"
    own.write_text(json.dumps(settings, default=str))
    loaded = load_sidecar(own, {}, file)
    assert loaded.inbound is not None
    assert loaded.inbound.plain is not None
    assert loaded.inbound.plain.listen.port == PLAIN["containerPort"]


# contradicting values → the fix
CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "one port twice": (
        changed("sidecar.ports.plain", 7443, ACTING),
        "ports: inbound, outbound, probe and plain are one port twice",
    ),
    "a port that no platform file allows": (
        changed("sidecar.platform", "", ACTING),
        "ports.plain: only a platform file with plain: true allows a port without TLS",
    ),
    "a port that every ceiling forbids": (
        changed("platforms", [{"name": "ceiling", "namespace": "strict", "settings": {"allow_self": True}}], ACTING),
        "sidecar.ports.plain: platforms: ceiling forbids it in strict; write `plain: true` there",
    ),
    "callers of no port": (
        changed("sidecar.ports.plain", 0, ACTING),
        "networkPolicy.plainFrom: the sidecar has no such port; set sidecar.ports.plain",
    ),
    "callers of no namespace": (
        changed("networkPolicy", {"plainFrom": [{"podSelector": {}}]}, ACTING),
        "networkPolicy.plainFrom: no namespace of agents has a policy; name them",
    ),
    "a way out of no namespace": (
        changed("networkPolicy", {"agentEgress": [{"ports": [{"port": 443}]}]}, ACTING),
        "networkPolicy.agentEgress: no namespace of agents has a policy; name them",
    ),
}


@pytest.mark.parametrize(("values", "fix"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_is_refused_with_the_fix(values: dict[str, Any], fix: str) -> None:
    for helm in helms():
        assert fix in render(values, helm=helm).said


MISTYPED: Final[dict[str, Any]] = {
    "sidecar.ports.plain": 80,
    "sidecar.ports.plain ": "7444",
    "networkPolicy.plainFrom": [{}],
    "networkPolicy.agentEgress": [{}],
}


@pytest.mark.parametrize("path", MISTYPED)
def test_a_value_out_of_its_range_is_refused(path: str) -> None:
    found = render(changed(path.strip(), MISTYPED[path], ACTING))
    assert not found.objects
    assert path.strip().rpartition(".")[2] in found.said
