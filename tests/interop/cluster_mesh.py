"""The example of docs/kubernetes.md on a real cluster, installed by the page's five commands.

``kubectl``, ``helm`` and KUBECONFIG select the cluster; the images must be on its nodes as SIDECAR_IMAGE (sidecar:dev)
and SIDECAR_DEV_IMAGE (sidecar-dev:dev), and by their digests, as if pulled by them. CLUSTER_WORKLOAD_API names a folder
of this machine, which must be the node, that the driver csi.spiffe.io mounts: the tests serve the Workload API there,
by a SPIRE of their own if its programs are on PATH, otherwise by a stand-in. Without it the cluster has its own SPIRE
for acme.example.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar_dev.pki import TrustDomainAuthority
from tests.interop import cluster_spire, helm, kube
from tests.interop.cluster_entries import SPACE, SpireIdentities
from tests.interop.cluster_identities import CRD, PARTNER, ClusterIdentities
from tests.interop.engine import DEV_IMAGE, IMAGE, ROOT
from tests.interop.kube import IDLE, Object, apply, kubectl

DOCS: Final = ROOT / "docs" / "kubernetes.md"
SYSTEM: Final = "sidecar"
AGENTS: Final = "agents"
USERS: Final = "sidecar-test-users"  # namespace of the callers, pods like any other
OTHERS: Final = "sidecar-test-others"  # another team's namespace, with sidecars too
PODS: Final = ("front", "planner", "writer", "crm")
CARELESS_ID: Final = "sidecar-test-careless-sts"  # a ClusterSPIFFEID is in no namespace
GRPC: Final = "by-grpc"  # an agent of gRPC that the front app may call
OWN: Final = "app.kubernetes.io/instance=mesh"
_COMMAND_S: Final = 150.0
_CALLER: Final = ROOT / "tests" / "interop" / "cluster_caller.py"
Identities = SpireIdentities | ClusterIdentities


def missing() -> str | None:
    """Return the reason why there is no cluster on which pods can run."""
    lacking = helm.missing() or kube.missing()
    if lacking:
        return lacking
    nodes = json.loads(kubectl("get", "nodes", "-o", "json").stdout)["items"]
    for image in (IMAGE, DEV_IMAGE):
        if not _node_images(nodes).get(_on_node(image)):
            return f"no node of the cluster has {image} by its digest"
    ready = [one for node in nodes for one in node["status"]["conditions"] if one["type"] == "Ready"]
    if not any(one["status"] == "True" for one in ready):
        return "no node of the cluster is ready"
    taken = [
        name
        for name in (SYSTEM, AGENTS, "login", USERS, OTHERS, SPACE)
        if kubectl("get", "namespace", name).returncode == 0
    ]
    return f"the cluster has namespaces {', '.join(taken)} already" if taken else None


def _node_images(nodes: list[Object]) -> dict[str, str]:
    """Return the nodes' images: each name with a name of the same image by digest."""
    found = {}
    for image in (image for node in nodes for image in node["status"].get("images", ())):
        digests = [name for name in image["names"] if "@sha256:" in name]
        found.update({name: digests[0] for name in image["names"] if digests})
    return found


def _on_node(image: str) -> str:
    """Return a name as nodes write it: without a registry it is Docker Hub's."""
    first, slash, _ = image.partition("/")
    if not slash:
        return f"docker.io/library/{image}"
    return image if "." in first or ":" in first or first == "localhost" else f"docker.io/{image}"


def by_digest(image: str) -> str:
    """Return the same image by its digest, REGISTRY/NAME@sha256:…"""
    nodes = json.loads(kubectl("get", "nodes", "-o", "json").stdout)["items"]
    return _node_images(nodes)[_on_node(image)]


def image_values(image: str) -> str:
    """Return the chart's values for an image by its digest."""
    repository, _, digest = image.partition("@")
    return f"sidecar.image.repository={repository},sidecar.image.digest={digest}"


def five_commands() -> list[str]:
    """Return the commands of the docs, without their comments."""
    return [line.partition("  #")[0].strip() for line in commands_of("Five commands")[0]]


