"""Builds a release into a folder: wheels, source archives, an npm package, charts, completion scripts, JSON Schemas of
settings, bills of materials and SHA256SUMS; and the wheel of the native engine, where its tools are.

    python .ci/dist.py dist

It builds what the last commit contains, and the same commit always gives the same bytes: in any folder, at any time,
with any umask. Times are the commit's. The builders themselves are locked: requirements/dev.txt and dist.txt.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import native_wheel
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
DISTRIBUTIONS = ("core", "audit", ".", "dev", "agent")
LOCKS = {
    None: "run.txt",
    "audit": "audit.txt",
    "pretty": "pretty.txt",
    "clickhouse": "clickhouse.txt",
    "otel": "otel.txt",
}  # by the extra that needs them; None: the sidecar and the core, audit: its distribution
_BACKEND = "import sys, setuptools.build_meta as backend; getattr(backend, sys.argv[1])(sys.argv[2])"


@dataclass(frozen=True)
class Entry:
    """A file of an archive."""

    name: str
    content: bytes
    executable: bool = False


def main(out: Path) -> list[str]:
    """Build everything into a folder that is empty, missing, or of an earlier build; return what is left out."""
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()) and not (out / "SHA256SUMS").is_file():
        raise SystemExit(f"dist: {out} is not empty and not of an earlier build; name another folder or empty it")
    for old in out.iterdir():
        old.unlink()
    epoch = int(_git("log", "-1", "--format=%ct"))
    with tempfile.TemporaryDirectory(prefix="dist-") as folder:
        source = Path(folder)
        unpack(_git_bytes("archive", "--format=tar", "HEAD"), source, epoch)
        build_python(source, out, epoch)
        for chart in sorted(source.glob("helm/*/Chart.yaml")):
            pack_chart(chart.parent, out, epoch)
        pack_npm(source / "agent-node", out, epoch)
        for file in (*source.glob("sidecar/completions/sidecar.*"), *source.glob("config/*.schema.json")):
            (out / file.name).write_bytes(file.read_bytes())
        write_sboms(source, out, epoch)
        skipped = list(native(source, out, epoch))
    built = sorted(out.iterdir())
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in built]
    (out / "SHA256SUMS").write_text("".join(sums))
    for file in (*built, out / "SHA256SUMS"):
        print(f"{file.stat().st_size:>9}  {file.name}")
    if _git("status", "--porcelain", "--untracked-files=no"):
        print("dist: built from the last commit; changes that are not committed are not in it", file=sys.stderr)
    return skipped


def unpack(archive: bytes, folder: Path, epoch: int) -> None:
    """Unpack with modes and times that depend on the archive and ``epoch`` alone."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "--extract", "--no-same-owner", "--directory", folder], input=archive, check=True)
    for path in sorted(folder.rglob("*"), reverse=True):  # a folder's time after those of its files
        runs = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if runs else 0o644)
        os.utime(path, (epoch, epoch))


