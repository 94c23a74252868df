"""Settings in the chart's values: their JSON Schema in Helm, and every example of the page."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from sidecar.cli import main
from sidecar.config.document import parse_document
from sidecar.config.kinds import kind_of
from sidecar.injector.inject import inject
from tests.injector.pods import bare
from tests.interop.engine import ROOT, require
from tests.interop.helm import LIBRARY, Object, helms, injection_of, missing, render, run
from tests.interop.values import FULL_VALUES, changed

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

PAGE: Final = (ROOT / "docs" / "kubernetes.md").read_text()
EXAMPLES: Final = sorted([*(ROOT / "config").glob("*.yaml"), *(ROOT / "config" / "reference").glob("*.yaml")])


@pytest.fixture(autouse=True)
def _helm() -> None:
    require(missing())


# --- the schema


def _kind(path: Path) -> str:
    return kind_of(path, {})


def _values(kind: str, settings: Object) -> Object:
    """Return the full values with these settings, of a token service without what the chart sets."""
    if kind == "sts":
        kept = {key: value for key, value in settings.items() if key not in ("listen", "probe", "identity")}
        for key in ("directory",):
            kept["keys"] = {name: one for name, one in settings.get("keys", {}).items() if name != key}
        if "revocation" in kept:
            kept["revocation"] = {k: v for k, v in kept["revocation"].items() if k not in ("file", "replicas")}
            kept["revocation"]["events"] = {
                k: v for k, v in (kept["revocation"].get("events") or {}).items() if k != "listen"
            }
        return changed("sts.revocation.enabled", "revocation" in kept, changed("sts.settings", kept, FULL_VALUES))
    one = {"name": "x", "namespace": "agents", "settings": settings}
    return changed("platforms" if kind == "platform" else "workloads", [one], FULL_VALUES)


def _settings(path: Path) -> Object:
    document = parse_document(path.read_text(), name=str(path))
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_example_of_settings_is_lawful_in_the_values_of_every_helm(path: Path) -> None:
    kind = _kind(path)
    for helm in helms():
        found = render(_values(kind, _settings(path)), helm=helm)
        assert found.objects, found.said


def _misspelt(settings: Any, way: str = "") -> Iterator[tuple[str, Callable[[Object], None]]]:
    """Yield each place of a mapping at most three levels deep, with a function that adds an unknown key there."""

    def at(whole: Any, parts: list[str]) -> Any:
        for part in parts:
            whole = whole[int(part)] if isinstance(whole, list) else whole[part]
        return whole

    parts = [part for part in way.split("/") if part]
    if isinstance(settings, dict) and len(parts) <= 3:
        yield way, lambda whole: at(whole, parts).update(nonsense=1)
        for key, inner in settings.items():
            yield from _misspelt(inner, f"{way}/{key}")
    elif isinstance(settings, list) and settings:
        yield from _misspelt(settings[0], f"{way}/0")


FREE: Final = re.compile(r"/(map|headers|scopes|client_ids|long_runs|scope_from/map|[a-z_]*hosts)$")  # maps of any keys
TYPED: Final[dict[str, list[tuple[str, Any]]]] = {
    "sidecar": [("drain_s", "soon"), ("inbound", {"agent": 8080, "routes": []}), ("issuers", {})],
    "sts": [("token_life_s", "300"), ("rules", {}), ("targets", [{"workload": 1, "scopes": []}])],
    "platform": [("allow_self", "yes"), ("doors", "https://x")],
}


@pytest.mark.parametrize("name", ["agent", "sts", "platform"])
def test_a_misspelt_key_at_any_place_and_a_value_of_another_type_are_refused_with_their_place(name: str) -> None:
    settings, kind = _settings(ROOT / "config" / f"{name}.yaml"), _kind(ROOT / "config" / f"{name}.yaml")
    prefix = {"sidecar": "/workloads/0/settings", "sts": "/sts/settings", "platform": "/platforms/0/settings"}[kind]
    values = _values(kind, settings)
    own = values["sts"]["settings"] if kind == "sts" else settings
    tried = 0
    for way, misspell in _misspelt(own):
        if FREE.search(way):
            continue
        wrong = copy.deepcopy(own)
        misspell(wrong)
        whole = changed("sts.settings", wrong, values) if kind == "sts" else _values(kind, wrong)
        found = render(whole, helm=helms()[tried % len(helms())])
        assert (found.objects, prefix in found.said) == ([], True), (way, found.said)
        tried += 1
    assert tried >= 4
    for key, value in TYPED[kind]:
        for helm in helms():
            wrong = {**own, key: value}
            whole = changed("sts.settings", wrong, values) if kind == "sts" else _values(kind, wrong)
            found = render(whole, helm=helm)
            assert (found.objects, f"{prefix}/{key}" in found.said) == ([], True), found.said


@pytest.mark.parametrize("key", ["issuer", "targets", "rules"])
def test_settings_of_a_token_service_without_a_needed_key_are_refused(key: str) -> None:
    settings = {name: value for name, value in FULL_VALUES["sts"]["settings"].items() if name != key}
    for helm in helms():
        found = render(changed("sts.settings", settings, FULL_VALUES), helm=helm)
        assert (found.objects, f"sts.settings.{key} is missing" in found.said) == ([], True), found.said


# --- the page's examples: every block of YAML, by what it is


def blocks() -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def of_values(text: str) -> bool:
    return re.match(r"(sts|sidecar|networkPolicy|workloads):", text) is not None


VALUES: Final = [text for text in blocks() if of_values(text)]
POD: Final = ["metadata:\n", "env: ["]  # parts of a pod or of its container
OWN_CHART: Final = "# Chart.yaml\n"


def test_every_example_of_the_page_is_of_a_kind_that_is_tested() -> None:
    others = [text for text in blocks() if not of_values(text)]
    assert sorted(next(start for start in (*POD, OWN_CHART) if text.startswith(start)) for text in others) == sorted(
        [*POD, OWN_CHART]
    )
    assert len(VALUES) == 3


@pytest.mark.parametrize("text", VALUES, ids=lambda text: text.splitlines()[1].strip())
def test_values_of_the_page_are_rendered_and_pass_the_check(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "values.yaml").write_text(text)
    assert main(["check", "--kubernetes", str(tmp_path / "values.yaml")]) == 0, capsys.readouterr().err
    for helm in helms():
        found = render(tmp_path / "values.yaml", helm=helm)
        assert found.objects, found.said


def test_a_pod_with_the_annotations_of_the_page_is_injected() -> None:
    document = yaml.safe_load(next(text for text in blocks() if text.startswith("metadata:")))
    values = {
        "injector": {"allowKeys": True, "allowWorkloadHandle": True},
        "sidecar": {"platform": "ceiling"},
        "platforms": [{"name": "ceiling", "namespace": "agents", "settings": {"allow_self": True}}],
    }
    definition = injection_of(render(values))
    spec = {"securityContext": {"runAsUser": 1000, **document["spec"]["securityContext"]}}
    assert inject(bare(spec, **document["metadata"]), definition, "agents").warnings == []


def test_the_variables_of_the_page_are_addresses_of_the_sidecar() -> None:
    (variables,) = [yaml.safe_load(text)["env"] for text in blocks() if text.startswith("env:")]
    proxy = {one["name"]: one["value"] for one in variables}["HTTPS_PROXY"]
    (outbound,) = injection_of(render()).agent_env
    assert proxy == outbound["value"]


def test_the_page_s_own_chart_is_rendered(tmp_path: Path) -> None:
    text = next(text for text in blocks() if text.startswith(OWN_CHART))
    chart, values, pod = re.split(r"^# (?:Chart\.yaml|values\.yaml|the pod)\n", text, flags=re.MULTILINE)[1:]
    folder = tmp_path / "team"
    (folder / "templates").mkdir(parents=True)
    (folder / "charts").mkdir()
    (folder / "charts" / "sidecar-lib").symlink_to(LIBRARY)
    (folder / "Chart.yaml").write_text(f"apiVersion: v2\nname: team\nversion: 1.0.0\n{chart}")
    (folder / "values.yaml").write_text(values)
    spec = "".join(f"  {line}\n" for line in pod.splitlines())
    (folder / "templates" / "pod.yaml").write_text(f"apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n{spec}")
    for helm in helms():
        done = run(helm, "template", "team", str(folder))
        assert done.returncode == 0, done.stderr
        made = next(one for one in yaml.safe_load_all(done.stdout) if one)
        done_by_injector = inject(bare(made["spec"]), injection_of(render())).patch
        assert done_by_injector[0]["path"].startswith("/metadata/")  # it is as injected, with nothing to add
