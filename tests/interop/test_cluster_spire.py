"""SPIRE's Kubernetes attestors on a real cluster: a node by its token; workloads by account, container and image.

The programs run beside the node, as the tests do, with the files of config/spire; the node is attested by a token that
is bound to a pod. CLUSTER_WORKLOAD_API and the images are those of ``cluster_mesh.py``.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.interop.cluster_mesh import IDLE, by_digest
from tests.interop.engine import DEV_IMAGE, require
from tests.interop.kube import Object, apply, kubectl, missing, namespace
from tests.interop.spire import Spire
from tests.interop.spire import missing as missing_programs

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

SPACES: Final = ("sidecar-test-spire", "sidecar-test-spire-other")  # the second one is another team's
SOCKET: Final = "spire.sock"


def lacking() -> str | None:
    if why := missing():
        return why
    if "CLUSTER_WORKLOAD_API" not in os.environ:
        return "CLUSTER_WORKLOAD_API names no folder that the cluster's CSI driver mounts"
    return f"not on PATH: {', '.join(missing_programs())}" if missing_programs() else None


def pod(space: str, name: str, account: str, *containers: str) -> Object:
    mounted = {"name": "spiffe-workload-api", "mountPath": "/spiffe-workload-api", "readOnly": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space},
        "spec": {
            "serviceAccountName": account,
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": one, "image": by_digest(DEV_IMAGE), "command": IDLE, "imagePullPolicy": "IfNotPresent",
                    "volumeMounts": [mounted],
                }
                for one in containers
            ],
            "volumes": [{"name": "spiffe-workload-api", "csi": {"driver": "csi.spiffe.io", "readOnly": True}}],
        },
    }  # fmt: skip


def account(space: str, name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": space}}


def shown(*words: str) -> Any:
    done = kubectl("get", *words, "-o", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def may_ask_the_kubelet() -> list[Object]:
    """Return what the agent's ServiceAccount needs to read the pods of its node."""
    group, name = "rbac.authorization.k8s.io", "sidecar-test-spire"
    rule = {"apiGroups": [""], "resources": ["nodes/proxy", "nodes/pods"], "verbs": ["get"]}
    subject = {"kind": "ServiceAccount", "name": "spire-agent", "namespace": SPACES[0]}
    role = {"apiGroup": group, "kind": "ClusterRole", "name": name}
    return [
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": [rule]},
        {
            "apiVersion": f"{group}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name}, "roleRef": role,
            "subjects": [subject],
        },
    ]  # fmt: skip


def token(path: Path, *words: str) -> None:
    done = kubectl("create", "token", "spire-agent", "-n", SPACES[0], "--duration", "1h", *words)
    assert done.returncode == 0, done.stderr
    path.write_text(done.stdout.strip())


@pytest.fixture
async def spire() -> AsyncIterator[Spire]:
    require(lacking())
    for space in SPACES:
        apply(*namespace(space), *(account(space, one) for one in ("spire-agent", "writer", "other")))
    apply(*may_ask_the_kubelet())
    apply(
        pod(SPACES[0], "spire-agent", "spire-agent", "agent"),
        pod(SPACES[0], "writer", "writer", "sidecar", "agent"),
        pod(SPACES[0], "other", "other", "sidecar"),
        pod(SPACES[1], "writer", "writer", "sidecar"),
    )
    try:
        for space in SPACES:
            done = kubectl("wait", "-n", space, "--for=condition=Ready", "pod", "--all", "--timeout=50s")
            assert done.returncode == 0, done.stderr
        with tempfile.TemporaryDirectory(prefix="spire-") as name:
            async with on_the_node(Path(name)) as running:
                yield running
    finally:
        for space in SPACES:
            kubectl("delete", "namespace", space, "--ignore-not-found", "--wait=false")
        for kind in ("clusterrole", "clusterrolebinding"):
            kubectl("delete", kind, "sidecar-test-spire", "--ignore-not-found")


def on_the_node(folder: Path) -> Spire:
    """Return a SPIRE whose agent attests this node and its pods."""
    (node,) = shown("nodes")["items"]
    (address,) = [one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"]
    os.environ["MY_NODE_NAME"] = address  # where the kubelet is
    uid = shown("pod", "spire-agent", "-n", SPACES[0])["metadata"]["uid"]
    bound = ("--bound-object-kind", "Pod", "--bound-object-name", "spire-agent", "--bound-object-uid", uid)
    token(folder / "node-token", "--audience", "spire-server", *bound)
    token(folder / "kubelet-token")
    allowed = (
        f'service_account_allow_list = ["{SPACES[0]}:spire-agent"] kube_config_file = "{os.environ["KUBECONFIG"]}"'
    )
    socket = Path(os.environ["CLUSTER_WORKLOAD_API"]) / SOCKET
    running = Spire(
        folder,
        "acme.example",
        agent_file="agent-kubernetes.conf",
        agent_socket=socket,
        changes={
            'NodeAttestor "join_token" { plugin_data {} }': (
                f'NodeAttestor "k8s_psat" {{ plugin_data {{ clusters = {{ "production" = {{ {allowed} }} }} }} }}'
            ),
            'cluster = "production"': f'cluster = "production" token_path = "{folder}/node-token"',
            '"spire-server.spire"': '"127.0.0.1"',
            "/run/spire/bundle/bundle.crt": f"{folder}/bundle.pem",
            "/run/spire/sockets/spire-agent.sock": str(socket),
            # A kubelet of this cluster has a certificate of its own.
            "skip_kubelet_verification = false": (
                f'skip_kubelet_verification = true token_path = "{folder}/kubelet-token"'
            ),
        },
    )
    running.node = f"spiffe://acme.example/spire/agent/k8s_psat/production/{node['metadata']['uid']}"
    return running


def fetch(space: str, name: str, container: str) -> tuple[int, str]:
    """Ask for an identity in a container; return the exit code and what was said."""
    ask = ("python3", "-m", "sidecar.cli", "dev", "svid", "--socket", f"/spiffe-workload-api/{SOCKET}")
    done = kubectl("exec", "-n", space, name, "-c", container, "--", *ask, "--out", "/tmp", "--timeout", "5")
    return done.returncode, done.stdout + done.stderr


async def test_the_sidecars_container_alone_gets_the_identity(spire: Spire) -> None:
    """Refused beside it: its pod's other container, another image, an account of its name in another namespace."""
    statuses = shown("pod", "writer", "-n", SPACES[0])["status"]["containerStatuses"]
    (image,) = [one["imageID"] for one in statuses if one["name"] == "sidecar"]
    another = f"registry.example/other@sha256:{'0' * 64}"
    for sa, digest in (("other", another), ("writer", image)):
        selectors = (f"ns:{SPACES[0]}", f"sa:{sa}", "container-name:sidecar", f"container-image:{digest}")
        await spire.register(f"spiffe://acme.example/{sa}", *(f"k8s:{one}" for one in selectors))

    first, *others = [
        await asyncio.to_thread(fetch, *asked)  # the lawful one waits until the entries have arrived
        for asked in (
            (SPACES[0], "writer", "sidecar"),
            (SPACES[0], "writer", "agent"),
            (SPACES[0], "other", "sidecar"),
            (SPACES[1], "writer", "sidecar"),
        )
    ]
    assert first[0] == 0, first
    assert [(code, "no identity issued" in said) for code, said in others] == [(1, True)] * 3, others
