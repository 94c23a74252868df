"""Keys and the workload handle in the charts: off unless asked for, and the same for injected and own pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from sidecar.injector.inject import inject
from tests.injector.pods import acting, bare, patched
from tests.interop.engine import require
from tests.interop.helm import CHART, ROOT, helms, injection_of, missing, render, restricted_problems, static_chart
from tests.interop.values import changed

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

ACTING: Final[dict[str, Any]] = yaml.safe_load((CHART / "ci" / "full-acting-values.yaml").read_text())
BOTH: Final = {
    "injector": {"allowKeys": True, "allowWorkloadHandle": True},
    "sidecar": {"platform": "ceiling"},
}
ASKING: Final = {
    "delegation-sidecar.io/settings": "planner",
    "delegation-sidecar.io/keys": "planner-keys",
    "delegation-sidecar.io/workload-handle": "agent",
}


@pytest.fixture(autouse=True)
def _helm() -> None:
    require(missing())


@pytest.mark.parametrize(("keys", "handle"), [(True, True), (True, False), (False, True), (False, False)])
def test_the_unit_tests_are_about_what_helm_renders(*, keys: bool, handle: bool) -> None:
    values = {**BOTH, "injector": {"allowKeys": keys, "allowWorkloadHandle": handle}}
    rendered, known = injection_of(render(values)), acting(keys=keys, handle=handle)
    assert (rendered.container, list(rendered.volumes)) == (known.container, list(known.volumes))


@pytest.mark.parametrize("mode", ["native", "classic"])
def test_an_injected_pod_is_the_pod_that_a_chart_includes_the_library_in(mode: str, tmp_path: Path) -> None:
    definition = injection_of(render(changed("sidecar.mode", mode, BOTH)))
    own = {"mode": mode, "platform": "ceiling", "settings": "planner", "keys": "planner-keys", "workloadHandle": True}
    spec = render({"sidecar": own}, chart=static_chart(tmp_path / "team")).one("Pod")["spec"]
    spec = {key: value for key, value in spec.items() if value is not None}
    spec["securityContext"]["fsGroup"] = 2747
    asked = bare({"securityContext": {"runAsUser": 1000, "fsGroup": 2747}}, annotations=ASKING)
    assert patched(asked, inject(asked, definition).patch)["spec"] == spec
    assert inject(bare(spec), definition).patch[0]["path"].startswith("/metadata/")  # recognised without annotations
    assert restricted_problems({**spec, "containers": [c for c in spec["containers"] if c["name"] == "sidecar"]}) == []


def test_the_files_of_the_example_settings_are_where_the_charts_mount_them() -> None:
    mounts = {one["name"]: Path(one["mountPath"]) for one in injection_of(render(BOTH)).container["volumeMounts"]}
    own, outside = (
        yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text()) for name in ("own-authority", "outside")
    )
    assert Path(own["workload_handle"]["socket"]).parent == mounts["sidecar-handle"]
    files = [
        route["inject"]["file"] for one in (own, outside) for route in one["outbound"]["routes"] if "inject" in route
    ]
    assert {Path(file).parent for file in files} == {mounts["sidecar-keys"]}


def test_the_policy_of_a_platform_that_allows_neither_says_nothing_of_them() -> None:
    said = {
        name: str(render(values).one("ValidatingAdmissionPolicy")) for name, values in (("both", BOTH), ("none", {}))
    }
    for word in ("sidecar-keys", "sidecar-handle", "rule keys", "rule workload_handle"):
        assert (word in said["both"], word in said["none"]) == (True, False), word


# contradicting values → the fix
CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "a handle that every ceiling forbids": (
        changed("platforms", [{"name": "ceiling", "namespace": "agents", "settings": {"inject": ["a.example"]}}], BOTH),
        "injector.allowWorkloadHandle: platforms: ceiling forbids it in agents; write `allow_self: true` there",
    ),
    "one Secret for all": (
        changed("sidecar.keys", "keys", BOTH),
        "sidecar.keys: each pod names its own by the annotation delegation-sidecar.io/keys",
    ),
    "a handle for all": (
        changed("sidecar.workloadHandle", True, BOTH),
        "sidecar.workloadHandle: each pod names its agent by the annotation delegation-sidecar.io/workload-handle",
    ),
}


@pytest.mark.parametrize(("values", "fix"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_is_refused_with_the_fix(values: dict[str, Any], fix: str) -> None:
    for helm in helms():
        assert fix in render(values, helm=helm).said


def test_a_ceiling_that_allows_the_handle_in_one_namespace_is_enough_and_so_is_none() -> None:
    for helm in helms():
        assert render(ACTING, helm=helm).objects
        assert render(changed("sidecar.platform", "", BOTH), helm=helm).objects


MISTYPED: Final[dict[str, Any]] = {
    "injector.allowKeys": "planner-keys",
    "injector.allowWorkloadHandle": "agent",
    "injector.allowKeys ": None,
    "sidecar.keys": "Not A Name",
    "sidecar.workloadHandle": "yes",
}


@pytest.mark.parametrize("path", MISTYPED)
def test_a_value_out_of_its_range_is_refused(path: str) -> None:
    found = render(changed(path.strip(), MISTYPED[path], BOTH))
    assert not found.objects
    assert path.strip().rpartition(".")[2] in found.said