def environment(epoch: int) -> dict[str, str]:
    """Return all that a builder learns of its surroundings. Sets have one order: a bill of materials lists some."""
    fixed = {"PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    return {"PATH": os.environ["PATH"], **fixed}


def build_python(source: Path, out: Path, epoch: int) -> None:
    """Build every distribution by the locked backend, without a network."""
    for distribution in DISTRIBUTIONS:
        for hook in ("build_sdist", "build_wheel"):  # the archive first: a wheel's build leaves a folder
            done = subprocess.run(
                [sys.executable, "-P", "-c", _BACKEND, hook, out],
                cwd=source / distribution,
                env=environment(epoch),
                umask=0o022,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise SystemExit(f"dist: {hook} of {distribution} failed\n{done.stdout}{done.stderr}")
    for archive in out.glob("*.tar.gz"):  # setuptools writes the time of day and the builder's name
        pack(archive, entries_of(archive), epoch)


def native(source: Path, out: Path, epoch: int) -> Iterator[str]:
    """Build the wheel of the native engine and its bill of materials; yield a line where its tools are missing."""
    try:
        native_wheel.build(source, out, epoch, zig=bool(os.environ.get("ZIG")), clean=True)
    except native_wheel.ToolError as missing:
        yield f"the wheel of the native engine is left out: {missing}"
        return
    (product,) = out.glob("delegation-sidecar-[0-9]*.cdx.json")
    version = native_wheel.version(source)
    bill = derived(json.loads(product.read_text()), f"pkg:pypi/{native_wheel.NAME}@{version}", ())
    bill["components"] = native_wheel.crates(source)
    write_bill(out / f"{native_wheel.NAME}-{version}.cdx.json", bill)


def entries_of(archive: Path) -> list[Entry]:
    """Return the files of an archive."""
    with tarfile.open(archive) as tar:
        return [
            Entry(member.name, content.read(), bool(member.mode & 0o100))
            for member in tar.getmembers()
            if (content := tar.extractfile(member)) is not None
        ]


def pack_chart(folder: Path, out: Path, epoch: int) -> None:
    """Pack a chart with what its links lead to, as ``helm package`` does, which writes the time of day, too."""
    lines = (folder / "Chart.yaml").read_text().splitlines()
    version = next(line.partition(":")[2].strip() for line in lines if line.startswith("version:"))
    entries = [
        Entry(f"{folder.name}/{(Path(top) / name).relative_to(folder).as_posix()}", (Path(top) / name).read_bytes())
        for top, _, names in os.walk(folder, followlinks=True)
        for name in names
    ]
    pack(out / f"{folder.name}-{version}.tgz", entries, epoch)


def pack_npm(folder: Path, out: Path, epoch: int) -> None:
    """Pack a package for npm, as ``npm pack`` does, which is not installed where a release is built."""
    package = json.loads((folder / "package.json").read_text())
    entries = [Entry(f"package/{file.name}", file.read_bytes()) for file in folder.iterdir()]
    pack(out / f"{package['name']}-{package['version']}.tgz", entries, epoch)


def pack(archive: Path, entries: Iterable[Entry], epoch: int) -> None:
    """Write a gzipped tar whose bytes depend on the arguments alone."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in sorted(entries, key=lambda one: one.name):
            member = tarfile.TarInfo(entry.name)
            member.size, member.mtime, member.mode = len(entry.content), epoch, 0o755 if entry.executable else 0o644
            tar.addfile(member, io.BytesIO(entry.content))
    with archive.open("wb") as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
        packed.write(plain.getvalue())


def write_sboms(source: Path, out: Path, epoch: int) -> None:
    """Write a CycloneDX bill of materials of each distribution, with the dependencies of its extras."""
    bill = whole_bill(source, out, epoch)
    version = bill["metadata"]["component"]["version"]
    own = {name: f"pkg:pypi/{name}@{version}" for name in ("delegation-core", "delegation-audit", "delegation-sidecar")}
    core, audit = (needed_by((source / name / "pyproject.toml").read_text()) for name in ("core", "audit"))
    locked = {extra: lock_of(source, extra) for extra in LOCKS}
    run, every_audit = locked[None], audit | locked["audit"] | locked["pretty"]
    for file, document in {
        "delegation-core": derived(bill, own["delegation-core"], core),
        "delegation-audit": derived(
            bill,
            own["delegation-audit"],
            every_audit,
            extras={"clickhouse": locked["clickhouse"]},
            own=[own["delegation-core"]],
        ),
        "delegation-sidecar": derived(
            bill,
            own["delegation-sidecar"],
            run,
            extras={extra: locked[extra] for extra in ("otel", "pretty")},
            own=[own["delegation-core"]],
        ),
        "sidecar-dev": derived(bill, f"pkg:pypi/sidecar-dev@{version}", run | every_audit, own=own.values()),
        "delegation-agent-pypi": derived(bill, f"pkg:pypi/delegation-agent@{version}", ()),
        "delegation-agent-npm": derived(bill, f"pkg:npm/delegation-agent@{version}", ()),
    }.items():
        write_bill(out / f"{file}-{version}.cdx.json", document)


def lock_of(source: Path, extra: str | None) -> set[str]:
    """Return the names of a lock file."""
    return set(re.findall(r"^([\w.-]+)==", (source / "requirements" / LOCKS[extra]).read_text(), re.MULTILINE))


def needed_by(pyproject: str) -> set[str]:
    """Return the names that a distribution requires, directly or not, by what is installed here."""
    waiting, found = list(tomllib.loads(pyproject)["project"]["dependencies"]), set[str]()
    while waiting:
        required = Requirement(waiting.pop())
        name = canonicalize_name(required.name)
        if name not in found and (required.marker is None or required.marker.evaluate({"extra": ""})):
            found.add(name)
            waiting += metadata.requires(name) or ()
    return found


def write_bill(path: Path, document: Mapping[str, Any]) -> None:
    """Write a bill of materials in the one form that the same contents have."""
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def derived(
    bill: Mapping[str, Any],
    purl: str,
    required: Collection[str],
    extras: Mapping[str, Collection[str]] | None = None,
    own: Iterable[str] = (),
) -> dict[str, Any]:
    """Return the bill of one distribution of this release, made from the bill of all locked dependencies.

    ``required`` are names of packages, ``extras`` the names that are optional, by their extra, ``own`` the other
    distributions of this release that it requires.
    """
    document: dict[str, Any] = json.loads(json.dumps(bill))
    document["metadata"]["component"] = _library(purl)
    components = [{**_library(one), "scope": "required"} for one in own]
    for one in document["components"]:
        one.pop("properties", None)
        asking = [extra for extra, names in (extras or {}).items() if one["name"] in names]
        if one["name"] in required:
            components.append(one | {"scope": "required"})
        elif asking:
            properties = [{"name": "delegation:extra", "value": extra} for extra in asking]
            components.append(one | {"scope": "optional", "properties": properties})
    document["components"] = sorted(components, key=lambda one: str(one["purl"]))
    return document


def _library(purl: str) -> dict[str, Any]:
    name, _, version = purl.rpartition("/")[2].partition("@")
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def whole_bill(source: Path, out: Path, epoch: int) -> dict[str, Any]:
    """Return the bill of materials of all locked dependencies of the product, its audit, and their extras."""
    locks = {extra: (source / "requirements" / name).read_text() for extra, name in LOCKS.items()}
    command = ("requirements", "--pyproject", "pyproject.toml", "--output-reproducible", "--of", "JSON", "--sv", "1.6")
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-m", "cyclonedx_py", *command, "-"],
        input="\n".join(locks.values()).encode(),
        cwd=source,
        env=environment(epoch),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"dist: no bill of materials: {done.stderr.decode()}; run it by: make dist")
    wheel = next(out.glob("delegation_sidecar-*.whl"))
    return completed(json.loads(done.stdout), version=wheel.name.split("-")[1], locks=locks)


def completed(bill: Mapping[str, Any], version: str, locks: Mapping[str | None, str]) -> dict[str, Any]:
    """Add the version, which pyproject.toml leaves to the package, and the extra that needs a dependency.

    ``locks`` are lock files by extra; None: of all. Line numbers of the joined lock files and copies of their lines are
    dropped, and so is the graph: without edges it would claim that nothing depends on anything.
    """
    document: dict[str, Any] = json.loads(json.dumps(bill))
    component = document["metadata"]["component"]
    component |= {"version": version, "purl": f"pkg:pypi/{component['name']}@{version}"}
    document.pop("dependencies", None)
    known = {one["purl"]: one for one in document["components"]}
    locked = {extra: set(re.findall(r"^([\w.-]+==[^\s;]+)", text, re.MULTILINE)) for extra, text in locks.items()}
    for purl, one in known.items():
        one.pop("description", None)
        one["bom-ref"] = purl
        name = f"{one['name']}=={one['version']}"
        extras = [] if name in locked[None] else [extra for extra, names in locked.items() if extra and name in names]
        one["scope"] = "optional" if extras else "required"
        if extras:
            one["properties"] = [{"name": "delegation:extra", "value": extra} for extra in extras]
    document["components"] = [known[purl] for purl in sorted(known)]
    return document


def _git(*words: str) -> str:
    return _git_bytes(*words).decode().strip()


def _git_bytes(*words: str) -> bytes:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"dist: a release is built from a git clone: {done.stderr.decode().strip()}")
    return done.stdout


if __name__ == "__main__":
    for left_out in main(Path(sys.argv[1] if len(sys.argv) > 1 else "dist")):
        print(f"dist: {left_out}", file=sys.stderr)
