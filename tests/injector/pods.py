"""Pods as the API server shows them, the chart's definition, and a patch applied as the API server applies it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sidecar.injector.injection import Injection, parse_injection

# tests/chart compares it with Helm's rendering
RENDERED: Final = (Path(__file__).parent / "injection.json").read_bytes()
OUTBOUND: Final = {"name": "SIDECAR_OUTBOUND_URL", "value": "http://127.0.0.1:7080"}


def injection(**changed: Any) -> Injection:
    """Return the chart's definition, with some of its members changed."""
    return parse_injection(json.dumps({**json.loads(RENDERED), **changed}).encode())


def classic() -> Injection:
    """Return the definition with the sidecar as an ordinary container."""
    document = json.loads(RENDERED)
    del document["container"]["restartPolicy"]
    return parse_injection(json.dumps({**document, "mode": "classic"}).encode())


def acting(*, keys: bool = True, handle: bool = True, door: bool = False) -> Injection:
    """Return the definition where the platform allows Secrets of ``keys`` and of a ``door``, and the ``handle``."""
    document = json.loads(RENDERED)
    mounts, volumes = document["container"]["volumeMounts"], document["volumes"]
    document["container"]["args"].append("--platform=/etc/sidecar/platform/platform.yaml")
    mounts.insert(2, {"name": "sidecar-platform", "mountPath": "/etc/sidecar/platform", "readOnly": True})
    volumes.insert(2, {"name": "sidecar-platform", "configMap": {"name": "ceiling", "defaultMode": 420}})
    if keys:
        mounts.append({"name": "sidecar-keys", "mountPath": "/var/run/keys", "readOnly": True})
        volumes.append({"name": "sidecar-keys", "secret": {"secretName": "keys", "defaultMode": 288}})
    if handle:
        mounts.append({"name": "sidecar-handle", "mountPath": "/run/sidecar-handle"})
        volumes.append({"name": "sidecar-handle", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    if door:
        mounts.append({"name": "sidecar-door", "mountPath": "/etc/sidecar/door", "readOnly": True})
        volumes.append({"name": "sidecar-door", "secret": {"secretName": "door", "defaultMode": 288}})
        document["container"]["ports"].append({"name": "sidecar-door", "containerPort": 8443, "protocol": "TCP"})
        document["ports"].append(8443)
    return parse_injection(json.dumps(document).encode())


def bare(spec: Mapping[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    """Return a lawful pod of one agent, as a ReplicaSet creates it; ``spec`` and ``metadata`` change members.

    Containers in ``spec`` that name no user have the pod's. The agent has the platform's variable already.
    """
    agent = {"name": "agent", "image": "agent:1", "securityContext": {"runAsUser": 1000}, "env": [OUTBOUND]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "planner-5d9f-",
            "annotations": {"delegation-sidecar.io/settings": "planner"},
            **metadata,
        },
        "spec": {"securityContext": {"runAsUser": 1000}, "containers": [agent], **(spec or {})},
    }


def review(pod: Mapping[str, Any] | None = None, **request: Any) -> dict[str, Any]:
    """Return the API server's review of a pod."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "operation": "CREATE",
            "namespace": "agents",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": bare() if pod is None else pod,
            "dryRun": False,
            **request,
        },
    }


def patched(document: Mapping[str, Any], patch: list[dict[str, Any]]) -> dict[str, Any]:
    """Apply ``add`` and ``move`` of RFC 6902 sections 4.1 and 4.4, the only operations used."""
    result = copy.deepcopy(dict(document))
    for operation in patch:
        if operation["op"] == "move":
            at, last = _place(result, operation["from"])
            value = at.pop(int(last))
        else:
            assert operation["op"] == "add"
            value = copy.deepcopy(operation["value"])
        at, last = _place(result, operation["path"])
        if isinstance(at, list):
            at.insert(len(at) if last == "-" else int(last), value)
        else:
            at[last] = value
    return result


def _place(document: Any, pointer: str) -> tuple[Any, str]:
    *way, last = (part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
    for part in way:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document, last


def statically(spec: Mapping[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    """Return a pod that has the sidecar already; ``changed`` are members of that container, None leaves one out."""
    own = {key: value for key, value in {**injection().container, **changed}.items() if value is not None}
    whole = bare(spec)
    whole["spec"]["initContainers"] = [own, *(whole["spec"].get("initContainers") or [])]
    whole["spec"]["volumes"] = [*injection().volumes_for("planner"), *(whole["spec"].get("volumes") or [])]
    return copy.deepcopy(whole)
