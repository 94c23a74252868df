"""A container with a gap in its confinement is reported; beside it one without."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar_dev.confinement import confinement

STATUS = "Name:\tpython3\nCapBnd:\t0000000000000000\nCapEff:\t{cap}\nNoNewPrivs:\t{privs}\nSeccomp:\t2\n"


def root_of(folder: Path, *, cap: str = "0" * 16, privs: str = "1") -> Path:
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/status").write_text(STATUS.format(cap=cap, privs=privs))
    return folder


def lost(root: Path, environ: dict[str, str] | None = None) -> list[str]:
    return [what for what, _, held in confinement(root, environ or {}) if not held]


def test_where_nothing_is_in_reach_nothing_is_told_but_that_the_folder_can_be_written_to(tmp_path: Path) -> None:
    assert lost(root_of(tmp_path)) == ["places to write to"]


@pytest.mark.parametrize("name", ["run/workload", "etc/sidecar", "var/lib/sts-keys", "var/run/docker.sock"])
def test_another_ones_sockets_and_secrets_are_told(name: str, tmp_path: Path) -> None:
    root = root_of(tmp_path)
    (root / name).mkdir(parents=True)
    assert "sockets and secrets of others" in lost(root)


@pytest.mark.parametrize(("value", "told"), [("eyJhbGciOi", True), ("-----BEGIN PRIVATE KEY-----", True), ("x", False)])
def test_a_secret_in_the_environment_is_told(value: str, told: bool, tmp_path: Path) -> None:
    assert ("secrets in the environment" in lost(root_of(tmp_path), {"TOKEN": value})) is told


@pytest.mark.parametrize(("command", "told"), [(b"python3\0-m\0sidecar.cli\0run", True), (b"agent", False)])
def test_a_sidecar_in_sight_is_told(command: bytes, told: bool, tmp_path: Path) -> None:
    root = root_of(tmp_path)
    (root / "proc/7").mkdir()
    (root / "proc/7/cmdline").write_bytes(command)
    assert ("the sidecar's process" in lost(root)) is told


@pytest.mark.parametrize(
    ("options", "name"), [({"cap": "00000000a80425fb"}, "CapEff"), ({"privs": "0"}, "NoNewPrivs"), ({}, None)]
)
def test_rights_that_are_left_are_told(options: dict[str, str], name: str | None, tmp_path: Path) -> None:
    found = lost(root_of(tmp_path, **options))
    assert (name in found) if name else not {"CapEff", "CapBnd", "NoNewPrivs", "Seccomp"} & {*found}
