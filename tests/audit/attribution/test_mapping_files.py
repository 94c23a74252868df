from dataclasses import fields
from importlib.resources import files
from pathlib import Path

import pytest

from delegation_audit.attribution.mapping import FieldNames, LogFormat
from delegation_audit.attribution.mapping_files import SHIPPED, MappingError, load, load_shipped

PAGE = (Path(__file__).parents[3] / "docs" / "attribution.md").read_text()

OWN = """
name = "crm"
title = "our CRM"
kind = "json"
recognise = [{ app = ["crm*"] }]
requests = [{ "@method" = ["*"] }]

[fields]
user = [["Who.Id", "who.name"]]
actor = ["for.agent"]
method = ["verb"]
"""


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "own.toml"
    file.write_text(text)
    return str(file)


def test_every_shipped_mapping_is_in_the_order_and_says_what_it_shows() -> None:
    stored = {path.name for path in files("delegation_audit.attribution").joinpath("formats").iterdir()}
    assert stored == {f"{name}.toml" for name in SHIPPED}
    for mapping in load_shipped():
        assert mapping.shows
        assert mapping.misses


def test_mappings_of_the_operator_are_tried_first(tmp_path: Path) -> None:
    own, *rest = load([written(tmp_path, OWN)])
    assert [mapping.name for mapping in rest] == list(SHIPPED)
    assert own.fields.user == (("who.id", "who.name"),)
    assert own.fits({"app": "crm-eu"})
    assert not own.fits({"app": "shop"})


def test_a_mapping_extends_a_shipped_one_that_extends_another(tmp_path: Path) -> None:
    own = load([written(tmp_path, OWN.replace('kind = "json"', 'kind = "json"\nextends = "envoy-json"'))])[0]
    assert own.fields.method[0] == "verb"
    assert {":method", "request_method"} <= set(own.fields.method)
    assert "jwt_payload" in own.fields.claims


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param("[fields]\nuser", "[fields]\nusr", "fields.usr: no such key; did you mean 'user'?", id="a-field"),
        pytest.param("requests =", "request =", "request: no such key; did you mean 'requests'?", id="a-key"),
        pytest.param('title = "our CRM"', "", "title: missing; every mapping has name, title and kind", id="no-title"),
        pytest.param('"our CRM"', "1", "title: write a text in quotes", id="a-title"),
        pytest.param('"crm"', '"C R M"', "name: write lower-case letters, digits and dashes", id="a-name"),
        pytest.param('"json"', '"jsn"', "kind: 'jsn' is none of template, json, ", id="a-kind"),
        pytest.param('"json"', '"template"', "templates: needed with kind", id="no-templates"),
        pytest.param('"json"', '"json"\ntemplates = ["{a}"]', "templates: needed with kind", id="needless-templates"),
        pytest.param('"json"', '"template"\ntemplates = ["{a}{b}"]', "templates[0]: no text", id="a-template"),
        pytest.param("recognise =", "own =", "recognise: needed, for example", id="not-recognised"),
        pytest.param("[{ app", "[{ app = [] }, { app", "recognise[0].app: write at least one pattern", id="no-pattern"),
        pytest.param('["crm*"]', '"crm*"', "recognise[0].app: write a list of texts", id="a-pattern-alone"),
        pytest.param("[{ app", '["crm"]#', "recognise: write a list of tables", id="no-table"),
        pytest.param('["verb"]', '"verb"', "fields.method: write a list of texts", id="no-list"),
        pytest.param('["for.agent"]', "[1]", "fields.actor: write a list of texts", id="a-number"),
        pytest.param('["for.agent"]', '"x"', "fields.actor: write a list of fields", id="a-party-alone"),
        pytest.param("[fields]", "fields = 1\n[x]", "fields: write a table", id="fields"),
        pytest.param('"json"', '"json"\nextends = "enovy"', "extends: 'enovy' is no shipped mapping", id="extends"),
        pytest.param("name =", "name", "not TOML", id="no-toml"),
    ],
)
def test_a_fault_of_a_mapping_names_the_key_and_the_fix(old: str, new: str, said: str, tmp_path: Path) -> None:
    file = written(tmp_path, OWN.replace(old, new, 1))
    with pytest.raises(MappingError) as error:
        load([file])
    assert f"{file}: {said}" in str(error.value)


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(MappingError) as error:
        load([written(tmp_path, OWN.replace("title", "titel").replace("method =", "methods ="))])
    assert len(str(error.value).splitlines()) == 3


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(MappingError) as error:
        load([str(tmp_path / "absent")])
    assert "absent: cannot be read: No such file" in str(error.value)
    with pytest.raises(MappingError) as error:
        load([written(tmp_path, "#" * 300_000)])
    assert "larger than 262144 bytes" in str(error.value)


def test_the_page_has_a_row_for_each_format_and_says_what_it_shows() -> None:
    for mapping in load_shipped():
        assert f"| `{mapping.name}` | {mapping.title} | {mapping.shows} | {mapping.misses} |" in PAGE
    assert PAGE.count("\n| `sidecar` |") == 1


def test_the_page_names_every_key_and_its_example_is_one(tmp_path: Path) -> None:
    for key in {one.name for one in fields(LogFormat) if one.init} - {"name", "title", "shows", "misses", "fields"}:
        assert f"`{key}`" in PAGE
    for one in fields(FieldNames):
        assert f"`fields.{one.name}`" in PAGE
    example = PAGE.partition("```toml\n")[2].partition("```")[0]
    own = load([written(tmp_path, example)])[0]
    found = own.compiled[0].match('10:00:00 10.0.3.7 alice via writer "GET /orders HTTP/1.1" 200')
    assert found is not None
    assert found["agent"] == "writer"
