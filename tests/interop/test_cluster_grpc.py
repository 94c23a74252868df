"""gRPC from pod to pod on a real kubelet, as docs/http2.md says: by settings, an exec probe, an ordinary Service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.interop.cluster_mesh import AGENTS, GRPC, ClusterMesh, restricted, run
from tests.interop.engine import ROOT
from tests.interop.kube import apply, kubectl, wait_for

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

PROGRAM: Final = (Path(__file__).parent / "cluster_grpc.py").read_text()


@pytest.fixture
def mesh(mesh_on_cluster: ClusterMesh) -> Iterator[ClusterMesh]:
    """Run an agent of gRPC with the planner's identity, beside the example."""
    values = yaml.safe_load((ROOT / "helm" / "example" / "values.yaml").read_text())
    (settings,) = (one["settings"] for one in values["workloads"] if one["name"] == "planner")
    (route,) = settings["inbound"]["routes"]
    for name in ("probe", "outbound", "exchange"):
        del settings[name]
    del route["may_call"]
    settings["protocols"] = {"http2": True, "agent": "h2c"}
    route |= {"match": {"path_prefix": "/"}, "protocol": "grpc", "operations": [{"allow": ["demo.Plan/Make"]}]}
    meta, labels = {"name": GRPC, "namespace": AGENTS}, {"app": GRPC}
    agent = {
        "name": "agent",
        "image": mesh_on_cluster.tools,
        "command": ["python3", "-c", PROGRAM, "serve"],
        "readinessProbe": {
            "exec": {"command": ["python3", "-c", PROGRAM, "health"]}, "periodSeconds": 1, "timeoutSeconds": 5
        },
        "securityContext": restricted(),
    }  # fmt: skip
    annotations = {"delegation-sidecar.io/settings": GRPC}
    spec = {"serviceAccountName": "planner", "automountServiceAccountToken": False, "containers": [agent]}
    service = {"selector": labels, "ports": [{"port": 7443}]}
    plain = yaml.safe_dump(json.loads(json.dumps(settings)))  # without references
    apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"sidecar.yaml": plain}},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec},
            },
        },
    )  # fmt: skip
    try:
        run(f"kubectl -n {AGENTS} rollout status deployment/{GRPC} --timeout=90s")
        yield mesh_on_cluster
    finally:
        run(f"kubectl -n {AGENTS} delete deployment,service,configmap {GRPC} --wait=false")


def test_a_call_of_grpc_is_served_for_its_user_and_refused_otherwise(mesh: ClusterMesh) -> None:
    words = ("exec", "-n", AGENTS, "deploy/front", "-c", "agent", "--", "python3", "-c", PROGRAM, "call")
    done = kubectl(*words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        f"alice spiffe://acme.example/ns/{AGENTS}/sa/front plan",
        "PERMISSION_DENIED the route does not allow this operation (operation_refused)",
        "PERMISSION_DENIED the call has no handle of a request in progress (no_request_context)",
    ]
    records = wait_for(
        lambda: [one for one in mesh.records(GRPC) if one["event"] == "request"], lambda found: len(found) > 1
    )
    assert [(one["op"], one["decision"], one["reason"], one["subject"]) for one in records] == [
        ("/demo.Plan/Make", "allow", "ok", "alice"),
        ("other", "deny", "operation_refused", "alice"),
    ]