def what_to_try() -> list[tuple[str, list[str]]]:
    """Return the section's other commands, each with parts of its documented output."""
    found: list[tuple[str, list[str]]] = []
    for line in (line for block in commands_of("Five commands")[1:] for line in block):
        if line.startswith("  "):
            found[-1][1].extend(part for part in line.strip().split("…") if part)
        else:
            found.append((line, []))
    return found


def commands_of(title: str) -> list[list[str]]:
    """Return the code blocks of a section of the docs, line by line."""
    section = DOCS.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    return [block.strip("\n").splitlines() for block in section.split("```")[1::2]]


def run(command: str, folder: Path = ROOT) -> str:
    """Run one line of a shell; return its standard output."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_COMMAND_S,
        check=False,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


class ClusterMesh:
    """The release ``mesh``, the example's agents, and a pod of callers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "helm").mkdir()
        for part in ("sidecar", "sidecar-lib"):
            (folder / "helm" / part).symlink_to(ROOT / "helm" / part)
        shutil.copytree(ROOT / "helm" / "example", folder / "helm" / "example")
        self._let_front_call_by_grpc()
        self.image = by_digest(IMAGE)
        self.tools = by_digest(DEV_IMAGE)  # the image of the agents
        self.identities = self._identities()
        self.values = self._certificate()
        if self.identities is not None:
            self.values += f" --set 'spiffeIDs.federatesWith={{{PARTNER}}}'"
        self.values += " --set injector.allowKeys=true,injector.allowWorkloadHandle=true"

    def _let_front_call_by_grpc(self) -> None:
        """Turn HTTP/2 on in the front app's sidecar, as docs/http2.md says, with a route beside that of the example."""
        file = self.folder / "helm" / "example" / "values.yaml"
        values = yaml.safe_load(file.read_text())
        (settings,) = (one["settings"] for one in values["workloads"] if one["name"] == "front")
        (planner,) = settings["outbound"]["routes"]
        settings["protocols"] = {"http2": True}
        by_grpc = {
            "name": GRPC,
            "match": {"prefix": "/"},
            "protocol": "grpc",
            "operations": [{"allow": ["demo.Plan/*"]}],
            "upstream": f"https://{GRPC}:7443",
        }
        settings["outbound"]["routes"].append(planner | by_grpc)
        settings["entry"]["may_call"].append(GRPC)
        file.write_text(yaml.safe_dump(values))

    def _identities(self) -> Identities | None:
        served = os.environ.get("CLUSTER_WORKLOAD_API")
        if not served:
            return None
        if cluster_spire.missing():
            return ClusterIdentities(Path(served))
        return SpireIdentities(Path(served), self.tools, self.folder / "spire")

    def _certificate(self) -> str:
        """Return the options for our own certificate, without cert-manager."""
        if kubectl("get", "crd", "certificates.cert-manager.io").returncode == 0:
            return ""
        authority = TrustDomainAuthority(TrustDomain("acme.example"))
        name = SpiffeId("spiffe://acme.example/injector")
        issued = authority.issue_x509(name, dns_names=["mesh-injector.sidecar.svc"])
        (self.folder / "tls.crt").write_bytes(issued.chain_pem)
        (self.folder / "tls.key").write_bytes(issued.key_pem)
        (self.folder / "ca.pem").write_bytes(authority.bundle_pem())
        tls = "injector.tls.certManager.enabled=false,injector.tls.secretName=injector-tls"
        return f"--set {tls} --set-file injector.tls.caBundle=ca.pem"

    def up(self) -> None:
        """Run the commands after the first, which only provides images."""
        if self.identities is not None:
            apply(dict(CRD))
            run("kubectl wait --for=condition=Established --timeout=30s crd/clusterspiffeids.spire.spiffe.io")
            self.identities.start()
        _, namespaces, keys, install, agents = five_commands()
        self.run(namespaces)
        self.run(keys)
        apply(*_caller())
        if "secretName=injector-tls" in self.values:
            self.run(f"kubectl -n {SYSTEM} create secret tls injector-tls --cert=tls.crt --key=tls.key")
        self.run(f"{install} {self.values}")
        self.run(agents)
        self.wait()
        run(f"kubectl -n {USERS} wait --for=condition=Ready pod/caller --timeout=60s")

    def wait(self) -> None:
        """Wait until every pod of the example is ready, and no other."""
        for namespace in (AGENTS, "login"):
            for name in PODS if namespace == AGENTS else ("login",):
                run(f"kubectl -n {namespace} rollout status deployment/{name} --timeout=90s")

    def run(self, command: str) -> str:
        """Run a command in the folder, after the first of the five, which sets ``image`` and ``tools``."""
        return run(f"image={self.image} tools={self.tools}; {command}", self.folder)

    def upgrade(self, *options: str) -> None:
        """Run the fourth command again, as an upgrade."""
        install = five_commands()[3].replace("helm install", "helm upgrade")
        self.run(f"{install} {self.values} {' '.join(options)} --timeout 120s")

    def restart_agents(self) -> None:
        """Replace every pod, and wait until the old ones are gone."""
        old = [pod["metadata"]["name"] for name in PODS for pod in self.pods(name)]
        run(f"kubectl -n {AGENTS} rollout restart {' '.join(f'deployment/{name}' for name in PODS)}")
        self.wait()
        run(f"kubectl -n {AGENTS} wait --for=delete --timeout=90s {' '.join(f'pod/{name}' for name in old)}")

    def down(self) -> None:
        for namespace in (AGENTS, "login", USERS, OTHERS):
            kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")
        self.run("helm uninstall mesh -n sidecar --ignore-not-found --wait")
        kubectl("delete", "namespace", SYSTEM, "--ignore-not-found", "--wait=false")
        kubectl("delete", "clusterspiffeid", "login", CARELESS_ID, "--ignore-not-found")
        if self.identities is not None:
            self.identities.stop()

    # --- calls

    def ask(self, **question: str) -> Object:
        """Send a user's question from a pod outside the mesh; return ``{status, body}``."""
        return self._call("ask", json.dumps(question))

    def get(self, url: str) -> Object:
        """Return the answer that a pod outside the mesh gets there."""
        return self._call("get", url)

    def _call(self, *words: str) -> Object:
        done = kubectl("exec", "-n", USERS, "caller", "--", "python3", "-Ic", _CALLER.read_text(), *words)
        assert done.returncode == 0, done.stderr
        answer: Object = json.loads(done.stdout)
        return answer

    @contextmanager
    def load(self, rate: int = 5, *, at_least: int = 20) -> Iterator[list[Object]]:
        """Run a constant load while the body runs, with at least this many calls; the list gets the answers."""
        told: list[Object] = []
        words = ["kubectl", "exec", "-i", "-n", USERS, "caller", "--", "python3", "-uIc", _CALLER.read_text(), "load"]
        with subprocess.Popen([*words, str(rate)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as calling:
            assert calling.stdin is not None
            assert calling.stdout is not None
            try:
                assert calling.stdout.readline().startswith("{"), "the first call got no answer"
                yield told
                told += [json.loads(calling.stdout.readline()) for _ in range(at_least)]
            finally:
                calling.stdin.close()
                told += [json.loads(line) for line in calling.stdout]
        assert calling.returncode == 0

    def records(self, name: str) -> list[Object]:
        """Return the records of every sidecar of a workload, or of the token service."""
        where = (
            (SYSTEM, "app.kubernetes.io/component=sts", "sts") if name == "sts" else (AGENTS, f"app={name}", "sidecar")
        )
        done = kubectl("logs", "-n", where[0], "-l", where[1], "-c", where[2], "--tail=-1")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"event"')]

    def pods(self, name: str) -> list[Object]:
        """Return a workload's pods that are not terminating."""
        found = json.loads(kubectl("get", "pods", "-n", AGENTS, "-l", f"app={name}", "-o", "json").stdout)["items"]
        return [one for one in found if "deletionTimestamp" not in one["metadata"]]


def restricted(uid: int = 1000) -> Mapping[str, Any]:
    return {
        "runAsUser": uid,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _caller() -> list[Object]:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    container = {"name": "caller", "image": DEV_IMAGE, "command": IDLE, "securityContext": restricted()}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": USERS, "labels": labels}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": USERS}},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "caller", "namespace": USERS},
            "spec": {"automountServiceAccountToken": False, "containers": [container]},
        },
    ]
