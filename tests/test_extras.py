from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Final, get_args

import pytest

from sidecar import __version__
from sidecar.extras import Extra, install_command, needs

ROOT: Final = Path(__file__).parent.parent
# None of these names is ours on an index: whoever registers one owns what a reader of such a line installs.
OURS: Final = r"delegation[-_.]sidecar(?:[-_.]native)?|sidecar[-_.]dev|delegation[-_.]agent"
INSTALLER: Final = r"\b(?:pip3?|pipx|uv|uvx|npm|npx|pnpm|yarn|bun|poetry|pdm|conda|easy_install)\b"
# A name, with or without an extra and a version, that is no path, no file, and no part of another word.
BY_NAME: Final = re.compile(
    rf"{INSTALLER}(?! uninstall)[^\n|;&,]*?(?<![\w./@-])(?:{OURS})(?![\w./-]|-VERSION)", re.IGNORECASE
)
# sidecar-dev requires the product: alone, pip would ask an index for it.
DEV_ALONE: Final = re.compile(
    r"\bpip install (?![^\n`;&|]*(?:--no-deps|--no-index| \. |\.\[|PRODUCT))[^\n`;&|]*(?:\./dev\b|sidecar_dev)"
)
IGNORED: Final = ("CHANGELOG.md", "tests/test_extras.py")  # history, and this file's own bad examples


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


def test_no_line_installs_the_tools_for_development_without_the_product(installing: list[tuple[str, int, str]]) -> None:
    assert [row for row in installing if DEV_ALONE.search(row[2])] == []


def test_the_lines_that_install_are_found(installing: list[tuple[str, int, str]]) -> None:
    names = {name for name, _, _ in installing}
    assert {
        "README.md",
        "docs/install.md",
        "Dockerfile",
        "Makefile",
        "sidecar/extras.py",
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
        "pip install '.[audit]' ./dev",
        "pip install 'delegation_sidecar-0.1.0-py3-none-any.whl[audit]'",
        "npm install --install-links ./agent-node",
        "npm install delegation-agent-0.1.0.tgz",
        "pip install dist/delegation_agent-0.1.0-py3-none-any.whl",
        "pip install ./agent fastapi",
    ],
)
def test_a_line_that_installs_files_passes(line: str) -> None:
    assert not BY_NAME.search(line)


@pytest.mark.parametrize("line", ["pip install ./dev", "pip install sidecar_dev-0.1.0-py3-none-any.whl"])
def test_tools_for_development_alone_are_noticed(line: str) -> None:
    assert DEV_ALONE.search(line)


@pytest.mark.parametrize("extra", get_args(Extra))
def test_a_missing_extra_is_installed_from_a_clone_or_a_wheel(extra: Extra) -> None:
    wheel = f"delegation_sidecar-{__version__}-py3-none-any.whl[{extra}]"
    assert install_command(extra) == f"in a clone `pip install '.[{extra}]'`, from a release `pip install '{wheel}'`"
    assert needs(extra).startswith(f'needs the extra "{extra}": ')
    assert extra in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
