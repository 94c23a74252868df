"""A release: two clones give the same bytes, and what pip, pipx and uv install works. By ``make interop-dist``."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest

from sidecar import __version__
from tests.interop.engine import require
from tests.interop.helm import MATRIX, helms, render
from tests.interop.helm import missing as missing_helm

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

ROOT: Final = Path(__file__).parents[2]
BILLS: Final = (
    "delegation-core",
    "delegation-audit",
    "delegation-sidecar",
    "sidecar-dev",
    "delegation-agent-pypi",
    "delegation-agent-npm",
)
WHEELS: Final = ("delegation_core", "delegation_audit", "delegation_sidecar", "sidecar_dev", "delegation_agent")
BUILT: Final = {
    *(f"{name}-{__version__}{end}" for name in WHEELS for end in ("-py3-none-any.whl", ".tar.gz")),
    *(f"{chart}-{__version__}.tgz" for chart in ("sidecar", "sidecar-lib")),
    f"delegation-agent-{__version__}.tgz",
    *(f"{name}-{__version__}.cdx.json" for name in BILLS),
    *(f"sidecar.{shell}" for shell in ("bash", "zsh", "fish")),
    *(f"{kind}.schema.json" for kind in ("sidecar", "sts", "platform")),
    "SHA256SUMS",
}
CORE: Final = ("delegation-core", __version__)
NATIVE_BILL: Final = f"delegation-sidecar-native-{__version__}.cdx.json"


def has_native() -> bool:
    """Tell if the wheel of the native engine can be built here; where it cannot, the rest is, and is tested."""
    cargo = shutil.which("cargo") or shutil.which("cargo", path=Path.home() / ".cargo" / "bin")
    return cargo is not None and shutil.which("maturin", path=Path(sys.executable).parent) is not None


def built(release: Path) -> set[str]:
    """Return the names of the files that have to be there; the wheel's platform is that of its linker and glibc."""
    if not has_native():
        return BUILT
    (wheel,) = release.glob(f"delegation_sidecar_native-{__version__}-cp311-abi3-*linux*.whl")
    return BUILT | {wheel.name, NATIVE_BILL}


# The crates of others are compiled once for all builds, ours for each.
SHARED: Final = {"CARGO_TARGET_DIR": str(ROOT / "build" / "native-target")}


def without_cargo(folder: Path) -> dict[str, str]:
    """Return an environment in which nothing finds cargo."""
    paths = [one for one in os.environ["PATH"].split(os.pathsep) if not (Path(one) / "cargo").exists()]
    return {"PATH": os.pathsep.join(paths), "HOME": str(folder)}


def said(*words: str | Path, cwd: Path, **environ: str) -> str:
    done = subprocess.run(words, cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(clone: Path, *, umask: int, age_s: int, **environ: str) -> Path:
    """Clone, make every file look changed at another time, and build."""
    before = os.umask(umask)
    try:
        said("git", "clone", "-q", "--no-hardlinks", ROOT, clone, cwd=ROOT)
        for path in clone.rglob("*"):
            if ".git" not in path.parts and not path.is_symlink():
                os.utime(path, (path.stat().st_mtime - age_s,) * 2)
        said(sys.executable, ".ci/dist.py", "out", cwd=clone, **SHARED, **environ)
    finally:
        os.umask(before)
    return clone / "out"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require(None if find_spec("cyclonedx_py") else "the tools of a release are missing: make interop-dist")
    return build(tmp_path_factory.mktemp("one") / "clone", umask=0o022, age_s=0)


def sums(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def files_of_python(folder: Path) -> dict[str, str]:
    """Return the checksums of the files that need no compiler."""
    return {name: digest for name, digest in sums(folder).items() if name in BUILT - {"SHA256SUMS"}}


def test_two_clones_give_the_same_bytes(release: Path, tmp_path: Path) -> None:
    environ = {"TZ": "Pacific/Auckland", "LC_ALL": "C", "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1"}
    environ |= without_cargo(tmp_path)  # the native engine is compared below, with the one of `make native`
    other = build(tmp_path / "another folder" / "b", umask=0o077, age_s=40_000_000, **environ)
    assert set(sums(release)) == built(release)
    assert set(sums(other)) == BUILT
    assert files_of_python(other) == files_of_python(release)


def missing_engine() -> str | None:
    base = os.environ.get("PYTHON_IMAGE", "python:3.13-slim")
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "version"], capture_output=True, check=False).returncode
    ):
        return "no Docker engine answers"
    known = subprocess.run(["docker", "image", "inspect", base], capture_output=True, check=False)
    return f"there is no image {base} to build on" if known.returncode else None


