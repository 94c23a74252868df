"""Commands of the pages, run as they are copied, on the files of the made-up company of ``sidecar audit all --sample``.

Programs that are not ours (kubectl, spire-server, curl, pip) are stand-ins that print what they would find there.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.docs.blocks import ROOT, block, commands_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

PROGRAMS: Final = {
    "kubectl": 'case "$*" in *logs*) cat sample/records/crm.jsonl;; *) cat sample/manifests/*.yaml;; esac',
    "spire-server": "cat sample/entries.json",
    "curl": "cat sample/jwks.json",
    "pip": "true",
}
# Each block by its page and the start of its first line: the exit code of each command, and what they print or write.
# 1 is the exit code of an audit that found something.
BLOCKS: Final = {
    ("docs/attribution.md", "sidecar audit attribution"): ([0, 1], "impersonates"),
    ("docs/audit.md", "$ pip install"): ([0, 1, 1], "static credentials"),
    ("docs/audit.md", "$ sidecar audit suggest"): ([1], "# spiffe://acme.example/tool/crm"),
    ("docs/audit.md", "$ sidecar audit replay"): ([1], "judged again"),
    ("docs/credentials.md", "sidecar audit credentials"): ([1, 1], "Database password"),
    ("docs/credentials.md", "openssl rand"): ([0, 1], ""),
    ("docs/from-api-keys.md", "sidecar audit all"): ([1], "acme"),
    ("docs/from-api-keys.md", "openssl rand"): ([0, 1], "Key of a model provider"),
    ("docs/from-api-keys.md", "sidecar audit attribution"): ([1], "impersonates"),
    ("docs/from-api-keys.md", "sidecar audit suggest"): ([1], "Proposed by"),
    ("docs/from-api-keys.md", "sidecar audit replay"): ([1], "judged again"),
    ("docs/from-api-keys.md", "sidecar audit ratio"): ([0, 1], "below 50 to 1"),
    ("docs/install.md", "sidecar completion bash"): ([0, 0, 0], ""),
    ("docs/post-mortem.md", "sidecar audit all"): ([1], "acme"),
    ("docs/post-mortem.md", "sidecar audit chains records/"): ([1, 0, 1], "for alice"),
    ("docs/post-mortem.md", "sidecar audit chains acme/"): ([0, 1], "report.html: 3 of 3 chains"),
    ("docs/post-mortem.md", "sidecar audit replay"): ([1], "judged again"),
    ("docs/post-mortem.md", "sidecar audit verify"): ([0], "planner"),
    ("docs/ratio.md", "$ sidecar audit ratio"): ([0, 0], "spiffe://acme.example/agent/planner"),
    ("docs/ratio.md", "$ openssl rand"): ([0, 0, 0], "spiffe://acme.example/agent/planner"),
    ("docs/selectors.md", "spire-server entry show"): ([0, 1], "admin"),
    ("docs/siem.md", "$ sidecar audit export"): ([0, 0], '"class_uid"'),
    ("docs/sts.md", "sidecar sts explain"): ([0, 1], "recorded: allow ok"),
    ("docs/sts.md", "sidecar sts policy"): ([0, 0, 0], "wrote policy.html"),
    ("docs/tamper-evidence.md", "$ curl"): ([0], ""),
    ("docs/tamper-evidence.md", "$ sidecar audit all"): ([1, 0, 0, 1], "planner"),
    ("docs/tamper-evidence.md", "$ sidecar audit verify"): ([1], "planner"),
    ("docs/tamper-evidence.md", "$ sed"): ([0], "  -"),
}
KEY: Final = "5f" * 32
REQUEST: Final = "59f98de2b75601501126ddfa8c234ab8"  # of docs/sts.md


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The company's files, under the names that pages use."""
    folder = tmp_path_factory.mktemp("pages")
    run("sidecar audit all --sample sample", folder)
    (folder / "bin").mkdir()
    for name, text in PROGRAMS.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    for name in (".local/share/bash-completion/completions", ".zsh", ".config/fish/completions", "logs"):
        (folder / name).mkdir(parents=True)
    company = folder / "sample"
    for name in ("agents.txt", "users.csv", "entries.json", "jwks.json", "records"):
        copy = shutil.copytree if (company / name).is_dir() else shutil.copy
        copy(company / name, folder / name)
    exchange = '"event":"token.exchanged"', '"request_id":null'
    issued = (company / "records" / "sts.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    first = next(number for number, line in enumerate(issued) if all(part in line for part in exchange))
    issued[first] = issued[first].replace(exchange[1], f'"request_id":"{REQUEST}"')
    (folder / "sts.jsonl").write_text("".join(issued), encoding="utf-8")
    shutil.copy(company / "jwks.json", folder / "jwks-2026-11.json")
    shutil.copy(company / "records" / "planner.jsonl", folder / "records.jsonl")
    shutil.copy(company / "logs" / "gateway.json.log", folder / "access.log")
    (folder / "audit.json.gz").write_bytes(gzip.compress((company / "logs" / "support-bot.log").read_bytes()))
    for path in (company / "records").iterdir():
        (folder / "logs" / f"{path.name}.zst").write_bytes(compressed(path.read_bytes()))
    return folder


def compressed(data: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return bytes(zstd.compress(data))


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "HOME": str(folder)}
    words = ["bash", "-o", "pipefail", "-c", command]
    return subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False)


def as_here(command: str) -> str:
    """Return a command with what a reader would put into it: the file of settings, the records of one workload."""
    command = command.replace(REQUEST, f"{REQUEST} --settings new.yaml")
    return command.replace(" records/ ", " records/crm.jsonl ") if " replay " in command else command


@pytest.mark.parametrize(("page", "start"), BLOCKS, ids=[f"{page}: {start}" for page, start in BLOCKS])
def test_the_commands_do_what_the_page_says(sample: Path, page: str, start: str) -> None:
    settings = "sts.yaml" if page == "docs/sts.md" else "tool.yaml"
    shutil.copy(ROOT / "config" / settings, sample / "new.yaml")
    shutil.copy(ROOT / "config" / "sts.yaml", sample / "sts.yaml")
    codes, shown = BLOCKS[page, start]
    shutil.copy(ROOT / "config" / "tool.yaml", sample / "crm.yaml")
    commands = commands_of(block(page, start))
    shutil.rmtree(sample / "acme", ignore_errors=True)
    if not any("--sample acme" in one for one in commands):  # that needs a new folder
        shutil.copytree(sample / "sample", sample / "acme")
    (sample / "audit.key").write_text(KEY)
    done = [run(as_here(one), sample) for one in commands]
    assert [(one.returncode, one.stderr) for one in done] == [(code, "") for code in codes]
    assert shown in "".join(one.stdout for one in done)


def test_a_command_with_another_option_fails(sample: Path) -> None:
    done = run("sidecar audit chains --nonsense records/", sample)
    assert done.returncode == 2
    assert "--nonsense" in done.stderr
