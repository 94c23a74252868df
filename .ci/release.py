"""Makes everything of a release in one folder, and says which file is for whom.

    python .ci/release.py build/release [--without images]

The files of ``dist.py`` (the same bytes from the same commit), the images where a Docker engine answers, a provenance
statement, and RELEASE.md. A step that cannot be made here is skipped with one line that says so; one that fails ends
the release. Publishing and signing are for people: docs/release.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import dist
import native_wheel

ROOT = dist.ROOT
PROVENANCE = "provenance.intoto.json"
BASE = "python:3.13-slim"
BUILD_TYPE = "urn:delegation-sidecar:make-release:1"
BUILDER = "urn:delegation-sidecar:builder:unnamed"
_SBOM = "/opt/sidecar/share/sbom.cdx.json"


class Row(NamedTuple):
    """A line of RELEASE.md: the files, whom they are for, and their use. ``VERSION`` stands for the version."""

    pattern: str
    whom: str
    use: str


ROWS = (
    Row(
        "delegation_sidecar-VERSION-*.whl",
        "who runs a sidecar without a container",
        "`pip install CORE FILE`; as a service: docs/systemd.md",
    ),
    Row(
        "delegation_core-VERSION-*.whl",
        "everybody who installs another wheel: the decisions, and the records with their schema",
        "`pip install FILE`, together with what needs it",
    ),
    Row(
        "delegation_audit-VERSION-*.whl",
        "security reviewers: the audit of records and logs, without a sidecar",
        "`pip install CORE FILE`; docs/audit.md",
    ),
    Row(
        "delegation_sidecar_native-VERSION-*.whl",
        "who runs a sidecar without a container, for less CPU: the optional native engine",
        "`pip install --no-deps FILE` beside the product's wheel; docs/native.md",
    ),
    Row(
        "sidecar-VERSION.image.tar", "who runs containers", "`docker load --input FILE`, then push it to your registry"
    ),
    Row("sidecar-VERSION.tgz", "who runs Kubernetes: the chart", "docs/kubernetes.md"),
    Row(
        "sidecar-lib-VERSION.tgz",
        "authors of charts: the sidecar's container as a library",
        "a dependency in Chart.yaml",
    ),
    Row(
        "delegation_agent-VERSION-*.whl", "authors of agents in Python", "`pip install FILE` in the agent's environment"
    ),
    Row("delegation-agent-VERSION.tgz", "authors of agents for Node", "`npm install FILE`"),
    Row(
        "sidecar_dev-VERSION-*.whl",
        "developers: the demo, and a mesh on one machine; never in production",
        "`pip install CORE AUDIT PRODUCT FILE`: name all four wheels, or pip asks an index for the others",
    ),
    Row(
        "sidecar-dev-VERSION.image.tar",
        "developers: the same in containers; never in production",
        "`docker load --input FILE`",
    ),
    Row("sidecar.bash", "users of bash", "as `sidecar` in ~/.local/share/bash-completion/completions"),
    Row("sidecar.zsh", "users of zsh", "as `_sidecar` in a folder of `fpath`"),
    Row("sidecar.fish", "users of fish", "in ~/.config/fish/completions"),
    Row(
        "*.schema.json",
        "authors of settings: checks and completes them in an editor",
        "`# yaml-language-server: $schema=FILE`",
    ),
    Row("*.tar.gz", "packagers: the sources of each Python distribution", "`pip wheel FILE`"),
    Row("*.cdx.json", "security teams: bills of materials (CycloneDX)", "read by scanners of dependencies"),
    Row(
        "SHA256SUMS",
        "everybody: checksums of the files that each build of the commit gives",
        "`sha256sum --check SHA256SUMS`",
    ),
    Row(
        "IMAGES",
        "who runs containers: digests of the images' archives, and ids of the images",
        "`sha256sum --check IMAGES`",
    ),
    Row(PROVENANCE, "security teams: what was built from what", "docs/release.md says what it proves"),
    Row("RELEASE.md", "everybody: this page", ""),
)


class Built(NamedTuple):
    """The outcome of the steps: ``skipped`` and ``left`` are lines for people."""

    version: str
    skipped: list[str]
    left: list[str]


def main(out: Path, without: Sequence[str], environ: Mapping[str, str] = os.environ) -> Built:
    """Make the release.

    Raises:
        SystemExit: a step failed, or the version is not the same everywhere.
    """
    version = one_version(versions(ROOT))
    skipped = [*dist.main(out), *images(out, version, without, environ), *charts(out, without)]
    statement = provenance(out, version, environ)
    (out / PROVENANCE).write_text(json.dumps(statement, indent=1, sort_keys=True) + "\n")
    built = Built(version, skipped, list(left(ROOT, version)))
    (out / "RELEASE.md").write_text(page(built, sorted(file.name for file in out.iterdir())))
    return built


def versions(root: Path) -> dict[str, str]:
    """Return the version by the place where it stands."""
    found: dict[str, str] = {}
    for name in (
        "sidecar",
        "core/delegation_core",
        "audit/delegation_audit",
        "dev/sidecar_dev",
        "agent/delegation_agent",
    ):
        text = (root / name / "__init__.py").read_text()
        found[f"{name}/__init__.py"] = _first(r'^__version__ = "(.+)"', text)
    for name in ("pyproject.toml", "audit/pyproject.toml", "dev/pyproject.toml"):
        pins = re.findall(r'"(delegation-(?:core|audit|sidecar))==([^"]+)"', (root / name).read_text())
        found |= {f"{name} {distribution}": version for distribution, version in pins}
    found["sidecar/native/Cargo.toml"] = native_wheel.version(root)
    found["sidecar/engine.py"] = _first(r'^_VERSION: Final = "(.+?)"', (root / "sidecar/engine.py").read_text())
    found["agent-node/package.json"] = json.loads((root / "agent-node" / "package.json").read_text())["version"]
    for file in sorted((*root.glob("helm/*/Chart.yaml"), *root.glob("helm/*/values.yaml"))):
        told = re.findall(r"\b(version|appVersion|tag): \"?([0-9][^\",}\s]*)", file.read_text())
        found |= {f"{file.relative_to(root)} {name} #{number}": value for number, (name, value) in enumerate(told, 1)}
    return found


def one_version(found: Mapping[str, str]) -> str:
    """Return the version that stands everywhere.

    Raises:
        SystemExit: it differs; the text has each place.
    """
    if len(set(found.values())) != 1:
        told = "\n".join(f"  {value or 'none'}  {place}" for place, value in found.items())
        raise SystemExit(f"release: the version is not the same everywhere:\n{told}")
    return next(iter(found.values()))


def left(root: Path, version: str) -> Iterator[str]:
    """Yield what a person has to do before this can be the release: nobody else can."""
    changelog = (root / "CHANGELOG.md").read_text()
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.M):
        yield f"CHANGELOG.md: give the section {version} its date, and commit"
    if f"v{version}" not in dist._git("tag", "--points-at", "HEAD").splitlines():
        yield f"tag the commit, signed: git tag -s v{version}"
    if dist._git("status", "--porcelain", "--untracked-files=no"):
        yield "changes that are not committed are not in these files: commit or drop them, and make the release again"


def images(out: Path, version: str, without: Sequence[str], environ: Mapping[str, str]) -> Iterator[str]:
    """Build, save and describe both images of the last commit; yield a line if they are skipped."""
    if "images" in without:
        yield "images: left out by --without images"
        return
    if shutil.which("docker") is None or _run(["docker", "version"], check=False).returncode:
        yield "images: no Docker engine answers; on a machine with one: make release"
        return
    base = environ.get("PYTHON_IMAGE", BASE)
    lines = []
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        source, epoch = Path(folder), int(dist._git("log", "-1", "--format=%ct"))
        dist.unpack(dist._git_bytes("archive", "--format=tar", "HEAD"), source, epoch)
        facts = {
            "PYTHON_IMAGE": base,
            "VERSION": version,
            "REVISION": dist._git("rev-parse", "HEAD"),
            "SOURCE_DATE_EPOCH": epoch,
        }
        arguments = [word for name, value in facts.items() for word in ("--build-arg", f"{name}={value}")]
        for name in ("sidecar", "sidecar-dev"):
            tag = f"{name}:{version}"
            more = shlex.split(environ.get("BUILD_ARGS", ""))
            _run(["docker", "build", *more, *arguments, "--target", name, "--tag", tag, "."], cwd=source)
            lines.append(
                f"# {tag} is {_run(['docker', 'image', 'inspect', '--format', '{{.Id}}', tag]).stdout.strip()}"
            )
            _run(["docker", "save", "--output", str(out / f"{name}-{version}.image.tar"), tag])
            _copy_sbom(tag, out / f"{name}-{version}.image.cdx.json")
            lines += [
                f"{_sha256(out / file)}  {file}"
                for file in (f"{name}-{version}.image.tar", f"{name}-{version}.image.cdx.json")
            ]
    (out / "IMAGES").write_text("\n".join([f"# on {base}", *lines]) + "\n")
    if "@sha256:" not in base:
        yield f"images: built, on a base that is not pinned: PYTHON_IMAGE={base}@sha256:… gives others the same image"


def _copy_sbom(tag: str, to: Path) -> None:
    container = _run(["docker", "create", tag]).stdout.strip()
    try:
        _run(["docker", "cp", f"{container}:{_SBOM}", str(to)])
    finally:
        _run(["docker", "rm", container], check=False)


def charts(out: Path, without: Sequence[str]) -> Iterator[str]:
    """Let Helm read the packed charts; yield a line if there is none. The charts are packed without it."""
    if "helm" in without or shutil.which("helm") is None:
        yield "helm: the charts are packed, and no Helm on PATH has read them; on a machine with one: make chart"
        return
    for chart in sorted(out.glob("sidecar*.tgz")):
        _run(["helm", "show", "chart", str(chart)])


def provenance(out: Path, version: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return an in-toto statement with SLSA's provenance of the files there. It is not signed, and has no times."""
    subjects = [
        {"name": file.name, "digest": {"sha256": _sha256(file)}}
        for file in sorted(out.iterdir())
        if file.name not in {PROVENANCE, "RELEASE.md"}
    ]
    source: dict[str, Any] = {"name": "source", "digest": {"gitCommit": dist._git("rev-parse", "HEAD")}}
    if environ.get("SOURCE_URI"):
        source["uri"] = environ["SOURCE_URI"]
    has_native = any(fnmatch(one["name"], "delegation_sidecar_native-*.whl") for one in subjects)
    native = ("requirements/native.txt", f"{native_wheel.CRATE}/Cargo.lock") if has_native else ()
    own = {f"requirements/{name}" for name in ("build.txt", "dev.txt", "dist.txt", *dist.LOCKS.values())}
    committed = ((name, dist._git_bytes("show", f"HEAD:{name}")) for name in sorted({*own, *native}))
    locks = [{"name": name, "digest": {"sha256": hashlib.sha256(text).hexdigest()}} for name, text in committed]
    base = environ.get("PYTHON_IMAGE", BASE)
    has_images = any(one["name"].endswith(".image.tar") for one in subjects)
    digest = base.partition("@sha256:")[2]
    image = {"name": base, **({"digest": {"sha256": digest}} if digest else {"uri": f"docker:{base}"})}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"command": "make release", "version": version},
                "internalParameters": {
                    "SOURCE_DATE_EPOCH": dist._git("log", "-1", "--format=%ct"),
                    "python": ".".join(map(str, sys.version_info[:3])),
                    "zlib": zlib.ZLIB_RUNTIME_VERSION,
                },
                "resolvedDependencies": [source, *locks, *([image] if has_images else [])],
            },
            "runDetails": {"builder": {"id": environ.get("BUILDER_ID") or BUILDER}},
        },
    }


