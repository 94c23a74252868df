"""compose.spire.yaml: the mesh on a real engine, with identities of a real SPIRE by image, project and service."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.interop.engine import DEV_IMAGE, IMAGE, ROOT, Mesh, missing, require, wait_for

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

SPIRE_IMAGES = {
    part: os.environ.get(f"SPIRE_{part.upper()}_IMAGE", f"ghcr.io/spiffe/spire-{part}:1.13.3")
    for part in ("server", "agent")
}
SETUP_IMAGE = os.environ.get("SPIRE_SETUP_IMAGE", "spire-setup:dev")
FETCH = ("dev", "svid", "--socket", "/run/workload/api.sock", "--out", "/tmp", "--timeout")
REFUSED = "no identity issued"


def lacking() -> str | None:
    if why := missing():
        return why
    for image in (*SPIRE_IMAGES.values(), SETUP_IMAGE):
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
            return f"there is no image {image}"
    return None


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    require(lacking())
    mesh = Mesh("meshspire", ROOT / "compose.spire.yaml")
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    mesh.environ |= {"DOCKER_SOCKET": host.removeprefix("unix://")}
    try:
        mesh.up()
        yield mesh
    finally:
        mesh.down()


def server(mesh: Mesh, *words: str) -> str:
    socket = ("-socketPath", "/run/spire/server/api.sock")
    return mesh.compose("exec", "--no-TTY", "spire-server", "/opt/spire/bin/spire-server", *words, *socket)


def fetch(mesh: Mesh, *, image: str, project: str, service: str, patience: tuple[int, ...]) -> tuple[int, str]:
    """Ask SPIRE for an identity in a container with this image and these labels; return the exit code and stderr.

    The command asks again after a refusal, until its time is up: the shortest time that brings an answer is enough.
    """
    command = ["docker", "run", "--rm", "--network", "none", "--user", "65532:65532", "--tmpfs", "/tmp:mode=1777"]
    command += ["--label", f"com.docker.compose.project={project}", "--label", f"com.docker.compose.service={service}"]
    command += ["--volume", f"{mesh.name}_spire-sockets:/run/workload:ro", image, *FETCH]
    for timeout_s in patience:
        done = subprocess.run([*command, str(timeout_s)], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode == 0 or REFUSED in done.stderr:
            break
    return done.returncode, done.stderr


def test_three_agents_answer_and_each_hop_is_attributed(mesh: Mesh) -> None:
    mesh.wait_for_the_chain()
    record = next(one for one in reversed(mesh.records("crm-sidecar")) if one["event"] == "request")
    assert record["peer"] == "spiffe://acme.example/agent/writer"
    assert record["chain"] == [f"spiffe://acme.example/agent/{name}" for name in ("writer", "planner", "front")]
    assert record["subject"] == "alice"


def test_no_other_container_gets_an_identity_from_the_same_socket(mesh: Mesh) -> None:
    code, output = wait_for(
        lambda: mesh.attack("stowaway"), lambda attacked: attacked[0] != 1 or REFUSED in attacked[1]
    )
    assert (code, REFUSED in output) == (1, True), output


@pytest.mark.parametrize(
    ("image", "project", "service", "code"),
    [
        pytest.param(DEV_IMAGE, "meshspire", "login", 0, id="lawful"),
        pytest.param(DEV_IMAGE, "meshspire", "writer-sidecar", 1, id="another-image"),
        pytest.param(DEV_IMAGE, "another", "login", 1, id="another-project"),
        pytest.param(DEV_IMAGE, "meshspire", "writer-agent", 1, id="another-service"),
    ],
)
def test_an_identity_needs_image_project_and_service(
    mesh: Mesh, image: str, project: str, service: str, code: int
) -> None:
    assert IMAGE != DEV_IMAGE
    patience = (2, 20, 60) if code else (60,)  # an identity is written at once, a refusal is repeated to the end
    done, stderr = fetch(mesh, image=image, project=project, service=service, patience=patience)
    assert (done, REFUSED in stderr) == (code, code == 1), stderr


def test_an_agent_that_has_the_writers_network_gets_nowhere(mesh: Mesh) -> None:
    code, output = mesh.attack("agent")
    assert code == 0, output


@pytest.mark.parametrize("service", ["identity", "spire-server", "writer-sidecar"])
def test_the_mesh_outlives_a_restart(mesh: Mesh, service: str) -> None:
    mesh.compose("restart", service)
    mesh.wait_for_the_chain()


def test_up_again_registers_what_was_deleted_and_nothing_twice(mesh: Mesh) -> None:
    before = server(mesh, "entry", "count")
    server(mesh, "entry", "delete", "-entryID", "crm-sidecar")
    assert wait_for(lambda: mesh.ask(), lambda answer: answer.status != 200).status != 200
    mesh.up()
    mesh.wait_for_the_chain()
    assert server(mesh, "entry", "count") == before
