"""The page for an agent's framework shows lines of programs that are tested in a mesh."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = (ROOT / "docs" / "your-agent.md").read_text()
SHOWN: Final = re.findall(r"^```(python|ts|java)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PROGRAMS: Final = {
    suffix: {
        file: file.read_text() for file in (ROOT / "examples").rglob(f"*.{suffix}") if "node_modules" not in file.parts
    }
    for suffix in ("py", "ts", "java")
}


def lines(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if line.strip()}


@pytest.mark.parametrize(("language", "code"), SHOWN)
def test_each_piece_of_code_is_part_of_one_example(language: str, code: str) -> None:
    programs = PROGRAMS["py" if language == "python" else language]
    assert [file.name for file, text in programs.items() if lines(code) <= lines(text)] != []


def test_the_pages_name_every_example() -> None:
    listed = (ROOT / "examples" / "README.md").read_text()
    files = [file for programs in PROGRAMS.values() for file in programs]
    assert len(files) == 14
    for file in files:
        assert str(file.relative_to(ROOT / "examples")) in listed
