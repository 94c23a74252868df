"""The archives of a release depend on their contents and the commit's time alone."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from sidecar import __version__

ROOT: Final = Path(__file__).parent.parent
EPOCH: Final = 1_700_000_000


@pytest.fixture(scope="module")
def dist() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / ".ci"))
    spec = importlib.util.spec_from_file_location("dist", ROOT / ".ci" / "dist.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["dist"] = module  # a dataclass looks its module up
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / ".ci"))
        for name in ("dist", "native_wheel"):
            sys.modules.pop(name, None)


def chart(folder: Path, *, mode: int, reverse: bool) -> Path:
    """Write a chart, whose rules are a link, in one order or the other."""
    (folder / "team").mkdir(parents=True)
    (folder / "rules").mkdir()
    (folder / "team" / "rules").symlink_to("../rules")
    files = {"team/Chart.yaml": "name: team\nversion: 1.2.3\n", "team/values.yaml": "a: 1\n", "rules/r.yaml": "r: 1\n"}
    for name in sorted(files, reverse=reverse):
        (folder / name).write_text(files[name])
        (folder / name).chmod(mode)
    return folder / "team"


def packed(dist: ModuleType, folder: Path, epoch: int = EPOCH) -> bytes:
    dist.pack_chart(folder, folder.parent, epoch)
    return (folder.parent / "team-1.2.3.tgz").read_bytes()


def test_a_chart_packed_elsewhere_with_other_modes_times_and_order_has_the_same_bytes(
    dist: ModuleType, tmp_path: Path
) -> None:
    one = chart(tmp_path / "one", mode=0o600, reverse=False)
    other = chart(tmp_path / "another folder", mode=0o664, reverse=True)
    os.utime(other / "values.yaml", (1, 1))
    assert packed(dist, one) == packed(dist, other)
    assert packed(dist, one) != packed(dist, one, EPOCH + 1)
    (other / "values.yaml").write_text("a: 2\n")
    assert packed(dist, one) != packed(dist, other)


def test_a_chart_is_packed_with_what_its_links_lead_to(dist: ModuleType, tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(packed(dist, chart(tmp_path / "one", mode=0o644, reverse=False)))) as tar:
        assert tar.getnames() == ["team/Chart.yaml", "team/rules/r.yaml", "team/values.yaml"]
        assert {(one.mode, one.mtime, one.uid, one.uname) for one in tar} == {(0o644, EPOCH, 0, "")}


def test_the_library_for_node_is_packed_as_npm_packs_it(dist: ModuleType, tmp_path: Path) -> None:
    package = json.loads((ROOT / "agent-node" / "package.json").read_text())
    dist.pack_npm(ROOT / "agent-node", tmp_path, EPOCH)
    with tarfile.open(tmp_path / f"delegation-agent-{package['version']}.tgz") as tar:
        assert set(tar.getnames()) == {f"package/{file.name}" for file in (ROOT / "agent-node").iterdir()}
        assert {"package/package.json", "package/index.js", "package/index.d.ts"} <= set(tar.getnames())


def test_a_source_archive_is_packed_again_with_its_contents(dist: ModuleType, tmp_path: Path) -> None:
    entries = [dist.Entry("p-1/run", b"#!/bin/sh\n", executable=True), dist.Entry("p-1/LICENSE", b"text")]
    dist.pack(tmp_path / "p-1.tar.gz", entries, EPOCH)
    before = (tmp_path / "p-1.tar.gz").read_bytes()
    assert dist.entries_of(tmp_path / "p-1.tar.gz") == sorted(entries, key=lambda one: one.name)
    dist.pack(tmp_path / "p-1.tar.gz", reversed(entries), EPOCH)
    assert (tmp_path / "p-1.tar.gz").read_bytes() == before


def test_sources_are_unpacked_with_modes_and_times_of_no_umask(dist: ModuleType, tmp_path: Path) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, mode in (("a/tool", 0o775), ("a/text", 0o664)):
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, 1
            tar.addfile(member, io.BytesIO(b"x"))
    before = os.umask(0o077)
    try:
        dist.unpack(archive.getvalue(), tmp_path, EPOCH)
    finally:
        os.umask(before)
    found = {path.name: (path.stat().st_mode & 0o777, path.stat().st_mtime) for path in tmp_path.rglob("*")}
    assert found == {"a": (0o755, EPOCH), "tool": (0o755, EPOCH), "text": (0o644, EPOCH)}


def test_the_bill_of_materials_names_version_and_extras_and_repeats_no_lock_line(dist: ModuleType) -> None:
    def listed(name: str, line: int) -> dict[str, object]:
        ref, purl = f"requirements-L{line}", f"pkg:pypi/{name}@1"
        return {"name": name, "version": "1", "purl": purl, "bom-ref": ref, "description": f"requirements line {line}"}

    def kept(name: str, **more: object) -> dict[str, object]:
        return {"name": name, "version": "1", "purl": f"pkg:pypi/{name}@1", "bom-ref": f"pkg:pypi/{name}@1", **more}

    bill = {
        "metadata": {"component": {"name": "p"}},
        "components": [listed("c", 1), listed("b", 2), listed("a", 3), listed("b", 4)],
        "dependencies": [{"ref": "requirements-L1"}],
    }
    locks = {None: "b==1 \\\n", "audit": "b==1 \\\nc==1 ; python_version < '4'\n", "pretty": "a==1\nc==1\n"}
    assert dist.completed(bill, "1.0", locks) == {
        "metadata": {"component": {"name": "p", "version": "1.0", "purl": "pkg:pypi/p@1.0"}},
        "components": [
            kept("a", scope="optional", properties=[{"name": "delegation:extra", "value": "pretty"}]),
            kept("b", scope="required"),
            kept(
                "c",
                scope="optional",
                properties=[{"name": "delegation:extra", "value": extra} for extra in ("audit", "pretty")],
            ),
        ],
    }


def test_the_extras_of_the_bill_of_materials_are_those_that_are_locked(dist: ModuleType) -> None:
    """An extra with a lock file of its own is in the bill."""
    projects = [tomllib.loads((ROOT / name / "pyproject.toml").read_text())["project"] for name in (".", "audit")]
    extras = {extra for project in projects for extra in project["optional-dependencies"]}
    there = {extra for extra in extras if (ROOT / "requirements" / f"{extra}.txt").is_file()}
    assert set(dist.LOCKS) == {None, "audit", *there}
    assert {"clickhouse", "otel", "pretty"} == there


def test_the_image_s_bill_of_materials_has_its_packages_and_the_libraries_beside_them(tmp_path: Path) -> None:
    package = tmp_path / "lib" / "p-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.4\nName: P_q\nVersion: 1\nLicense-Expression: MIT\n")
    (tmp_path / "lib" / "_p.cpython-313.so").write_bytes(b"of the package")
    (tmp_path / "native").mkdir()
    (tmp_path / "native" / "libgcc_s.so.1").write_bytes(b"code")
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "sbom.py", tmp_path / "lib", tmp_path / "native"],
        check=True,
        capture_output=True,
    )
    assert json.loads(done.stdout)["components"] == [
        {
            "type": "library",
            "name": "p-q",
            "version": "1",
            "purl": "pkg:pypi/p-q@1",
            "licenses": [{"license": {"name": "MIT"}}],
        },
        {
            "type": "file",
            "name": "libgcc_s.so.1",
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(b"code").hexdigest()}],
            "licenses": [{"license": {"name": "GPL-3.0-or-later WITH GCC-exception-3.1"}}],
        },
    ]


# The native engine's wheel


@pytest.fixture
def toolchain(dist: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins for cargo and maturin, which write down what they are asked; nothing else is found."""
    (tmp_path / "bin").mkdir()
    for name in ("cargo", "maturin"):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/asked"\n[ "$1" != tree ] || echo "libc v1.0"\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    return tmp_path / "bin"


