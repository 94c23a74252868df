"""SPIRE beside the cluster's node: its attestors know the node by the token of a pod, and pods by the kubelet.

The programs run where the tests do, with the files of config/spire. KUBECONFIG is that of ``cluster_mesh.py``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from tests.interop.kube import IDLE, Object, apply, kubectl, namespace
from tests.interop.spire import Spire
from tests.interop.spire import missing as missing_programs

AGENT: Final = "spire-agent"  # its pod and its ServiceAccount
_RBAC: Final = "rbac.authorization.k8s.io"


def missing() -> str | None:
    return f"not on PATH: {', '.join(missing_programs())}" if missing_programs() else None


def account(space: str, name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": space}}


def shown(*words: str) -> Any:
    done = kubectl("get", *words, "-o", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def install_agent(space: str, image: str) -> None:
    """Create the agent's part of the cluster: a namespace, a ServiceAccount that may read the node's pods, a pod."""
    container = {"name": "agent", "image": image, "command": IDLE, "imagePullPolicy": "IfNotPresent"}
    spec = {"serviceAccountName": AGENT, "terminationGracePeriodSeconds": 0, "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": AGENT, "namespace": space}, "spec": spec}
    apply(*namespace(space), account(space, AGENT), *_may_ask_the_kubelet(space), pod)
    done = kubectl("wait", "-n", space, "--for=condition=Ready", f"pod/{AGENT}", "--timeout=50s")
    assert done.returncode == 0, done.stderr


def remove_agent(space: str) -> None:
    kubectl("delete", "namespace", space, "--ignore-not-found", "--wait=false")
    for kind in ("clusterrole", "clusterrolebinding"):
        kubectl("delete", kind, space, "--ignore-not-found")


def _may_ask_the_kubelet(space: str) -> list[Object]:
    """Return the right to read the pods of a node, for the agent's ServiceAccount."""
    rule = {"apiGroups": [""], "resources": ["nodes/proxy", "nodes/pods"], "verbs": ["get"]}
    subject = {"kind": "ServiceAccount", "name": AGENT, "namespace": space}
    role = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": space}
    return [
        {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": space}, "rules": [rule]},
        {
            "apiVersion": f"{_RBAC}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": space}, "roleRef": role,
            "subjects": [subject],
        },
    ]  # fmt: skip


def on_the_node(folder: Path, space: str, socket: Path, *, partner: str = "nobody.example") -> Spire:
    """Return a SPIRE for acme.example whose agent, installed in ``space``, attests this node and its pods."""
    (node,) = shown("nodes")["items"]
    (address,) = [one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"]
    os.environ["MY_NODE_NAME"] = address  # where the kubelet is
    uid = shown("pod", AGENT, "-n", space)["metadata"]["uid"]
    bound = ("--bound-object-kind", "Pod", "--bound-object-name", AGENT, "--bound-object-uid", uid)
    _token(space, folder / "node-token", "--audience", "spire-server", *bound)
    _token(space, folder / "kubelet-token")
    allowed = f'service_account_allow_list = ["{space}:{AGENT}"] kube_config_file = "{os.environ["KUBECONFIG"]}"'
    running = Spire(
        folder,
        "acme.example",
        partner=partner,
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


def _token(space: str, path: Path, *words: str) -> None:
    done = kubectl("create", "token", AGENT, "-n", space, "--duration", "1h", *words)
    assert done.returncode == 0, done.stderr
    path.write_text(done.stdout.strip())
