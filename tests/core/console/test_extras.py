from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Final, get_args

import pytest

from delegation_core import __version__
from delegation_core.console.extras import Missing, install_command, needs

ROOT: Final = Path(__file__).parents[3]
# None of these names is ours on an index: whoever registers one owns what a reader of such a line installs.
OURS: Final = r"delegation[-_.](?:sidecar(?:[-_.]native)?|core|audit|agent)|sidecar[-_.]dev"
INSTALLER: Final = r"\b(?:pip3?(?!-compile)|pipx|uv|uvx|npm|npx|pnpm|yarn|bun|poetry|pdm|conda|easy_install)\b"
# A name, with or without an extra and a version, that is no path, no file, and no part of another word.
BY_NAME: Final = re.compile(
    rf"{INSTALLER}(?! uninstall)[^\n|;&,]*?(?<![\w./@-])(?:{OURS})(?![\w./-]|-VERSION)", re.IGNORECASE
)
# The folders and wheels that each one requires: without them, pip would ask an index.
REQUIRED: Final = {
    "audit": ("core",),
    "sidecar": ("core",),
    "dev": ("core", "audit", "sidecar"),
}
FORMS: Final = {
    "core": r"(?<![\w/])\./core\b|delegation_core|\bCORE\b",
    "audit": r"(?<![\w/])\./audit\b|delegation_audit|\bAUDIT\b",
    "sidecar": r"(?<=[ '])\.(?:\[[^]]*\])?(?=['\s`|;)]|$)|delegation_sidecar-|\bPRODUCT\b",
    "dev": r"(?<![\w/])\./dev\b|sidecar_dev",
}
INSTALLED: Final = re.compile(r"\b(?:pipx?|uv tool) install (?![^\n`;&|]*(?:--no-deps|--no-index))[^\n`;&|]*")
IGNORED: Final = ("CHANGELOG.md", "tests/core/console/test_extras.py")  # history, and this file's own bad examples


def lines() -> list[tuple[str, int, str]]:
    """Every line of every tracked text file that installs something."""
    found = []
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    for name in listed:
        path = ROOT / name
        if name in IGNORED or not path.is_file() or path.is_symlink():
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [
            (name, number, line) for number, line in enumerate(text.splitlines(), 1) if re.search(INSTALLER, line)
        ]
    return found


@pytest.fixture(scope="module")
def installing() -> list[tuple[str, int, str]]:
    return lines()


def test_no_line_installs_a_name_that_is_not_ours(installing: list[tuple[str, int, str]]) -> None:
    assert [row for row in installing if BY_NAME.search(row[2])] == []


def lacking(line: str) -> set[str]:
    """Return the distributions that the line's commands would ask an index for."""
    found = set()
    for command in INSTALLED.findall(line):
        named = {name for name, form in FORMS.items() if re.search(form, command)}
        found |= {other for name in named & REQUIRED.keys() for other in REQUIRED[name]} - named
    return found


def test_no_line_installs_a_distribution_without_those_of_ours_that_it_requires(
    installing: list[tuple[str, int, str]],
) -> None:
    assert [row for row in installing if lacking(row[2])] == []


def test_the_lines_that_install_are_found(installing: list[tuple[str, int, str]]) -> None:
    names = {name for name, _, _ in installing}
    assert {
        "README.md",
        "docs/install.md",
        "Dockerfile",
        "Makefile",
        "core/delegation_core/console/extras.py",
        "agent-node/README.md",
    } <= names


@pytest.mark.parametrize(
    "line",
    [
        "pip install 'delegation-sidecar[audit]'",
        "pip install delegation_sidecar==0.1.0",
        "python -m pip install -U Delegation.Sidecar",
        "pipx install delegation-sidecar",
        "uv tool install 'delegation-sidecar[audit]'",
        "uvx delegation-sidecar audit",
        "npm install delegation-agent",
        "npx delegation-agent",
        "pip install delegation-agent fastapi",
        "pip install delegation-sidecar-native",
    ],
)  # fmt: skip
def test_a_line_that_installs_by_name_is_noticed(line: str) -> None:
    assert BY_NAME.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "pip install ./core ./audit . ./dev",
        "pip install delegation_core-0.1.0-py3-none-any.whl 'delegation_sidecar-0.1.0-py3-none-any.whl[otel]'",
        "npm install --install-links ./agent-node",
        "npm install delegation-agent-0.1.0.tgz",
        "pip install dist/delegation_agent-0.1.0-py3-none-any.whl",
        "pip install ./agent fastapi",
    ],
)
def test_a_line_that_installs_files_passes(line: str) -> None:
    assert not BY_NAME.search(line)


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("pip install ./core .", set()),
        ("pip install ./core './audit[clickhouse]'", set()),
        ("pip install ./core ./audit . ./dev", set()),
        ("pip install delegation_core-0.1.0-py3-none-any.whl delegation_audit-0.1.0-py3-none-any.whl", set()),
        ("pip install .", {"core"}),
        ("pip install '.[otel]'", {"core"}),
        ("pip install ./audit", {"core"}),
        ("pip install ./dev", {"core", "audit", "sidecar"}),
        ("pip install sidecar_dev-0.1.0-py3-none-any.whl", {"core", "audit", "sidecar"}),
        ("pip install delegation_sidecar-0.1.0-py3-none-any.whl", {"core"}),
    ],
)
def test_a_distribution_without_those_that_it_requires_is_noticed(line: str, missing: set[str]) -> None:
    assert lacking(line) == missing


@pytest.mark.parametrize("missing", get_args(Missing))
def test_what_is_missing_is_installed_from_a_clone_or_a_release(missing: Missing) -> None:
    command = install_command(missing)
    assert needs(missing) == f"needs {needs(missing)[6:].partition(':')[0]}: {command}"
    assert missing in needs(missing)
    assert lacking(command) == set()
    clone, release = re.findall(r"`pip install ([^`]+)`", command)
    folder, wheel = clone.split()[1].strip("'"), release.split()[1].strip("'")
    path, _, extra = folder.partition("[")
    project = tomllib.loads((ROOT / path / "pyproject.toml").read_text())["project"]
    assert wheel == f"{project['name'].replace('-', '_')}-{__version__}-py3-none-any.whl" + (
        f"[{extra}" if extra else ""
    )
    assert not extra or extra.rstrip("]") in project["optional-dependencies"]
