"""The image, inspected from outside, and run as intended."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Final

import pytest

from tests.interop.engine import DEV_IMAGE, IMAGE, docker, missing, require, wait_for

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

DISTROLESS: Final = os.environ.get("SIDECAR_IMAGE_DISTROLESS", "sidecar:dev-distroless")
CONFINED: Final = (
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=128m",
    "--pids-limit=64",
)
MAX_ADDED: Final = 95 * 1024 * 1024  # our layers on a base, uncompressed
SHELLS: Final = {"sh", "bash", "dash", "busybox", "ash", "zsh"}
INSTALLERS: Final = {"pip", "pip3", "apt", "apt-get", "dpkg", "apk", "gcc", "cc", "wget", "curl"}
SETTINGS: Final = """
identity: {files: {layout: spiffe-helper, directory: /nowhere}}
issuers:
  - {issuer: "https://sts", jwks: "https://sts/jwks", profile: sts, tls: {peer: "spiffe://a.example/sts"},
     actor_trust_domains: [a.example], scopes: [s]}
inbound:
  agent: http://127.0.0.1:8080
  routes: [{name: r, match: {path: /, methods: [GET]}, scopes: [s], peers: ["spiffe://a.example/p"]}]
"""


@pytest.fixture(scope="module", params=[IMAGE, DISTROLESS])
def image(request: pytest.FixtureRequest) -> str:
    require(missing())
    name = str(request.param)
    known = subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode == 0
    require(None if known else f"there is no image {name}: make image-distroless")
    return name


def files_of(image: str) -> list[tarfile.TarInfo]:
    """Return every file in the image, as a container sees it."""
    made = docker("create", image).strip()
    try:
        exported = subprocess.run(["docker", "export", made], capture_output=True, check=True).stdout
    finally:
        docker("rm", made)
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
        return archive.getmembers()


def run(image: str, *words: str) -> str:
    return docker("run", "--rm", "--network=none", *CONFINED, *words[:-1], image, words[-1])


def python(image: str, code: str) -> str:
    return docker("run", "--rm", "--network=none", *CONFINED, "--entrypoint=python3", image, "-c", code)


def test_it_says_how_it_is_to_be_run(image: str) -> None:
    config = json.loads(docker("inspect", image))[0]["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["python3", "-m", "sidecar.cli"]
    assert config["Cmd"] == ["run"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "/opt/sidecar/native/healthcheck"]
    assert set(config["ExposedPorts"]) == {"7443/tcp", "7090/tcp"}
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_it_runs_with_nothing_but_itself(image: str) -> None:
    assert run(image, "--version").startswith("sidecar ")


def test_nothing_of_ours_can_be_changed_by_its_user_and_all_is_compiled(image: str) -> None:
    ours = [member for member in files_of(image) if member.name.startswith("opt/sidecar/")]
    assert [member.name for member in ours if member.uid or member.gid or member.mode & 0o022] == []
    sources = {PurePosixPath(member.name) for member in ours if member.name.endswith(".py")}
    compiled = {PurePosixPath(member.name) for member in ours if member.name.endswith(".pyc")}
    missed = [path for path in sources if not any(path.stem == one.name.split(".")[0] for one in compiled)]
    assert len(sources) > 500
    assert missed == []


def test_its_modules_are_compiled_in_a_way_that_no_time_of_a_file_makes_stale(image: str) -> None:
    """PEP 552: the flags say that the source's hash is in the file, and is not compared."""
    code = """
import pathlib
files = list(pathlib.Path('/opt/sidecar').rglob('*.pyc'))
print(len(files) > 500, {int.from_bytes(file.read_bytes()[4:8], 'little') for file in files})
"""
    assert python(image, code) == "True {1}\n"


def test_its_user_finds_no_place_to_write_to_but_what_the_base_leaves_open(image: str) -> None:
    code = """
import os
for top, folders, _ in os.walk('/'):
    folders[:] = [f for f in folders if os.path.join(top, f) not in ('/proc', '/sys', '/dev')]
    print(*(os.path.join(top, f) for f in folders if os.access(os.path.join(top, f), os.W_OK)), sep=chr(10))
"""
    open_ones = docker("run", "--rm", "--network=none", "--cap-drop=ALL", "--entrypoint=python3", image, "-c", code)
    assert set(open_ones.split()) <= {"/tmp", "/var/tmp", "/run/lock", "/var/lock", "/home/nonroot"}
    assert python(image, code).split() == []  # and none at all with a read-only root


def test_it_carries_no_tool_that_a_sidecar_has_no_use_for(image: str) -> None:
    names = {
        PurePosixPath(member.name).name for member in files_of(image) if member.mode & 0o111 and not member.isdir()
    }
    if image == DISTROLESS:
        assert names & (SHELLS | INSTALLERS) == set()
    inside = {member.name.split("/")[3] for member in files_of(image) if member.name.startswith("opt/sidecar/lib/")}
    assert inside & {"pip", "setuptools", "wheel", "bin", "pytest", "rich"} == set()


