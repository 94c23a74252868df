"""Former versions of files: found, dated, and read without running anything that the repository names."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from delegation_audit.credentials.detector import Kingfisher
from delegation_audit.credentials.examine import Result, examine
from delegation_audit.credentials.fields import Exposure
from delegation_audit.credentials.history import HistoryError, versions
from delegation_audit.credentials.repositories import OUTSIDE
from sidecar.cli import main
from tests.audit.credentials.drawn import GITHUB, HUGGING_FACE

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
NOW = 1_790_000_000


def git(folder: Path, *words: str, day: str = "2025-01-02") -> None:
    when = f"{day}T10:00:00+0000"
    environment = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when, "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    names = ("-c", "user.name=a", "-c", "user.email=a@acme.example", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *names, "-C", str(folder), *words], check=True, env=environment, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "a.env").write_text(f"TOKEN={GITHUB}\n")
    (tmp_path / "b.env").write_text(f"HF_TOKEN={HUGGING_FACE}\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    (tmp_path / "a.env").write_text("TOKEN=${TOKEN}\n")
    (tmp_path / "b.env").write_text(f"# kept\nHF_TOKEN={HUGGING_FACE}\n")
    git(tmp_path, "commit", "-qam", "two", day="2026-03-04")
    return tmp_path


def run(folder: Path, kingfisher: Kingfisher, *, history: bool = True) -> Result:
    return examine([str(folder)], kingfisher, now=NOW, history=history)


def test_a_removed_secret_is_still_found_with_its_commit_and_age(repository: Path, kingfisher: Kingfisher) -> None:
    removed = next(one for one in run(repository, kingfisher).credentials if one.provider == "GitHub")
    (place,) = removed.places
    assert removed.exposures == (Exposure.HISTORY,)
    assert removed.created == "2025-01-02"
    assert place.object is not None
    assert "commit " in place.object


def test_the_table_names_the_commit_of_a_removed_secret_and_none_of_a_present_one(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "credentials", "--history", str(repository)]) == 1
    out = capsys.readouterr().out
    assert re.search(r"a\.env:1 in commit [0-9a-f]{12}", out)
    assert "b.env:2" in out
    assert "b.env:2 in commit" not in out


def test_a_secret_that_is_there_is_dated_by_its_first_commit(repository: Path, kingfisher: Kingfisher) -> None:
    kept = next(one for one in run(repository, kingfisher).credentials if one.provider == "Hugging Face")
    assert [(Path(place.file).name, place.line) for place in kept.places] == [("b.env", 2)]
    assert kept.created == "2025-01-02"


def test_without_history_only_the_present_is_read(repository: Path, kingfisher: Kingfisher) -> None:
    (kept,) = run(repository, kingfisher, history=False).credentials
    assert (kept.provider, kept.created) == ("Hugging Face", None)


def test_no_program_that_the_repository_names_is_run(repository: Path, kingfisher: Kingfisher) -> None:
    ran = repository / "ran"
    script = repository / "evil"
    script.write_text(f"#!/bin/sh\ntouch {ran}\n")
    script.chmod(0o755)
    for name in (
        "core.fsmonitor",
        "core.pager",
        "diff.external",
        "diff.evil.textconv",
        "filter.evil.smudge",
        "core.sshCommand",
    ):
        git(repository, "config", name, str(script))
    (repository / ".git" / "info").mkdir(exist_ok=True)
    (repository / ".git" / "info" / "attributes").write_text("* diff=evil filter=evil\n")
    assert len(run(repository, kingfisher).credentials) == 2
    assert not ran.exists()


def test_a_broken_repository_is_named_with_a_fix(repository: Path) -> None:
    for file in (repository / ".git" / "objects").rglob("*"):
        if file.is_file():
            file.chmod(0o600)
            file.write_bytes(b"broken")
    with pytest.raises(HistoryError, match="git fsck"):
        list(versions([str(repository)], Counter()))


def test_a_folder_outside_a_repository_has_no_history(tmp_path: Path) -> None:
    assert list(versions([str(tmp_path)], Counter())) == []


def test_a_repository_that_leads_out_of_the_folder_is_not_read_and_counted(
    repository: Path, kingfisher: Kingfisher
) -> None:
    audited = repository / "audited"
    audited.mkdir()
    (audited / ".git").write_text(f"gitdir: {repository / '.git'}\n")
    result = run(audited, kingfisher)
    assert (result.credentials, result.skipped[OUTSIDE], result.unread) == ((), 1, 1)
    assert any(one.provider == "GitHub" for one in run(repository, kingfisher).credentials)


def test_a_worktree_is_read_with_the_repository_that_it_belongs_to(repository: Path, kingfisher: Kingfisher) -> None:
    git(repository, "worktree", "add", "-q", str(repository / "tree"))
    assert OUTSIDE not in run(repository, kingfisher).skipped
    assert run(repository / "tree", kingfisher).skipped[OUTSIDE] == 1
