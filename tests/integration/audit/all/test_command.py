"""``sidecar audit all``: one page, exit codes, errors with their cure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sidecar.cli import main

pytestmark = pytest.mark.integration


def test_the_sample_is_written_audited_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "all", "--sample"]) == 1
    said = capsys.readouterr().out
    shutil.rmtree(said.partition("Audit of ")[2].partition(":")[0])
    for part in (
        "3  static credentials",
        "1  agents that impersonate",
        "2  weak entries",
        "3 to 1  machine",
        "Do first",
    ):
        assert part in said
    assert "sidecar audit chains" in said


def test_a_clean_folder_is_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").write_text("nothing\n")
    assert main(["audit", "all", "--json", str(tmp_path)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [number["value"] for number in document["numbers"]] == [0, None, None, None, None]


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "name a folder, or --sample"), (["--sample", "."], "name a folder, or --sample"), (["/nowhere"], "/nowhere")],
)
def test_what_cannot_be_used_is_named(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "all", *words]) == 2
    assert said in capsys.readouterr().err
