"""One command makes a release: what it makes, what it says of it, and what it leaves to people."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from sidecar import __version__

ROOT: Final = Path(__file__).parent.parent
DOCKER: Final = """\
#!/bin/sh
echo "docker $*" >> "$ASKED"
[ "$1" != "$FAILING" ] || { echo "$1 is broken" >&2; exit 1; }
case $1 in
  image) echo sha256:1d ;;
  save) echo archive > "$3" ;;
  create) echo box ;;
  cp) echo '{}' > "$3" ;;
esac
"""


@pytest.fixture(scope="module")
def release() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["release"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / ".ci"))
        for name in ("release", "dist", "native_wheel"):
            sys.modules.pop(name, None)


def test_the_version_is_the_same_at_all_places(release: ModuleType) -> None:
    found = release.versions(ROOT)
    assert release.one_version(found) == __version__
    assert sum(place.startswith("helm/") for place in found) == 8
    assert len(found) == 20
    for place in found:
        with pytest.raises(SystemExit, match="not the same everywhere"):
            release.one_version({**found, place: "0.0.9"})


def names(version: str = __version__) -> list[str]:
    """Return the files of a release with images."""
    wheels = [
        f"{name}-{version}"
        for name in ("delegation_core", "delegation_audit", "delegation_sidecar", "sidecar_dev", "delegation_agent")
    ]
    boms = (
        "delegation-core",
        "delegation-audit",
        "delegation-sidecar",
        "delegation-sidecar-native",
        "sidecar-dev",
        "delegation-agent-pypi",
        "delegation-agent-npm",
    )
    return [
        *(f"{name}-py3-none-any.whl" for name in wheels),
        f"delegation_sidecar_native-{version}-cp311-abi3-manylinux_2_34_x86_64.whl",
        *(f"{name}.tar.gz" for name in wheels),
        *(f"{name}-{version}.tgz" for name in ("sidecar", "sidecar-lib", "delegation-agent")),
        *(f"{name}-{version}.cdx.json" for name in boms),
        *(f"{name}-{version}.image.{end}" for name in ("sidecar", "sidecar-dev") for end in ("tar", "cdx.json")),
        *(f"sidecar.{shell}" for shell in ("bash", "zsh", "fish")),
        *(f"{kind}.schema.json" for kind in ("sidecar", "sts", "platform")),
        "SHA256SUMS", "IMAGES", "provenance.intoto.json",
    ]  # fmt: skip


def test_the_page_says_of_each_file_whom_it_is_for(release: ModuleType) -> None:
    text = release.page(release.Built(__version__, ["images: no engine"], ["tag it"]), names())
    rows = dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", text, re.MULTILINE))
    assert rows.keys() == {*names(), "RELEASE.md"}
    assert rows[f"delegation-agent-{__version__}.tgz"] == "authors of agents for Node"
    assert rows[f"sidecar-{__version__}.tgz"].endswith("the chart")
    assert rows[f"sidecar-{__version__}.image.cdx.json"].startswith("security teams")
    assert "- images: no engine\n" in text
    assert "Not a release yet:\n\n- tag it\n" in text
    assert "VERSION" not in text
    assert "FILE" not in text
    whole = release.page(release.Built(__version__, [], []), names())
    assert "Skipped" not in whole
    assert "Not a release" not in whole


def test_each_row_of_the_page_is_of_a_file(release: ModuleType) -> None:
    used = {release.row_of(name, __version__) for name in [*names(), "RELEASE.md"]}
    assert used == set(release.ROWS)


def test_a_file_that_nobody_explains_ends_the_release(release: ModuleType) -> None:
    with pytest.raises(SystemExit, match="is in no row"):
        release.page(release.Built(__version__, [], []), ["notes.txt"])


def statement(release: ModuleType, folder: Path, **environ: str) -> dict[str, Any]:
    (folder / "a.whl").write_bytes(b"wheel")
    (folder / "RELEASE.md").write_text("of an earlier run")
    found: dict[str, Any] = release.provenance(folder, __version__, environ)
    return found


def test_the_provenance_names_each_file_the_commit_and_the_locks(release: ModuleType, tmp_path: Path) -> None:
    found = statement(release, tmp_path)
    assert (found["_type"], found["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )
    assert found["subject"] == [{"name": "a.whl", "digest": {"sha256": hashlib.sha256(b"wheel").hexdigest()}}]
    build = found["predicate"]["buildDefinition"]
    source, *locks = build["resolvedDependencies"]
    assert re.fullmatch(r"[0-9a-f]{40}", source["digest"]["gitCommit"])
    assert "uri" not in source
    assert {one["name"] for one in locks} >= {"requirements/run.txt", "requirements/dist.txt", "requirements/audit.txt"}
    assert build["externalParameters"] == {"command": "make release", "version": __version__}
    assert found["predicate"]["runDetails"] == {"builder": {"id": release.BUILDER}}
    assert statement(release, tmp_path) == found  # it has no time


def test_the_provenance_names_the_locks_of_the_native_engine_where_its_wheel_is(
    release: ModuleType, tmp_path: Path
) -> None:
    def named() -> set[str]:
        found = statement(release, tmp_path)["predicate"]["buildDefinition"]["resolvedDependencies"]
        return {one["name"] for one in found}

    before = named()
    (tmp_path / "delegation_sidecar_native-0.1.0-cp311-abi3-linux_x86_64.whl").write_bytes(b"wheel")
    assert named() - before == {"requirements/native.txt", "sidecar/native/Cargo.lock"}


def test_the_provenance_says_only_what_it_was_told_of_source_and_builder(release: ModuleType, tmp_path: Path) -> None:
    told = {"SOURCE_URI": "git+https://git.acme.example/sidecar", "BUILDER_ID": "https://ci.acme.example/7"}
    found = statement(release, tmp_path, **told)
    assert found["predicate"]["buildDefinition"]["resolvedDependencies"][0]["uri"] == told["SOURCE_URI"]
    assert found["predicate"]["runDetails"]["builder"]["id"] == told["BUILDER_ID"]


@pytest.mark.parametrize(
    ("base", "resolved"),
    [
        ("python:3", {"name": "python:3", "uri": "docker:python:3"}),
        ("python:3@sha256:aa", {"name": "python:3@sha256:aa", "digest": {"sha256": "aa"}}),
    ],
)
def test_the_provenance_of_images_names_their_base(
    base: str, resolved: dict[str, object], release: ModuleType, tmp_path: Path
) -> None:
    assert (
        resolved
        not in statement(release, tmp_path, PYTHON_IMAGE=base)["predicate"]["buildDefinition"]["resolvedDependencies"]
    )
    (tmp_path / "sidecar.image.tar").write_bytes(b"image")
    found = statement(release, tmp_path, PYTHON_IMAGE=base)
    assert found["predicate"]["buildDefinition"]["resolvedDependencies"][-1] == resolved


def test_what_is_left_for_a_person_is_told(
    release: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n")
    answers = {"tag": "v0.0.9", "status": " M README.md"}
    monkeypatch.setattr(release.dist, "_git", lambda *words: answers[words[0]])
    assert [line.partition(":")[0] for line in release.left(tmp_path, "0.1.0")] == [
        "CHANGELOG.md", "tag the commit, signed", "changes that are not committed are not in these files",
    ]  # fmt: skip
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [0.1.0] - 2026-12-01\n")
    answers.update(tag="latest\nv0.1.0", status="")
    assert list(release.left(tmp_path, "0.1.0")) == []


# Images


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for an engine, which writes down what it is asked; ``FAILING`` names the command that fails."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(DOCKER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    monkeypatch.setenv("FAILING", "nothing")
    (tmp_path / "out").mkdir()
    return tmp_path


def test_images_are_built_from_the_commit_saved_and_named(engine: Path, release: ModuleType) -> None:
    environ = {"PYTHON_IMAGE": "python:3@sha256:aa", "BUILD_ARGS": "--network host"}
    assert list(release.images(engine / "out", "0.1.0", (), environ)) == []
    asked = (engine / "asked").read_text().splitlines()
    (build, dev) = [line for line in asked if line.startswith("docker build")]
    assert build.startswith("docker build --network host --build-arg PYTHON_IMAGE=python:3@sha256:aa ")
    assert build.endswith("--target sidecar --tag sidecar:0.1.0 .")
    assert dev.endswith("--target sidecar-dev --tag sidecar-dev:0.1.0 .")
    assert asked.count("docker rm box") == 2
    assert {file.name for file in (engine / "out").iterdir()} == {
        "IMAGES", *(f"{name}-0.1.0.image.{end}" for name in ("sidecar", "sidecar-dev") for end in ("tar", "cdx.json")),
    }  # fmt: skip
    listed = (engine / "out" / "IMAGES").read_text()
    assert "# on python:3@sha256:aa\n# sidecar:0.1.0 is sha256:1d\n" in listed
    assert f"{hashlib.sha256(b'archive' + bytes([10])).hexdigest()}  sidecar-0.1.0.image.tar\n" in listed


def test_a_base_that_is_not_pinned_is_told(engine: Path, release: ModuleType) -> None:
    (line,) = release.images(engine / "out", "0.1.0", (), {})
    assert line.startswith("images: built, on a base that is not pinned: PYTHON_IMAGE=")
    assert "# on python:3.13-slim\n" in (engine / "out" / "IMAGES").read_text()


@pytest.mark.parametrize("failing", ["build", "save", "cp"])
def test_an_image_that_cannot_be_made_ends_the_release(
    failing: str, engine: Path, release: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILING", failing)
    with pytest.raises(SystemExit, match=f"{failing} is broken"):
        list(release.images(engine / "out", "0.1.0", (), {}))
    assert not (engine / "out" / "IMAGES").exists()


def test_without_an_engine_images_are_skipped_with_one_line(
    engine: Path, release: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(release.images(engine / "out", "0.1.0", ["images"], {})) == ["images: left out by --without images"]
    monkeypatch.setenv("FAILING", "version")
    said = ["images: no Docker engine answers; on a machine with one: make release"]
    assert list(release.images(engine / "out", "0.1.0", (), {})) == said
    monkeypatch.setenv("PATH", "/nowhere")
    assert list(release.images(engine / "out", "0.1.0", (), {})) == said
    assert list((engine / "out").iterdir()) == []


def test_helm_reads_the_charts_where_it_is(engine: Path, release: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sidecar-0.1.0.tgz", "sidecar-lib-0.1.0.tgz"):
        (engine / "out" / name).write_bytes(b"chart")
    helm = engine / "bin" / "helm"
    helm.write_text('#!/bin/sh\necho "helm $*" >> "$ASKED"\n')
    helm.chmod(0o755)
    assert list(release.charts(engine / "out", ())) == []
    assert (engine / "asked").read_text().count("helm show chart") == 2
    helm.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(SystemExit, match="helm show chart"):
        list(release.charts(engine / "out", ()))
    monkeypatch.setenv("PATH", "/nowhere")
    (line,) = release.charts(engine / "out", ())
    assert line.startswith("helm: ")


# The page


def test_the_page_of_releases_names_every_step_and_variable(release: ModuleType) -> None:
    page = (ROOT / "docs" / "release.md").read_text()
    for word in (
        "SHA256SUMS",
        "IMAGES",
        release.PROVENANCE,
        "RELEASE.md",
        "SOURCE_URI",
        "BUILDER_ID",
        "WITHOUT=images",
    ):
        assert f"`{word}" in page
    todo = page.partition("## Only a person can do this")[2].partition("\n## ")[0]
    for word in ("Tag", "Sign", "Publish the packages", "Publish the images", "Announce", "Compare", "Upload"):
        assert f"- [ ] **{word}**" in todo


def test_the_statement_is_json_of_one_form(release: ModuleType, tmp_path: Path) -> None:
    found = statement(release, tmp_path)
    assert json.loads(json.dumps(found, sort_keys=True)) == found
    assert set(found) == {"_type", "subject", "predicateType", "predicate"}
    assert set(found["predicate"]) == {"buildDefinition", "runDetails"}
