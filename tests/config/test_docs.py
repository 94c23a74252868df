import json
from pathlib import Path

import pytest

from sidecar.cli import main as main_command
from sidecar.config import json_schema
from sidecar.config.docs import main, pages, sections
from sidecar.delegation.profile import PRESETS

DOCS = Path(__file__).parents[2] / "docs"
SECTIONS = sections()
KEYS = [(name, key) for name, schema in SECTIONS.items() for key in schema["properties"]]


@pytest.mark.parametrize("page", pages())
def test_a_page_is_current(page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == pages()[page], "run: make docs"


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_says_whose_tokens_it_is_for(preset: str) -> None:
    section = pages()["profiles.md"].partition(f"## {preset}\n\n")[2].splitlines()
    assert section[0].endswith(".")


def test_the_page_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    main(tmp_path, tmp_path)
    schemas = {f"{name}.schema.json" for name in ("sidecar", "sts", "platform")}
    assert {file.name for file in tmp_path.iterdir()} == {"configuration.md", "profiles.md", *schemas}


def test_every_section_says_what_it_is() -> None:
    assert [name for name, schema in sections().items() if not schema.get("description")] == []


@pytest.mark.parametrize(("section", "key"), KEYS, ids=".".join)
def test_every_setting_has_a_meaning(section: str, key: str) -> None:
    assert SECTIONS[section]["properties"][key]["description"]


def test_every_link_leads_to_a_section() -> None:
    page = pages()["configuration.md"]
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in page.splitlines() if line.startswith("#")}
    links = {part.partition(")")[0] for part in page.split("](#")[1:]}
    assert links <= headings
    assert len(links) > 20


@pytest.mark.parametrize("words", [[], ["--sts"]], ids=["sidecar", "sts"])
def test_check_prints_the_schema(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main_command(["check", "--schema", *words]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema(sts=bool(words))
