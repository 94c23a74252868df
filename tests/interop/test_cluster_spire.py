"""SPIRE's Kubernetes attestors on a real cluster: a node by its token; workloads by account, container and image.

CLUSTER_WORKLOAD_API and the images are those of ``cluster_mesh.py``.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from tests.interop.cluster_mesh import by_digest
from tests.interop.cluster_spire import account, install_agent, on_the_node, remove_agent, shown
from tests.interop.cluster_spire import missing as missing_programs
from tests.interop.engine import DEV_IMAGE, require
from tests.interop.kube import IDLE, Object, apply, kubectl, missing, namespace
from tests.interop.spire import Spire

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

SPACES: Final = ("sidecar-test-spire", "sidecar-test-spire-other")  # the second one is another team's
SOCKET: Final = "spire.sock"
REFUSED: Final = "no identity issued"


def lacking() -> str | None:
    if why := missing():
        return why
    if "CLUSTER_WORKLOAD_API" not in os.environ:
        return "CLUSTER_WORKLOAD_API names no folder that the cluster's CSI driver mounts"
    return missing_programs()


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


@pytest.fixture
async def spire() -> AsyncIterator[Spire]:
    require(lacking())
    try:
        install_agent(SPACES[0], by_digest(DEV_IMAGE))
        apply(*namespace(SPACES[1]), *(account(space, one) for space in SPACES for one in ("writer", "other")))
        apply(
            pod(SPACES[0], "writer", "writer", "sidecar", "agent"),
            pod(SPACES[0], "other", "other", "sidecar"),
            pod(SPACES[1], "writer", "writer", "sidecar"),
        )
        for space in SPACES:
            done = kubectl("wait", "-n", space, "--for=condition=Ready", "pod", "--all", "--timeout=50s")
            assert done.returncode == 0, done.stderr
        with tempfile.TemporaryDirectory(prefix="spire-") as name:
            socket = Path(os.environ["CLUSTER_WORKLOAD_API"]) / SOCKET
            async with on_the_node(Path(name), SPACES[0], socket) as running:
                yield running
    finally:
        for space in SPACES:
            remove_agent(space)


def fetch(space: str, name: str, container: str, *patience: str) -> tuple[int, str]:
    """Ask for an identity in a container, once more if no answer came in time; return the exit code and the output."""
    ask = ("python3", "-m", "sidecar.cli", "dev", "svid", "--socket", f"/spiffe-workload-api/{SOCKET}")
    for timeout_s in patience:
        done = kubectl("exec", "-n", space, name, "-c", container, "--", *ask, "--out", "/tmp", "--timeout", timeout_s)
        if done.returncode == 0 or REFUSED in done.stdout + done.stderr:
            break
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
            (SPACES[0], "writer", "sidecar", "40"),
            (SPACES[0], "writer", "agent", "5", "40"),  # asked until the time is up: a busy machine needs more
            (SPACES[0], "other", "sidecar", "5", "40"),
            (SPACES[1], "writer", "sidecar", "5", "40"),
        )
    ]
    assert first[0] == 0, first
    assert [(code, REFUSED in said) for code, said in others] == [(1, True)] * 3, others