def source_of_the_engine(folder: Path) -> Path:
    crate = folder / "source" / "sidecar" / "native"
    crate.mkdir(parents=True)
    (crate / "Cargo.toml").write_text('[package]\nname = "delegation-sidecar-native"\nversion = "1.2.3"\n')
    own, *others = ("delegation-sidecar-native", "1.2.3"), ("libc", "1.0"), ("syn", "2.0")
    lines = [f'[[package]]\nname = "{own[0]}"\nversion = "{own[1]}"\n']
    lines += [f'[[package]]\nname = "{name}"\nversion = "{version}"\nchecksum = "ab"\n' for name, version in others]
    (crate / "Cargo.lock").write_text("".join(lines))
    return folder / "source"


@pytest.mark.parametrize("tool", ["cargo", "maturin"])
def test_without_a_tool_of_the_native_engine_the_rest_is_built_and_one_line_says_so(
    dist: ModuleType, toolchain: Path, tmp_path: Path, tool: str
) -> None:
    (toolchain / tool).unlink()
    (line,) = dist.native(source_of_the_engine(tmp_path), tmp_path, EPOCH)
    assert line.startswith(f"the wheel of the native engine is left out: {tool} is not ")
    assert not (tmp_path / "asked").exists()


def test_the_native_engine_is_compiled_from_these_sources_and_its_bill_says_what_is_linked(
    dist: ModuleType, toolchain: Path, tmp_path: Path
) -> None:
    product = {
        "metadata": {"component": {"purl": "pkg:pypi/delegation-sidecar@1.2.3"}},
        "components": [{"name": "p", "purl": "p"}],
    }
    (tmp_path / "delegation-sidecar-1.2.3.cdx.json").write_text(json.dumps(product))
    assert list(dist.native(source_of_the_engine(tmp_path), tmp_path, EPOCH)) == []
    asked = [tuple(line.split()[:2]) for line in (tmp_path / "asked").read_text().splitlines()]
    assert asked == [("cargo", "clean"), ("maturin", "build"), ("cargo", "clean"), ("cargo", "tree")]
    bill = json.loads((tmp_path / "delegation-sidecar-native-1.2.3.cdx.json").read_text())
    assert bill["metadata"]["component"]["purl"] == "pkg:pypi/delegation-sidecar-native@1.2.3"
    assert [(one["purl"], one["scope"], one["hashes"][0]["content"]) for one in bill["components"]] == [
        ("pkg:cargo/libc@1.0", "required", "ab"),
        ("pkg:cargo/syn@2.0", "excluded", "ab"),
    ]


