"""The page of commands is what their parsers say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Final

ROOT: Final = Path(__file__).parents[2]


def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cli_docs", ROOT / ".ci" / "cli_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_make_docs_writes() -> None:
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == writer().page()


def test_every_command_has_its_heading_with_an_example() -> None:
    sections = writer().page().split("\n## ")[1:]
    names = [section.partition("\n")[0] for section in sections]
    assert {"`sidecar run`", "`sidecar sts`", "`sidecar sts revoke`", "`sidecar audit chains`"} <= set(names)
    assert [section.partition("\n")[0] for section in sections if "\n```\n" not in section] == []