@pytest.mark.timeout(900)
def test_two_clones_give_the_same_images_on_the_same_base(tmp_path: Path) -> None:
    """Nothing of the first build is used for the second."""
    require(missing_engine())
    build_args = f"{os.environ.get('BUILD_ARGS', '')} --no-cache"
    images: list[list[str]] = []
    for folder, umask in (("one", 0o022), ("another folder", 0o077)):
        before = os.umask(umask)
        try:
            said("git", "clone", "-q", ROOT, tmp_path / folder, cwd=ROOT)
        finally:
            os.umask(before)
        names = [f"sidecar-twice:{umask}", f"sidecar-dev-twice:{umask}"]
        said(
            "make",
            "image",
            f"IMAGE={names[0]}",
            f"DEV_IMAGE={names[1]}",
            f"BUILD_ARGS={build_args}",
            cwd=tmp_path / folder,
        )
        images.append(said("docker", "image", "inspect", "--format={{.Id}}", *names, cwd=ROOT).split())
        said("docker", "image", "rm", *names, cwd=ROOT)
    assert images[0] == images[1]
    assert len(set(images[0])) == 2


def test_another_commit_gives_other_bytes(release: Path, tmp_path: Path) -> None:
    said("git", "clone", "-q", ROOT, tmp_path / "clone", cwd=ROOT)
    with (tmp_path / "clone" / "README.md").open("a") as page:
        page.write("more\n")
    who = ("-c", "user.name=a", "-c", "user.email=a@example", "-c", "core.hooksPath=/dev/null")
    said("git", *who, "commit", "-qam", "More", cwd=tmp_path / "clone")
    said(sys.executable, ".ci/dist.py", "out", cwd=tmp_path / "clone", **without_cargo(tmp_path))
    wheel = f"delegation_sidecar-{__version__}-py3-none-any.whl"
    assert sums(tmp_path / "clone" / "out")[wheel] != sums(release)[wheel]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "dist.py", tmp_path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "is not empty" in done.stderr) == (1, True)
    assert (tmp_path / "thesis.tex").read_text() == "years"


def test_the_checksums_are_those_of_the_files(release: Path) -> None:
    said("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=release)
    assert len((release / "SHA256SUMS").read_text().splitlines()) == len(built(release)) - 1


def test_the_source_archive_builds_the_same_wheel_and_has_no_tests(release: Path, tmp_path: Path) -> None:
    for name in WHEELS:
        with tarfile.open(release / f"{name}-{__version__}.tar.gz") as tar:
            assert [one for one in tar.getnames() if "/tests/" in one] == []
            tar.extractall(tmp_path, filter="data")
        code = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"
        said(sys.executable, "-P", "-c", code, tmp_path, cwd=tmp_path / f"{name}-{__version__}")
        wheel = f"{name}-{__version__}-py3-none-any.whl"
        with zipfile.ZipFile(tmp_path / wheel) as one, zipfile.ZipFile(release / wheel) as other:
            assert {name: one.read(name) for name in one.namelist()} == {n: other.read(n) for n in other.namelist()}


def locked(name: str) -> set[tuple[str, str]]:
    """Return the packages of a lock file."""
    text = (ROOT / "requirements" / name).read_text()
    return set(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE))


def bill_of(release: Path) -> dict[str, Any]:
    bill: dict[str, Any] = json.loads((release / f"delegation-sidecar-{__version__}.cdx.json").read_text())
    return bill


