"""Pods as the API server shows them, the chart's definition, and a patch applied as the API server applies it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sidecar.injector.injection import Injection, parse_injection

RENDERED: Final = (Path(__file__).parent / "injection.json").read_bytes()  # tests/chart holds it to what Helm renders


def injection(**changed: Any) -> Injection:
    """The chart's definition, with some of its members changed."""
    return parse_injection(json.dumps({**json.loads(RENDERED), **changed}).encode())


def classic() -> Injection:
    """The same as an ordinary container."""
    document = json.loads(RENDERED)
    del document["container"]["restartPolicy"]
    return parse_injection(json.dumps({**document, "mode": "classic"}).encode())


def bare(spec: Mapping[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    """A lawful pod of one agent, as a ReplicaSet asks for it; ``spec`` and ``metadata`` change members."""
    agent = {"name": "agent", "image": "agent:1", "securityContext": {"runAsUser": 1000}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "planner-5d9f-",
            "annotations": {"delegation-sidecar.io/settings": "planner"},
            **metadata,
        },
        "spec": {"containers": [agent], **(spec or {})},
    }


def review(pod: Mapping[str, Any] | None = None, **request: Any) -> dict[str, Any]:
    """The API server's question about a pod."""
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
    """``add`` of RFC 6902 section 4.1, which is all that we use."""
    result = copy.deepcopy(dict(document))
    for operation in patch:
        assert operation["op"] == "add"
        *way, last = (part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:])
        at: Any = result
        for part in way:
            at = at[int(part)] if isinstance(at, list) else at[part]
        if isinstance(at, list):
            at.insert(len(at) if last == "-" else int(last), operation["value"])
        else:
            at[last] = operation["value"]
    return result
