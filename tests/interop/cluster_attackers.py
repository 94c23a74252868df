"""Attackers of the example in pods, and their means; ``cluster_attack`` has the attempts."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from typing import Any, Final

import pytest
import yaml

from tests.interop.cluster_identities import DOMAIN, PARTNER
from tests.interop.cluster_mesh import AGENTS, CARELESS_ID, PODS, USERS, ClusterMesh, Identities, restricted, run
from tests.interop.engine import DEV_IMAGE, ROOT
from tests.interop.kube import IDLE, Object, apply, kubectl

STS_URL: Final = "https://mesh-sts.sidecar.svc:7444"
CARELESS_URL: Final = f"https://careless-sts.{USERS}.svc:7444"
STOLEN: Final = ("front", "planner", "writer", "intruder")
_IDLE: Final = {"intruder": ("intruder", "crm"), "captured": ("writer", "writer"), "careless": ("front", "careless")}
_BROUGHT: Final = ("files", "certificates", "svid")  # each imports only the ones before it
_FETCH: Final = """
import asyncio, json, pathlib, sys, types
sys.modules["sidecar_dev"] = types.ModuleType("sidecar_dev")
for name, source in json.loads(sys.argv[1]).items():
    module = sys.modules["sidecar_dev." + name] = types.ModuleType("sidecar_dev." + name)
    exec(source, module.__dict__)
socket = pathlib.Path("/spiffe-workload-api/spire-agent.sock")
found = asyncio.run(module.fetch(socket, audience=sys.argv[2], timeout_s=10))
files = {"svid.pem": found.chain_pem, "svid_key.pem": found.key_pem, "jwt_svid.token": found.jwt_svid.encode()}
print(json.dumps({name: content.decode() for name, content in files.items()}))
"""
_SCRIPT: Final = ROOT / "tests" / "interop" / "cluster_attack.py"


WHERE: Final = {
    "outsider": (USERS, "caller", "caller"),
    "agent": (AGENTS, "deploy/writer", "agent"),
    "thief": (AGENTS, "deploy/intruder", "agent"),
    "forger": (AGENTS, "deploy/intruder", "agent"),
    "captured": (AGENTS, "deploy/captured", "agent"),
    "careless": (AGENTS, "deploy/careless", "agent"),
}


class Attackers:
    """No network policy blocks them: only sidecars refuse. ``tried`` has the attempts of each so far."""

    def __init__(self, mesh: ClusterMesh) -> None:
        apply(*_pods(mesh.tools))
        at = f"spiffeIDs.workloads[{len(PODS)}]"  # one more than in the example
        intruder = f"{at}.namespace={AGENTS},{at}.serviceAccount=intruder,{at}.images[0]={mesh.tools}"
        mesh.upgrade("--set", "networkPolicy.enabled=false", "--set", f"'{intruder}'")
        for name in _IDLE:
            run(f"kubectl -n {AGENTS} rollout status deployment/{name} --timeout=90s")
        self.tried: dict[str, list[Object]] = {}
        self._identities = mesh.identities
        self._addresses = {name: mesh.pods(name)[0]["status"]["podIP"] for name in PODS}

    def try_all(self, attacker: str) -> list[Object]:
        """Return the results; ``cluster_attack`` describes each attempt."""
        given: dict[str, Any] = {}
        if attacker in ("thief", "forger", "captured"):
            given["svids"] = {name: _stolen_svid(name) for name in STOLEN}  # a JWT-SVID lives five minutes
        if attacker == "forger":
            if self._identities is None:
                pytest.skip("identities are the cluster's own: nobody here has their keys")
            given["svids"] |= _minted_svids(self._identities)
        self.tried[attacker] = _attack(attacker, *WHERE[attacker], pods=self._addresses, **given)
        return self.tried[attacker]

    def leave(self) -> None:
        """Delete them, except the objects that go with their namespace."""
        # with their pods: an upgrade that takes the identity from one that still serves is refused
        run(f"kubectl -n {AGENTS} delete deployment {' '.join(_IDLE)} --cascade=foreground --timeout=90s")
        run(f"kubectl -n {USERS} delete pod careless-sts --wait=false")


def _attack(attacker: str, namespace: str, pod: str, container: str, **given: Any) -> list[Object]:
    words = ["kubectl", "exec", "-i", "-n", namespace, pod, "-c", container, "--", "python3", "-c", _SCRIPT.read_text()]
    tried: list[Object] = []
    with subprocess.Popen([*words, attacker], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as attacking:
        assert attacking.stdin is not None
        assert attacking.stdout is not None
        attacking.stdin.write(json.dumps(given) + "\n")
        attacking.stdin.flush()
        for line in attacking.stdout:
            told = json.loads(line)
            if "elsewhere" not in told:
                tried.append(told)
                continue
            other, workload = told["elsewhere"]
            tried += _attack(other, AGENTS, f"deploy/{workload}", "agent", **told["given"])
            attacking.stdin.write("\n")
            attacking.stdin.flush()
    assert attacking.returncode == 0, (attacker, tried)
    return tried


def _stolen_svid(name: str) -> dict[str, str]:
    """Return a workload's SVID files, which only its own container should have."""
    done = fetched(AGENTS, f"deploy/{name}")
    assert done.returncode == 0, done.stderr
    files: dict[str, str] = json.loads(done.stdout)
    return files


