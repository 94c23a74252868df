"""Who attacks the example from a pod, and what each has; ``cluster_attack`` is what they try."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.interop.cluster_mesh import AGENTS, IDLE, PODS, ClusterMesh, restricted, run
from tests.interop.engine import IMAGE, ROOT
from tests.interop.kube import Object, apply, kubectl

STS_URL: Final = "https://mesh-sts.sidecar.svc:7444"
_SCRIPT: Final = ROOT / "tests" / "interop" / "cluster_attack.py"


def attack(mesh: ClusterMesh, attacker: str, namespace: str, pod: str, container: str, **given: Any) -> list[Object]:
    """What an attacker in that container tried; ``cluster_attack`` says what each attempt tells."""
    pods = {name: mesh.pods(name)[0]["status"]["podIP"] for name in PODS}
    words = ("exec", "-i", "-n", namespace, pod, "-c", container, "--", "python3", "-c", _SCRIPT.read_text())
    done = kubectl(*words, attacker, document={"pods": pods, **given})
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def stolen_svid(name: str) -> dict[str, str]:
    """What a workload's sidecar is given, as files; nobody but its own container can have it."""
    script = (
        "import asyncio, json, pathlib, sidecar.dev.svid as s;"
        "f = s.fetch(pathlib.Path('/spiffe-workload-api/spire-agent.sock'), audience='%s', timeout_s=10);"
        "f = asyncio.run(f);"
        "print(json.dumps({'svid.pem': f.chain_pem.decode(), 'svid_key.pem': f.key_pem.decode(),"
        " 'jwt_svid.token': f.jwt_svid}))"
    )
    done = kubectl("exec", "-n", AGENTS, f"deploy/{name}", "-c", "sidecar", "--", "python3", "-c", script % STS_URL)
    assert done.returncode == 0, done.stderr
    files: dict[str, str] = json.loads(done.stdout)
    return files


def served(name: str) -> int:
    """How many requests a workload's agents have been given."""
    return sum(
        ' HTTP/1.1" ' in line
        for line in kubectl("logs", "-n", AGENTS, "-l", f"app={name}", "-c", "agent", "--tail=-1").stdout.splitlines()
    )


def intruder() -> None:
    """A workload of the same namespace, with a sidecar and an identity, of which nobody expects a call."""
    labels = {"app": "intruder"}
    spec = {
        "serviceAccountName": "intruder",
        "automountServiceAccountToken": False,
        "containers": [{"name": "agent", "image": IMAGE, "command": IDLE, "securityContext": restricted()}],
    }
    template = {
        "metadata": {"labels": labels, "annotations": {"delegation-sidecar.io/settings": "crm"}},
        "spec": spec,
    }
    metadata = {"name": "intruder", "namespace": AGENTS}
    apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        },
    )
    run(f"kubectl -n {AGENTS} rollout status deployment/intruder --timeout=90s")
