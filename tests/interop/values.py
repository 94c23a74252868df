"""Values for the chart: the matrix' fullest, one changed, many random."""

from __future__ import annotations

import json
import random
from typing import Any, Final

import yaml

from tests.interop.helm import CHART, ROOT

FULL: Final = CHART / "ci" / "full-values.yaml"
FULL_VALUES: Final[dict[str, Any]] = yaml.safe_load(FULL.read_text())
CA: Final = "-----BEGIN CERTIFICATE-----"


def changed(path: str, value: Any, base: dict[str, Any] | None = None) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(base or {}))
    at = document
    *way, last = path.split(".")
    for part in way:
        at = at.setdefault(part, {})
    at[last] = value
    return document


def example(name: str, image: str) -> str:
    """Return a file of the example with the agents' image filled in, as its page says."""
    return (ROOT / "helm" / "example" / name).read_text().replace("sidecar-dev:dev", image)


CHOICES: dict[str, list[Any]] = {
    "sidecar.mode": ["native", "classic"],
    "sidecar.platform": ["", "ceiling"],
    "sidecar.uid": [2747, 999, 1_000_000_000, 1337],
    "sidecar.ports.inbound": [7443, 8443, 7090],
    "sidecar.image.digest": ["", f"sha256:{'0' * 64}"],
    "sidecar.workloadApi.driver": ["csi.spiffe.io", "spiffe.csi.example"],
    "sidecar.startup.seconds": [5, 600],
    "sidecar.resources": [
        {},
        {"requests": {"cpu": "1", "memory": "1Gi"}},
        {"requests": {"cpu": "0.5", "memory": "262144Ki"}, "limits": {"cpu": 2}},
    ],
    "sidecar.workers": [1, 2, 3],
    "sidecar.extraEnv": [[], [{"name": "SIDECAR__MAX_MEMORY_MIB", "value": "240"}, {"name": "A", "value": "'\"\\<>"}]],
    "nameOverride": ["", "delegation"],
    "injector.bounds.cpuLimit": [{"min": 0.1, "max": 4}, {"min": "1m", "max": "1k"}],
    "injector.namespaces": [{}, {"agents": {"cpuLimit": 1, "startupSeconds": 300}}, {"a": {"memoryRequest": "1Gi"}}],
    "injector.podLabels": [{}, {"team": "1"}],
    "sts.podAnnotations": [{}, {"a": "b: c # d"}],
    "injector.topologySpreadConstraints": [
        [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
    ],
    "sts.extraEnv": [[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}]],
    "injector.enabled": [True, True, False],
    "injector.replicas": [1, 2, 2, 5],
    "injector.allowOptOut": [True, False],
    "injector.tls": [{}, {"certManager": {"enabled": False}, "secretName": "tls", "caBundle": CA}],
    "injector.podDisruptionBudget.minAvailable": [0, 1],
    "injector.affinity": [{}, {"nodeAffinity": {}}],
    "injector.tolerations": [[], [{"operator": "Exists"}]],
    "admissionPolicy.mode": ["auto", "auto", "enabled", "disabled"],
    "sts.enabled": [False, True],
    "sts.settings": [FULL_VALUES["sts"]["settings"]],
    "sts.keys.secretName": ["sts-keys"],
    "sts.replicas": [1, 2, 3],
    "sts.include": [[], [{"configMap": "team-a", "keys": ["rules.yaml"]}]],
    "sts.autoscaling.enabled": [False, True],
    "workloads": [[], FULL_VALUES["workloads"]],
    "platforms": [[], FULL_VALUES["platforms"]],
    "networkPolicy.enabled": [True, False],
    "networkPolicy.agentNamespaces": [[], ["agents"], ["a", "b", "system"]],
    "spiffeIDs.enabled": [True, False],
    "spiffeIDs.images": [[], [f"docker.io/library/sidecar@sha256:{'0' * 64}"]],
    "networkPolicy.dns": [{}, {"to": [{"ipBlock": {"cidr": "169.254.20.10/32"}}], "port": 5353}],
    "spiffeIDs.workloads": [
        [],
        [{"namespace": "agents", "serviceAccount": "writer", "images": [f"registry.example/agent@sha256:{'0' * 64}"]}],
    ],
    "spiffeIDs.federatesWith": [[], ["partner.example"], ["a.example", "b.example"]],
    "podMonitor.enabled": [True, False],
    "podMonitor.namespaces": [["agents"], ["a", "b"]],
    "prometheusRule.enabled": [True, False],
    "dashboards.enabled": [True, False],
    "dashboards.annotations": [{}, {"folder": "a: b # c"}],
    "sts.revocation.enabled": [False, False, True],
    "sts.settings.revocation": [{"operators": [{"spiffe_id": "spiffe://acme.example/ann", "may": ["txn"]}]}],
    "injector.allowKeys": [True, False],
    "injector.allowWorkloadHandle": [True, False],
    "sidecar.ports.plain": [0, 7444],
    "networkPolicy.stsIngress": [[], [{"from": [{"podSelector": {}}], "ports": [{"port": 7444}]}]],
}


def random_values(seed: int) -> dict[str, Any]:
    """Return random values, the same for the same seed; they may contradict each other."""
    dice = random.Random(seed)
    values: dict[str, Any] = {}
    for path, choices in CHOICES.items():
        if dice.random() < 0.6:
            values = changed(path, dice.choice(choices), values)
    return values