def test_the_bill_of_materials_is_of_the_locked_dependencies_and_has_no_time_of_day(release: Path) -> None:
    bill = bill_of(release)
    run, extras = locked("run.txt"), {extra: locked(f"{extra}.txt") for extra in ("pretty", "otel")}
    assert {(one["name"], one["version"]) for one in bill["components"]} == {CORE}.union(run, *extras.values())
    required = {(one["name"], one["version"]) for one in bill["components"] if one["scope"] == "required"}
    assert required == run | {CORE}
    for extra, packages in extras.items():
        needs = {"name": "delegation:extra", "value": extra}
        told = {(one["name"], one["version"]) for one in bill["components"] if needs in one.get("properties", ())}
        assert told == packages - run
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["purl"] == f"pkg:pypi/delegation-sidecar@{__version__}"
    assert "serialNumber" not in bill
    committed = said("git", "log", "-1", "--format=%ct", cwd=ROOT)
    assert datetime.fromisoformat(bill["metadata"]["timestamp"]).timestamp() == int(committed)
    others = [one for one in bill["components"] if (one["name"], one["version"]) != CORE]
    assert all(one["externalReferences"][0]["hashes"] for one in others)


def test_each_other_distribution_has_a_bill_of_what_it_brings(release: Path) -> None:
    found = {name: json.loads((release / f"{name}-{__version__}.cdx.json").read_text()) for name in BILLS}
    assert {one["metadata"]["component"]["purl"] for one in found.values()} == {
        *(f"pkg:pypi/{name}@{__version__}" for name in BILLS[:4]),
        f"pkg:pypi/delegation-agent@{__version__}", f"pkg:npm/delegation-agent@{__version__}",
    }  # fmt: skip
    listed = {name: {(one["name"], one["version"]) for one in bill["components"]} for name, bill in found.items()}
    own = {(name, __version__) for name in BILLS[:3]}
    assert listed["sidecar-dev"] == locked("run.txt") | locked("audit.txt") | locked("pretty.txt") | own
    assert {name for name, _ in listed["delegation-core"]} == {"cffi", "cryptography", "orjson", "pycparser", "pyjwt"}
    yaml = {one for one in locked("run.txt") if one[0] == "pyyaml"}
    assert listed["delegation-audit"] == listed["delegation-core"] | yaml | {CORE}.union(
        *(locked(f"{extra}.txt") for extra in ("audit", "pretty", "clickhouse"))
    )
    optional = {one["name"] for one in found["delegation-audit"]["components"] if one["scope"] == "optional"}
    assert "ibis-framework" in optional
    assert {"duckdb", "kingfisher-secret-scanner"} & optional == set()
    assert [found[name]["components"] for name in BILLS[4:]] == [[], []]