def page(built: Built, names: Iterable[str]) -> str:
    """Return RELEASE.md: which file is for whom, what is not there, and what is left for a person.

    Raises:
        SystemExit: a file has no row.
    """
    rows = [(name, row_of(name, built.version)) for name in {*names, "RELEASE.md"}]
    rows.sort(key=lambda one: (ROWS.index(one[1]), one[0]))
    lines = [f"# delegation-sidecar {built.version}", "", "| file | for whom | use |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {row.whom} | {row.use.replace('FILE', name)} |" for name, row in rows]
    if built.skipped:
        lines += ["", "Skipped or limited on the machine that made this:", "", *(f"- {line}" for line in built.skipped)]
    if built.left:
        lines += ["", "Not a release yet:", "", *(f"- {line}" for line in built.left)]
    lines += ["", "Only a person can sign and publish: docs/release.md has the list.", ""]
    return "\n".join(lines)


def row_of(name: str, version: str) -> Row:
    """Return the first row whose pattern a file has."""
    for row in ROWS:
        if fnmatch(name, row.pattern.replace("VERSION", version)):
            return row
    raise SystemExit(f"release: {name} is in no row of .ci/release.py: say for whom it is")


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.M)
    return found[1] if found else ""


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _run(words: Sequence[str], *, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(
            f"release: {' '.join(words[:3])} … failed; --without images leaves them out\n{done.stdout}{done.stderr}"
        )
    return done


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make everything of a release in one folder.")
    parser.add_argument("out", type=Path, nargs="?", default=Path("build/release"))
    parser.add_argument(
        "--without", action="append", default=[], choices=("images", "helm"), help="a step to leave out"
    )
    arguments = parser.parse_args()
    result = main(arguments.out.resolve(), arguments.without)
    for line in result.skipped:
        print(f"release: {line}", file=sys.stderr)
    for line in result.left:
        print(f"release: left to do: {line}", file=sys.stderr)
    print(f"release: {result.version} is in {arguments.out}; RELEASE.md says which file is for whom")
