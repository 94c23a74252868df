"""The sources of containers and services, as far as they can be checked without an engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from delegation_core.spiffe_id import TrustDomain
from sidecar.cli import DEFAULT_SOCKET
from sidecar.config import load_sidecar, load_sts
from sidecar_dev.entries import parse_entries

ROOT: Final = Path(__file__).parent.parent
COMPOSE: Final = ROOT / "compose"
DOMAIN: Final = TrustDomain("acme.example")
PODS: Final = ("front", "planner", "writer", "crm")


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


@pytest.mark.parametrize("name", PODS)
def test_the_settings_of_the_mesh_have_no_problem(name: str) -> None:
    settings = load_sidecar(COMPOSE / f"{name}.yaml", {})
    assert str(settings.probe.host) == "0.0.0.0"


def test_neither_have_those_of_its_token_service() -> None:
    environ = compose()["services"]["sts"]["environment"]
    assert load_sts(COMPOSE / "sts.yaml", environ).policy.issuer == "https://sts:7444"


def acting(service: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((COMPOSE / "acting.yaml").read_text())["services"][service]
    return found


@pytest.mark.parametrize("name", PODS)
def test_the_settings_of_the_mesh_that_acts_for_itself_have_no_problem_and_poll_revocations(name: str) -> None:
    settings = load_sidecar(COMPOSE / f"{name}.yaml", acting(f"{name}-sidecar")["environment"])
    assert [one.endpoint.url for one in settings.revocations] == ["https://sts:7444/revocations"]
    assert (settings.workload_handle is not None) == (name == "planner")


def test_its_token_service_keeps_orders_where_the_init_container_makes_the_folder() -> None:
    service, folder = acting("sts"), acting("orders")
    settings = load_sts(COMPOSE / "sts.yaml", service["environment"])
    assert settings.revocation is not None
    assert str(settings.revocation.file).startswith("/var/lib/sidecar/orders/")
    assert service["volumes"] == folder["volumes"] == ["sts-orders:/var/lib/sidecar"]
    assert "os.makedirs('/var/lib/sidecar/orders'" in folder["entrypoint"][-1]
    known = {str(entry.spiffe_id) for entry in parse_entries((COMPOSE / "entries.yaml").read_text(), [DOMAIN])}
    assert set(map(str, settings.revocation.operators)) <= known


def test_the_socket_of_the_handle_is_on_the_volume_that_the_agent_mounts() -> None:
    settings = load_sidecar(COMPOSE / "planner.yaml", acting("planner-sidecar")["environment"])
    assert settings.workload_handle is not None
    folder = str(settings.workload_handle.socket.parent) if settings.workload_handle.socket else ""
    assert acting("planner-sidecar")["volumes"] == [f"planner-handle:{folder}"]
    assert acting("planner-agent")["volumes"] == [f"planner-handle:{folder}:ro"]
    assert str(compose()["x-confined"]["user"]).partition(":")[0] in map(str, settings.workload_handle.agent_uids)


def test_the_page_s_port_without_tls_and_folder_of_keys_are_what_the_settings_take(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "compose.md").read_text()
    (block,) = [one for one in page.split("```yaml\n") if "SIDECAR__INBOUND__PLAIN" in one.partition("```")[0]]
    service = yaml.safe_load(block.partition("```")[0])["services"]["writer-sidecar"]
    settings = yaml.safe_load((COMPOSE / "writer.yaml").read_text())
    until = yaml.safe_load(service["environment"]["SIDECAR__INBOUND__PLAIN"])["until"]
    settings["inbound"]["routes"][0]["observe_until"] = until
    folder = service["volumes"][0].split(":")[1]
    settings["inbound"]["agent_key"] = {"file": f"{folder}/agent", "field": "x-api-key"}
    issuer = {key: value for key, value in settings["issuers"][0].items() if key != "refresh_s"}
    own, platform = tmp_path / "sidecar.yaml", tmp_path / "platform.yaml"
    own.write_text(json.dumps(settings))
    platform.write_text(json.dumps({"issuers": [issuer], "plain": True, "observe_until": True}))
    loaded = load_sidecar(own, service["environment"], platform)
    assert loaded.inbound is not None
    assert loaded.inbound.plain is not None
    assert loaded.inbound.plain.listen.port == 7444


def test_every_workload_of_the_mesh_has_a_socket_of_its_own() -> None:
    entries = parse_entries((COMPOSE / "entries.yaml").read_text(), [DOMAIN])
    sockets = [str(entry.selectors.socket) for entry in entries]
    assert len(set(sockets)) == len(sockets)
    listened = [word.partition("=")[2] for word in compose()["services"]["identity"]["command"] if "--socket=" in word]
    assert sorted(listened) == sorted(sockets)


@pytest.mark.parametrize("name", PODS)
def test_a_sidecar_of_the_mesh_can_be_asked_for_its_status(name: str) -> None:
    service = compose()["services"][f"{name}-sidecar"]
    settings = load_sidecar(COMPOSE / f"{name}.yaml", service["environment"])
    assert str(settings.admin_socket) == DEFAULT_SOCKET  # so that `sidecar status` needs no option
    (folder,) = [options.partition(":")[0] for options in service["tmpfs"]]
    assert folder == str(Path(DEFAULT_SOCKET).parent)


def test_the_image_has_its_bases_by_argument_and_needs_no_foreign_frontend() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "# syntax=" not in text
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == [
        *("${PYTHON_IMAGE}", "build", "${RUNTIME_IMAGE}", "sidecar"),
        "sidecar",  # the last stage is built by default: the product, without the tools
    ]
    installs = re.findall(r"pip install .*", text)
    assert all(
        "--require-hashes" in line
        or "--no-cache-dir --no-deps --no-build-isolation" in line  # our own sources
        or '--no-cache-dir --no-deps --no-index --target /opt/sidecar/lib "$wheel"' in line  # the native engine's wheel
        for line in installs
    )


def test_what_is_copied_into_the_image_has_the_time_of_the_commit() -> None:
    """COPY keeps times only of folders that it does not make itself: so each part comes with its folders."""
    text = (ROOT / "Dockerfile").read_text()
    copied = re.findall(r"^COPY --from=\S+ (.*)$", text, re.MULTILINE)
    assert copied == [*(f"/parts/{part}/ /" for part in ("native", "lib", "share", "app", "dev"))]
    assert re.findall(r'find (\S+) -exec touch -hd "@\$SOURCE_DATE_EPOCH"', text) == ["/parts", "/parts/dev"]
    assert all(
        "--no-compile" in line for line in re.findall(r"pip install .*", text)
    )  # pip writes its temporary folder
    assert "--build-arg SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct" in (ROOT / "Makefile").read_text()


def test_only_what_is_named_reaches_a_build() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    allowed = [line[1:] for line in lines if line.startswith("!")]
    locks = [f"requirements/{name}.txt" for name in ("build", "health", "run", "otel", "pretty", "audit")]
    assert allowed == [
        "core",
        "audit",
        "sidecar",
        "dev",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        *locks,
        ".ci/sbom.py",
        "build/native/*.whl",
    ]
    assert "*/build/lib" in lines, "modules that an earlier `pip install ./core` has left would come along"
    assert set(re.findall(r"requirements/\w+\.txt", (ROOT / "Dockerfile").read_text())) <= set(locks)


def needs_an_earlier_step(source: str, tracked: Sequence[str]) -> bool:
    """Return True if a COPY of this source fails in a fresh clone, or copies files that git does not know.

    A pattern may match nothing, but BuildKit requires the folders before its first wildcard to exist.
    """
    folder = re.split(r"[^/]*[*?\[]", source, maxsplit=1)[0] if re.search(r"[*?\[]", source) else source
    return folder != "" and not any(name == folder or name.startswith(f"{folder.rstrip('/')}/") for name in tracked)


def test_a_fresh_clone_has_whatever_the_image_is_built_from() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split(
        "\n"
    )
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert "sidecar" in sources
    assert [source for source in sources if needs_an_earlier_step(source, tracked)] == []
    earlier = ["build/native/*.whl", "build/native/engine.whl", "dist/*.whl", "nowhere"]
    assert [source for source in earlier if not needs_an_earlier_step(source, tracked)] == []


def test_the_build_backend_is_the_locked_one() -> None:
    pinned = re.compile(r"^setuptools==.*(?:\\\n    --hash=.*)+", re.MULTILINE)
    build, dev = ((ROOT / "requirements" / name).read_text() for name in ("build.txt", "dev.txt"))
    assert pinned.findall(build) == pinned.findall(dev)


UNIT: Final = ROOT / "systemd" / "sidecar@.service"


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on PATH")
    unit = tmp_path / "sidecar@planner.service"
    unit.write_text(UNIT.read_text().replace("/opt/sidecar/bin/sidecar", shutil.which("true") or "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.name in line]) == (0, [])


def test_a_refused_settings_file_is_not_tried_again_and_a_drain_has_time() -> None:
    text = UNIT.read_text()
    assert "RestartPreventExitStatus=2" in text
    stop_s = int(re.findall(r"TimeoutStopSec=(\d+)", text)[0])
    assert stop_s > 20  # drain_s unless set