def fetched(namespace: str, pod: str) -> subprocess.CompletedProcess[str]:
    """Return the Workload API's answer to a pod's sidecar: the files of its SVIDs as JSON, or the reason for none.

    The sidecar's image has no such tool: an attacker brings it.
    """
    brought = {name: (ROOT / "dev" / "sidecar_dev" / f"{name}.py").read_text() for name in _BROUGHT}
    words = ("python3", "-c", _FETCH, json.dumps(brought), STS_URL)
    return kubectl("exec", "-n", namespace, pod, "-c", "sidecar", "--", *words)


def served() -> Counter[str]:
    """Count the requests that each workload's agents have received."""
    every = (
        "-l",
        f"app in ({','.join(PODS)})",
        "-c",
        "agent",
        "--prefix",
        "--tail=-1",
        f"--max-log-requests={2 * len(PODS)}",
    )
    done = kubectl("logs", "-n", AGENTS, *every)
    assert done.returncode == 0, done.stderr
    lines = (line for line in done.stdout.splitlines() if ' HTTP/1.1" ' in line)
    return Counter(line.removeprefix("[pod/").partition("-")[0] for line in lines)


def _minted_svids(identities: Identities) -> dict[str, dict[str, str]]:
    """Mint SVIDs by the authorities of two trust domains, for our names and for their own."""
    writer, partner = (f"spiffe://{domain}/ns/{AGENTS}/sa/writer" for domain in (DOMAIN, PARTNER))
    made = {
        f"the writer, by {PARTNER}": identities.mint(writer, PARTNER),
        f"the writer, by {DOMAIN}": identities.mint(writer, DOMAIN),
        f"a partner, by {PARTNER}": identities.mint(partner, PARTNER),
    }
    return {
        title: {"svid.pem": svid.chain_pem.decode(), "svid_key.pem": svid.key_pem.decode()}
        for title, svid in made.items()
    }


def _pods(image: str) -> list[Object]:
    """Return the attackers' pods among the agents: pods with a sidecar, whose own agent does nothing.

    ``intruder`` is a workload from which no call is expected, ``captured`` a second writer, ``careless`` a second front
    app, whose settings name a token service that ignores the actor.
    """
    values = yaml.safe_load((ROOT / "helm" / "example" / "values.yaml").read_text())
    (front,) = (one["settings"] for one in values["workloads"] if one["name"] == "front")
    careless = json.dumps(front).replace(STS_URL, CARELESS_URL).replace(f"{DOMAIN}/sts", f"{DOMAIN}/careless-sts")
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "careless", "namespace": AGENTS}}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "intruder", "namespace": AGENTS}}
    return [
        {**settings, "data": {"sidecar.yaml": careless}},
        account,
        *_careless_sts(),
        *(_idle(name, *of, image) for name, of in _IDLE.items()),
    ]


def _idle(name: str, account: str, settings: str, image: str) -> Object:
    labels = {"app": name}
    spec = {
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "containers": [{"name": "agent", "image": image, "command": IDLE, "securityContext": restricted()}],
    }
    metadata = {"labels": labels, "annotations": {"delegation-sidecar.io/settings": settings}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": AGENTS},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": metadata, "spec": spec}},
    }


def _careless_sts() -> list[Object]:
    """Return a token service with its own identity, outside the mesh: its pod calls the Workload API itself."""
    labels, metadata = {"app": "careless-sts"}, {"name": "careless-sts", "namespace": USERS}
    socket = "/spiffe-workload-api/spire-agent.sock"
    command = ["python3", "-m", "sidecar_dev.careless_sts", "--socket", socket, "--listen", "0.0.0.0:7444"]
    container = {
        "name": "sts",
        "image": DEV_IMAGE,
        "command": [*command, "--issuer", CARELESS_URL],
        "securityContext": restricted(),
        "volumeMounts": [{"name": "api", "mountPath": "/spiffe-workload-api", "readOnly": True}],
    }
    identity = {
        "spiffeIDTemplate": f"spiffe://{DOMAIN}/careless-sts",
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": USERS}},
        "podSelector": {"matchLabels": labels},
        "workloadSelectorTemplates": ["k8s:container-name:sts"],
    }
    return [
        {
            "apiVersion": "spire.spiffe.io/v1alpha1",
            "kind": "ClusterSPIFFEID",
            "metadata": {"name": CARELESS_ID},
            "spec": identity,
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"port": 7444}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**metadata, "labels": labels},
            "spec": {
                "automountServiceAccountToken": False,
                "containers": [container],
                "volumes": [{"name": "api", "csi": {"driver": "csi.spiffe.io", "readOnly": True}}],
            },
        },
    ]