def test_one_command_makes_the_release_and_says_what_it_skipped(release: Path, tmp_path: Path) -> None:
    said("git", "clone", "-q", ROOT, tmp_path / "clone", cwd=ROOT)
    words = (sys.executable, ".ci/release.py", "out", "--without", "images", "--without", "helm")
    environ = {**os.environ, **without_cargo(tmp_path)}
    done = subprocess.run(words, cwd=tmp_path / "clone", env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "clone" / "out"
    assert set(sums(out)) == BUILT | {"provenance.intoto.json", "RELEASE.md"}
    assert files_of_python(out) == files_of_python(release)
    statement = json.loads((out / "provenance.intoto.json").read_text())
    assert {one["name"]: one["digest"]["sha256"] for one in statement["subject"]} == {
        name: digest for name, digest in sums(out).items() if name in BUILT
    }
    source = statement["predicate"]["buildDefinition"]["resolvedDependencies"][0]
    assert source["digest"]["gitCommit"] == said("git", "rev-parse", "HEAD", cwd=ROOT).strip()
    page = (out / "RELEASE.md").read_text()
    native = "the wheel of the native engine is left out: cargo is not on PATH; rustup.rs has it"
    for line in ("images: left out by --without images", native, f"tag the commit, signed: git tag -s v{__version__}"):
        assert line in page
        assert line in done.stderr
    assert all(f"| `{name}` |" in page for name in BUILT)


def test_the_native_engine_s_bill_has_the_locked_crates_and_its_wheel_installs(release: Path, tmp_path: Path) -> None:
    require(None if has_native() else "cargo and maturin build the native engine: make interop-dist")
    lock = tomllib.loads((ROOT / "sidecar" / "native" / "Cargo.lock").read_text())["package"]
    bill = json.loads((release / NATIVE_BILL).read_text())
    found = {(one["name"], one["version"], one["hashes"][0]["content"]) for one in bill["components"]}
    assert found == {(one["name"], one["version"], one["checksum"]) for one in lock if "checksum" in one}
    scopes = {one["name"]: one["scope"] for one in bill["components"]}
    assert (scopes["pyo3"], scopes["sha2"], scopes["syn"]) == ("required", "required", "excluded")

    (wheel,) = release.glob("delegation_sidecar_native-*.whl")
    said(
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        "there",
        wheel,
        cwd=tmp_path,
    )
    shown = said(
        sys.executable, "-c", "import delegation_sidecar_native as n; print(n.__version__)", cwd=tmp_path / "there"
    )
    assert shown == f"{__version__}\n"
    with zipfile.ZipFile(wheel) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert [one for one in (ROOT, Path.home(), Path(tempfile.gettempdir())) if f"{one}/".encode() in content] == []


def test_the_native_engine_is_that_of_make_native_in_another_folder(release: Path) -> None:
    made = [*(ROOT / "build" / "native").glob("*.whl")]
    require(None if has_native() and made else "cargo builds the native engine: make interop-dist")
    if said("git", "status", "--porcelain", "sidecar/native", cwd=ROOT):
        pytest.skip("a release has the committed sources, make native those of the working tree")
    (wheel,) = release.glob("delegation_sidecar_native-*.whl")
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(made[0]) as other:
        assert {name: ours.read(name) for name in ours.namelist()} == {n: other.read(n) for n in other.namelist()}
        committed = datetime.fromtimestamp(int(said("git", "log", "-1", "--format=%ct", cwd=ROOT)), UTC)
        times = {datetime(*one.date_time, tzinfo=UTC) for one in ours.infolist()}
    assert [abs(one - committed) <= timedelta(seconds=2) for one in times] == [True]  # a zip counts every second one


def test_the_bill_of_materials_is_valid_cyclonedx(release: Path) -> None:
    schema, json_files = import_module("cyclonedx.schema"), import_module("cyclonedx.validation.json")
    validator = json_files.JsonStrictValidator(schema.SchemaVersion.V1_6)
    for bill in release.glob("*.cdx.json"):
        text = bill.read_text()
        assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"library"', '"lib"')) is not None


@pytest.mark.parametrize("values", MATRIX, ids=lambda path: path.stem)
def test_a_packed_chart_renders_what_its_sources_render(release: Path, values: Path) -> None:
    require(missing_helm())
    for helm in helms():
        found = render(values, helm=helm, chart=release / f"sidecar-{__version__}.tgz")
        assert found.objects == render(values, helm=helm).objects
        assert found.objects != []


def test_a_packed_chart_has_the_files_that_helm_packs(release: Path, tmp_path: Path) -> None:
    require(missing_helm())
    for chart in ("sidecar", "sidecar-lib"):
        said(helms()[-1], "package", ROOT / "helm" / chart, "--destination", tmp_path, cwd=ROOT)
        name = f"{chart}-{__version__}.tgz"
        with tarfile.open(tmp_path / name) as theirs, tarfile.open(release / name) as ours:
            assert set(theirs.getnames()) == set(ours.getnames())


def works(program: Path, folder: Path) -> None:
    """Use an installed command where there is no clone, as a newcomer does."""
    log = folder / "access.log"
    log.write_text('{"method": "GET", "path": "/customers/42", "sub": "alice"}\n')
    settings = folder / "sidecar.yaml"
    shutil.copy(ROOT / "config" / "agent.yaml", settings)
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *words], cwd=folder, env=environ, capture_output=True, text=True, check=False)

    assert run("--version").stdout == f"sidecar {__version__}\n"
    checked = run("check", settings)
    assert (checked.returncode, checked.stderr) == (0, "")
    audited = run("audit", "attribution", "--json", log)
    assert (audited.returncode in {0, 1}, audited.stderr) == (True, "")
    assert "-F _shtab_sidecar sidecar" in run("completion", "bash").stdout
    refused = run("demo")
    assert (refused.returncode, "sidecar-dev" in refused.stderr) == (2, True)