def test_it_has_nothing_of_the_tools_for_development(image: str) -> None:
    names = [member.name for member in files_of(image) if member.name.startswith("opt/sidecar/")]
    assert [name for name in names if "sidecar_dev" in name or name.startswith("opt/sidecar/dev")] == []


def test_it_holds_no_secret_and_nothing_of_the_working_copy(image: str) -> None:
    names = [member.name for member in files_of(image) if member.name.startswith(("opt/", "src/", "build/", "root/"))]
    assert [name for name in names if name.startswith(("src/", "build/"))] == []
    assert [
        name for name in names if re.search(r"\.(key|pem|token|env)$|/\.git|tests?/", name) and "certifi" not in name
    ] == []
    history = docker("history", "--no-trunc", "--format={{.CreatedBy}}", image)
    assert not re.search(r"(?i)password|secret|token=|PRIVATE KEY", history)


BILL: Final = """
import json, importlib.metadata as m, os, sys
bill = json.load(open('/opt/sidecar/share/sbom.cdx.json'))
told = {(c['name'], c['version']) for c in bill['components'] if c['type'] == 'library'}
there = {(d.metadata['Name'].lower().replace('_', '-'), d.version)
         for d in m.distributions(path=[p for p in sys.path if p.startswith('/opt/sidecar/')])}
files = {c['name'] for c in bill['components'] if c['type'] == 'file'}
print(bill['bomFormat'], bill['specVersion'], len(told), told == there, files == set(os.listdir('/opt/sidecar/native')))
print(all(c['licenses'][0]['license']['name'] not in ('', 'unknown') for c in bill['components']))
print('duckdb' in {name for name, _ in told})
"""


def test_its_bill_of_materials_names_what_is_installed(image: str) -> None:
    kind, version, count, *same, audit = python(image, BILL).split()
    assert (kind, version, same, audit) == ("CycloneDX", "1.6", ["True", "True", "True"], "False")
    assert int(count) > 20


def test_so_does_that_of_the_image_for_development() -> None:
    """Its demo ends with an audit, so it holds that extra."""
    require(missing())
    kind, version, _count, *same, audit = python(DEV_IMAGE, BILL).split()
    assert (kind, version, same, audit) == ("CycloneDX", "1.6", ["True", "True", "True"], "True")


def test_what_we_lay_on_the_base_keeps_its_size(image: str) -> None:
    layers = docker("history", "--format={{.CreatedBy}}|{{.Size}}", "--human=false", image).splitlines()
    added = sum(int(line.rpartition("|")[2]) for line in layers if "COPY /parts/" in line.partition("|")[0])
    assert 0 < added <= MAX_ADDED


@pytest.fixture
def running(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a sidecar without an identity: it is alive, and not ready."""
    file = tmp_path_factory.mktemp("settings") / "sidecar.yaml"
    file.write_text(SETTINGS)
    file.chmod(0o644)
    for folder in (file.parent, file.parent.parent, file.parent.parent.parent):
        folder.chmod(0o755)
    options = ("--health-start-interval=1s", "--health-start-period=1s", "--health-interval=1s", "--health-retries=1")
    mount = f"--volume={file}:/etc/sidecar/sidecar.yaml:ro"
    container = docker("run", "--detach", "--network=none", *CONFINED, *options, mount, image).strip()
    try:
        yield container
    finally:
        docker("rm", "--force", container)


def state(container: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", container))[0]["State"]
    return found


def health(container: str) -> dict[str, Any]:
    """Return the last check, once the sidecar answers."""
    found: dict[str, Any] = wait_for(
        lambda: state(container)["Health"],
        lambda found: bool(found["Log"]) and "identity" in found["Log"][-1]["Output"],
    )
    return found


PROGRAM: Final = """
import struct
text = open('/opt/sidecar/native/healthcheck', 'rb').read()
at, size, count = struct.unpack_from('<Q', text, 32)[0], *struct.unpack_from('<HH', text, 54)
print({struct.unpack_from('<I', text, at + size * n)[0] for n in range(count)} & {2, 3})
"""


def test_its_health_check_needs_no_interpreter_and_no_library(image: str) -> None:
    """An ELF without PT_INTERP and PT_DYNAMIC, so both bases run it."""
    assert python(image, PROGRAM) == "set()\n"


def test_its_health_check_is_red_while_it_is_not_ready_and_says_why(running: str) -> None:
    found = health(running)
    assert found["Status"] == "unhealthy"
    assert "identity" in found["Log"][-1]["Output"]


def test_it_ends_in_order_when_it_is_told_to(running: str) -> None:
    health(running)
    docker("stop", "--time=10", running)
    assert state(running)["ExitCode"] == 0, docker("logs", running)
