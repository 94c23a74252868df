"""The charts as far as they can be checked without Helm: one source for each fact, documented and closed values."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parent.parent
HELM: Final = ROOT / "helm"
CHARTS: Final = ("sidecar", "sidecar-lib")

sys.path.insert(0, str(ROOT / ".ci"))
from chart_docs import readme, undocumented  # type: ignore[import-not-found] # noqa: E402
from chart_schema import written  # type: ignore[import-not-found] # noqa: E402


def read(chart: str, name: str) -> str:
    return (HELM / chart / name).read_text()


@pytest.mark.parametrize("chart", CHARTS)
def test_every_value_is_documented_in_place_and_the_readme_is_written_from_it(chart: str) -> None:
    values = read(chart, "values.yaml")
    assert undocumented(values) == []
    assert read(chart, "README.md") == readme(read(chart, "README.md"), values)


def test_a_value_without_a_comment_would_be_noticed() -> None:
    assert undocumented("# -- told\na: 1\nb:\n  # -- told\n  c: 2\n  d: 3\n") == ["b.d"]


def objects(schema: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            yield where, schema
        for key, inner in schema.items():
            yield from objects(inner, f"{where}/{key}")
    elif isinstance(schema, list):
        for inner in schema:
            yield from objects(inner, where)


@pytest.mark.parametrize("chart", CHARTS)
def test_no_section_of_the_values_takes_an_unknown_key(chart: str) -> None:
    schema = json.loads(read(chart, "values.schema.json"))
    for where, section in objects(schema):
        assert section["additionalProperties"] is False, where
    assert set(yaml.safe_load(read(chart, "values.yaml"))) <= set(schema["properties"])


def test_the_schema_of_settings_in_the_values_is_written_from_the_settings() -> None:
    text = read("sidecar", "values.schema.json")
    assert written(text) == text
    places = json.loads(text)
    files = {name: places["definitions"][name] for name in ("SidecarFile", "StsFile", "PlatformFile")}
    for name, section in files.items():
        whole = json.loads((ROOT / "config" / f"{name.removesuffix('File').lower()}.schema.json").read_text())
        assert section["properties"].keys() == whole["properties"].keys()
    assert '"settings": {"type": "object"}' not in text  # every place has the schema


def lacking(schema: dict[str, Any], values: dict[str, Any], whole: dict[str, Any], where: str = "") -> Iterator[str]:
    """Return values that null removes although templates use them: all with a default, except maps of free keys."""
    for name, value in values.items():
        inner = schema["properties"][name]
        if "$ref" in inner:
            inner = whole["definitions"][inner["$ref"].rpartition("/")[2]]
        if value in ("", [], {}) or (isinstance(value, dict) and "properties" not in inner):
            continue
        if name not in schema.get("required", ()):
            yield f"{where}{name}"
        if isinstance(value, dict):
            yield from lacking(inner, value, whole, f"{where}{name}.")


@pytest.mark.parametrize(("chart", "free"), [("sidecar", []), ("sidecar-lib", ["image.tag"])])  # a digest is enough
def test_every_value_that_has_a_default_is_required(chart: str, free: list[str]) -> None:
    schema = json.loads(read(chart, "values.schema.json"))
    assert list(lacking(schema, yaml.safe_load(read(chart, "values.yaml")), schema)) == free


def test_rules_dashboards_and_library_are_the_only_ones_there_are() -> None:
    chart = HELM / "sidecar"
    assert (chart / "rules").resolve() == ROOT / "monitoring" / "rules"
    assert (chart / "dashboards").resolve() == ROOT / "monitoring" / "dashboards"
    assert (chart / "charts" / "sidecar-lib").resolve() == HELM / "sidecar-lib"


def test_the_charts_are_of_one_version_and_of_the_oldest_kubernetes_with_native_sidecars() -> None:
    found = [yaml.safe_load(read(chart, "Chart.yaml")) for chart in CHARTS]
    assert {one["version"] for one in found} == {found[0]["dependencies"][0]["version"]}
    assert {one["kubeVersion"] for one in found} == {">=1.29.0-0"}


def test_the_image_of_both_charts_is_the_same_unless_set() -> None:
    own, library = (yaml.safe_load(read(chart, "values.yaml")) for chart in CHARTS)
    assert own["sidecar"]["image"] == library["image"]


def test_no_template_names_an_image() -> None:
    for file in HELM.rglob("templates/**/*"):
        if file.is_file():
            for line in file.read_text().splitlines():
                if line.strip().startswith("image:"):
                    assert 'include "sidecar-lib.image"' in line, file


def test_what_is_not_generated_stays_the_same_at_each_rendering() -> None:
    """GitOps tools never settle on a chart whose rendering looks things up or makes certificates.

    ``refuse.yaml`` and what it includes render nothing: their lookups can stop an installation, but change none.
    """
    words = re.compile(r"\b(lookup|genCA|genSigned\w*|randAlpha\w*|now)\b")
    for file in HELM.rglob("templates/**/*"):
        if file.is_file():
            actions = " ".join(re.findall(r"{{.*?}}", re.sub(r"/\*.*?\*/", "", file.read_text(), flags=re.S)))
            found = set(words.findall(re.sub(r'"[^"]*"', "", actions)))
            assert found <= ({"lookup"} if file.name in ("refuse.yaml", "_withdrawal.tpl") else set()), file


def test_the_lookups_beside_the_refusals_are_included_by_these_alone() -> None:
    names = set(re.findall(r'define "([^"]+)"', read("sidecar", "templates/_withdrawal.tpl")))
    for file in HELM.rglob("templates/**/*"):
        if file.is_file() and file.name not in ("refuse.yaml", "_withdrawal.tpl"):
            assert not names & set(re.findall(r'include "([^"]+)"', file.read_text())), file