def wheels_of(release: Path, *names: str) -> list[Path]:
    return [release / f"{name}-{__version__}-py3-none-any.whl" for name in names]


def test_pip_installs_it_in_a_fresh_environment(release: Path, tmp_path: Path) -> None:
    said(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    product = wheels_of(release, *WHEELS[:3])
    said(python, "-m", "pip", "install", "-q", "--no-cache-dir", *product, cwd=tmp_path)
    said(python, "-m", "pip", "check", cwd=tmp_path)
    works(tmp_path / "venv" / "bin" / "sidecar", tmp_path)
    assert said(python, "-m", "sidecar", "--version", cwd=tmp_path) == f"sidecar {__version__}\n"
    listed = json.loads(said(python, "-m", "pip", "list", "--format=json", cwd=tmp_path))
    installed = {re.sub(r"[-_.]+", "-", one["name"]).lower() for one in listed}
    bills = [json.loads((release / f"{name}-{__version__}.cdx.json").read_text()) for name in BILLS[:3]]
    named = {one["name"] for bill in bills for one in bill["components"]}
    assert installed - {"pip", "setuptools", *BILLS[:3]} <= named

    said(python, "-m", "pip", "install", "-q", *product, *wheels_of(release, "sidecar_dev"), cwd=tmp_path)
    assert "--keep" in said(tmp_path / "venv" / "bin" / "sidecar", "demo", "--help", cwd=tmp_path)


def test_a_sidecar_without_the_audit_names_the_way_to_it(release: Path, tmp_path: Path) -> None:
    said(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    wheels = wheels_of(release, "delegation_core", "delegation_sidecar")
    said(python, "-m", "pip", "install", "-q", *wheels, cwd=tmp_path)
    words = (tmp_path / "venv" / "bin" / "sidecar", "audit", "chains", "records/")
    refused = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (refused.returncode, "pip install ./core ./audit" in refused.stderr) == (2, True)
    assert "duckdb" not in said(python, "-m", "pip", "list", cwd=tmp_path)


def audits(program: Path, folder: Path) -> None:
    """Use the audit's own command, without a sidecar."""
    log = folder / "access.log"
    log.write_text('{"method": "GET", "path": "/customers/42", "sub": "alice"}\n')
    assert said(program, "--version", cwd=folder) == f"delegation-audit {__version__}\n"
    done = subprocess.run([program, "attribution", "--json", log], capture_output=True, text=True, check=False)
    assert (done.returncode in {0, 1}, done.stderr) == (True, "")
    done = subprocess.run([program, "replay", log], capture_output=True, text=True, check=False)
    assert (done.returncode, "needs the distribution delegation-sidecar" in done.stderr) == (2, True)


def test_pipx_installs_the_audit_alone(release: Path, tmp_path: Path) -> None:
    require(None if find_spec("pipx") else "pipx is missing: make interop-dist")
    environ = {"PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    core, audit = wheels_of(release, "delegation_core", "delegation_audit")
    said(sys.executable, "-m", "pipx", "install", "--preinstall", core, audit, cwd=tmp_path, **environ)
    audits(tmp_path / "bin" / "delegation-audit", tmp_path)


def test_uv_installs_the_audit_alone(release: Path, tmp_path: Path) -> None:
    require(None if find_spec("uv") else "uv is missing: make interop-dist")
    folders = {"UV_TOOL_DIR": "tools", "UV_TOOL_BIN_DIR": "bin", "UV_CACHE_DIR": "cache"}
    environ = {name: str(tmp_path / folder) for name, folder in folders.items()}
    core, audit = wheels_of(release, "delegation_core", "delegation_audit")
    words = ("-m", "uv", "tool", "install", "--python", sys.executable, audit, "--with", core)
    said(sys.executable, *words, cwd=tmp_path, UV_PYTHON_DOWNLOADS="never", **environ)
    audits(tmp_path / "bin" / "delegation-audit", tmp_path)