def test_a_tool_of_the_native_engine_that_fails_ends_the_release(
    dist: ModuleType, toolchain: Path, tmp_path: Path
) -> None:
    (toolchain / "maturin").write_text("#!/bin/sh\necho 'no linker' >&2\nexit 1\n")
    with pytest.raises(SystemExit, match="maturin build failed\nno linker"):
        list(dist.native(source_of_the_engine(tmp_path), tmp_path, EPOCH))


def test_the_native_engine_is_built_without_paths_and_flags_of_the_machine(dist: ModuleType, tmp_path: Path) -> None:
    given = {
        "PATH": "/bin",
        "CARGO_HOME": "/home/eve/crates",
        "SOURCE_DATE_EPOCH": "1",
        "CARGO_ENCODED_RUSTFLAGS": "-g",
    }
    found = dist.native_wheel.environment(given, (tmp_path / "cargo", tmp_path / "b" / "maturin"), EPOCH)
    assert found["CARGO_ENCODED_RUSTFLAGS"] == "--remap-path-prefix=/home/eve/crates=/cargo"
    assert (found["SOURCE_DATE_EPOCH"], found["PATH"]) == (str(EPOCH), f"{tmp_path}:{tmp_path / 'b'}:/bin")
    assert found["CARGO_TARGET_DIR"] == str(ROOT / "build" / "native-target")


def test_the_native_engine_has_the_version_of_the_product(dist: ModuleType) -> None:
    assert dist.native_wheel.version(ROOT) == __version__
