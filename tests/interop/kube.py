"""A Kubernetes from `kubectl` and KUBECONFIG, and the injector beside its API server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar_dev.pki import TrustDomainAuthority
from tests.integration.world import free_port

PATIENCE_S: Final = 30.0
Object = dict[str, Any]
IDLE: Final = ["python3", "-Ic", "import signal; signal.sigwait([signal.SIGTERM])"]  # the command of an idle container


def missing() -> str | None:
    """Return the reason why there is no cluster to test with, or none whose API server can call us."""
    if shutil.which("kubectl") is None:
        return "kubectl is not on PATH"
    if not os.environ.get("KUBECONFIG"):
        return "KUBECONFIG names no cluster"
    if kubectl("version", "--output=json").returncode:
        return "no Kubernetes answers"
    return None


def kubectl(*words: str, document: Mapping[str, Any] | list[Object] | None = None) -> subprocess.CompletedProcess[str]:
    """Run kubectl; ``document`` is its standard input."""
    stdin = None
    if document is not None:
        stdin = yaml.safe_dump_all(document) if isinstance(document, list) else json.dumps(document)
    return subprocess.run(["kubectl", *words], input=stdin, capture_output=True, text=True, timeout=55, check=False)


def apply(*objects: Object) -> None:
    """Create or change objects, with strict validation."""
    for one in objects:
        done = kubectl("apply", "--server-side", "--force-conflicts", "--validate=strict", "-f", "-", document=one)
        assert done.returncode == 0, done.stderr


def namespace(name: str, **labels: str) -> list[Object]:
    """Create a namespace with the service account of its pods."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}, account]


@cache
def version() -> str:
    """Return the API server's version, such as 1.34.4."""
    found = json.loads(kubectl("version", "--output=json").stdout)["serverVersion"]["gitVersion"]
    return str(found).removeprefix("v").partition("+")[0]


def try_pod(pod: Object, namespace: str) -> tuple[Object | None, str]:
    """Return the pod as the API server would make it, or its error."""
    words = ("create", "--dry-run=server", "--validate=strict", "--output=json", "-n", namespace, "-f", "-")
    done = kubectl(*words, document=pod)
    return (None, done.stderr) if done.returncode else (json.loads(done.stdout), done.stderr)


def wait_for(look: Callable[[], Any], is_it: Callable[[Any], bool]) -> Any:
    """Poll until the condition holds or time is over; return the last value."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_it(found := look()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


class Api:
    """The API server over plain HTTP, through `kubectl proxy`: a hundred requests in the time of ten `kubectl`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(["kubectl", "proxy", "--port=0"], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        said = self._process.stdout.readline()  # Starting to serve on 127.0.0.1:PORT
        self._base = f"http://{said.split()[-1]}"

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate()

    def try_pod(self, pod: Object, namespace: str) -> tuple[Object | None, str]:
        """Return the pod as the API server would make it with its warnings, or the error."""
        return self._ask("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All&fieldValidation=Strict", pod)

    def try_object(self, one: Object) -> tuple[Object | None, str]:
        """Send any object of a built-in kind, created or changed (server-side apply)."""
        group, kind, metadata = one["apiVersion"], one["kind"].lower(), one["metadata"]
        plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
        namespace = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
        path = f"/api{'' if group == 'v1' else 's'}/{group}{namespace}/{plural}/{metadata['name']}"
        options = "?dryRun=All&fieldValidation=Strict&fieldManager=test&force=true"
        return self._ask("PATCH", path + options, one, "application/apply-patch+yaml")

    def _ask(
        self, method: str, path: str, document: Object, content_type: str = "application/json"
    ) -> tuple[Object | None, str]:
        request = urllib.request.Request(
            self._base + path, json.dumps(document).encode(), {"Content-Type": content_type}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer), "\n".join(answer.headers.get_all("Warning") or [])
        except urllib.error.HTTPError as error:
            return None, str(json.load(error)["message"])


class LocalInjector:
    """``sidecar injector`` as a process beside the API server, if that shares our loopback."""

    def __init__(self, folder: Path, injection: str) -> None:
        self.folder, self.port, self.probe = folder, free_port(), free_port()
        authority = TrustDomainAuthority(TrustDomain("acme.example"))
        name = SpiffeId("spiffe://acme.example/injector")
        issued = authority.issue_x509(name, dns_names=["localhost"])
        (folder / "tls.crt").write_bytes(issued.chain_pem)
        (folder / "tls.key").write_bytes(issued.key_pem)
        (folder / "injection.json").write_text(injection)
        self.ca = authority.bundle_pem().decode()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The webhook's URL for the API server."""
        return f"https://localhost:{self.port}/inject"

    def start(self) -> None:
        command = [sys.executable, "-m", "sidecar.cli", "injector", f"--injection={self.folder / 'injection.json'}"]
        command += [f"--tls={self.folder}", f"--listen=127.0.0.1:{self.port}", f"--probe=127.0.0.1:{self.probe}"]
        with (self.folder / "records").open("ab") as records:
            self._process = subprocess.Popen(command, stdout=records, stderr=subprocess.DEVNULL)
        health = [sys.executable, "-m", "sidecar.cli", "healthcheck", f"--probe=127.0.0.1:{self.probe}", "--wait=30"]
        assert subprocess.run(health, check=False).returncode == 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            assert self._process.wait(30) == 0
            self._process = None

    def records(self) -> list[Object]:
        return [json.loads(line) for line in (self.folder / "records").read_text().splitlines()]
