from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from delegation_core.errors import ConfigError
from sidecar.injector.inject import RefusedError, inject
from sidecar.injector.injection import Injection, parse_injection
from sidecar.injector.sizes import ANNOTATIONS, quantity
from tests.injector.pods import RENDERED, bare, classic, injection, patched

NAMESPACES = {"agents": {"cpuLimit": "1", "memoryLimit": "512Mi", "startupSeconds": "300"}}


def asking(**sizes: str) -> dict[str, Any]:
    """Return a pod that chooses sizes by annotations."""
    names = {ANNOTATIONS[name]: value for name, value in sizes.items()}
    return bare(annotations={"delegation-sidecar.io/settings": "planner", **names})


def sidecar_of(pod: dict[str, Any], definition: Injection, namespace: str = "") -> dict[str, Any]:
    made = patched(pod, inject(pod, definition, namespace).patch)
    assert inject(made, definition, namespace).patch == []  # the second review finds it unchanged
    own: dict[str, Any] = made["spec"][definition.goes_into][0]
    return own


# --- chosen sizes


def test_a_pod_chooses_its_sidecar_s_share_and_time_to_start_by_annotations() -> None:
    own = sidecar_of(
        asking(cpuRequest="100m", cpuLimit="1.5", memoryRequest="128Mi", memoryLimit="1Gi", startupSeconds="600"),
        injection(),
    )
    assert own["resources"] == {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "1.5", "memory": "1Gi"},
    }
    assert own["startupProbe"]["failureThreshold"] == 600
    changed = {"resources", "startupProbe"}
    assert {k: v for k, v in own.items() if k not in changed} == {
        k: v for k, v in injection().container.items() if k not in changed
    }


def test_a_classic_sidecar_s_hook_waits_as_long_as_its_probe() -> None:
    own = sidecar_of(asking(startupSeconds="600"), classic_with_hook())
    assert own["startupProbe"]["failureThreshold"] == 600
    assert own["lifecycle"]["postStart"]["exec"]["command"][-1] == "--wait=600"
    assert sidecar_of(asking(), classic_with_hook()) == classic_with_hook().container


def classic_with_hook() -> Injection:
    command = ["python3", "-m", "sidecar.cli", "healthcheck", "--probe=127.0.0.1:7090", "--wait=120"]
    container = {**classic().container, "lifecycle": {"postStart": {"exec": {"command": command}}}}
    return injection(mode="classic", container=container)


def test_a_namespace_has_sizes_of_its_own_and_a_pod_s_choice_wins_over_them() -> None:
    definition = injection(namespaces=NAMESPACES)
    own = sidecar_of(bare(), definition, "agents")
    assert own["resources"]["limits"] == {"cpu": "1", "memory": "512Mi"}
    assert own["resources"]["requests"] == {"cpu": "50m", "memory": "96Mi"}
    assert own["startupProbe"]["failureThreshold"] == 300
    assert sidecar_of(asking(cpuLimit="2"), definition, "agents")["resources"]["limits"]["cpu"] == "2"
    assert sidecar_of(bare(), definition, "other") == injection().container


def test_a_sidecar_of_a_chart_is_known_only_with_the_time_to_start_that_its_pod_names() -> None:
    definition = injection()
    pod = patched(asking(startupSeconds="600"), inject(asking(startupSeconds="600"), definition).patch)
    del pod["metadata"]["annotations"][ANNOTATIONS["startupSeconds"]]
    assert refused(pod, definition)[0].startswith("rule foreign_sidecar ")


# --- refused sizes


def refused(pod: dict[str, Any], definition: Injection, namespace: str = "") -> list[str]:
    with pytest.raises(RefusedError) as error:
        inject(pod, definition, namespace)
    return [str(one) for one in error.value.refusals]


CPU = "annotation delegation-sidecar.io/cpu-limit"
REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "too little": ({"cpuLimit": "99m"}, f"rule size (layer {CPU}): it is below 100m; choose 100m to 8"),
    "too much": ({"cpuLimit": "8001m"}, "it is above 8; choose 100m to 8; the platform sets injector.bounds.cpuLimit"),
    "too much memory": ({"memoryLimit": "4097Mi"}, "it is above 4Gi"),
    "too little memory": ({"memoryRequest": "63Mi"}, "it is below 64Mi"),
    "no quantity": ({"cpuLimit": "much"}, "it is not a quantity; write one as 100m"),
    "empty": ({"cpuLimit": ""}, "it is not a quantity"),
    "below nothing": ({"cpuLimit": "-1"}, "it is not a quantity"),
    "a quantity of a thousand digits": ({"cpuLimit": "1" * 1000}, "it is not a quantity"),
    "too long": ({"startupSeconds": "901"}, "it is above 900"),
    "no time at all": ({"startupSeconds": "0"}, "it is not a whole number of seconds; write 300"),
    "half a second": ({"startupSeconds": "30.5"}, "it is not a whole number of seconds"),
    "a thousand seconds": ({"startupSeconds": "1k"}, "it is not a whole number of seconds"),
    "a request above the limit": (
        {"memoryRequest": "512Mi"},
        "memory: the request 512Mi is above the limit 256Mi; set delegation-sidecar.io/memory-request and "
        "delegation-sidecar.io/memory-limit",
    ),
}


@pytest.mark.parametrize(("sizes", "said"), REFUSED.values(), ids=REFUSED)
def test_a_size_outside_the_bounds_is_refused_with_the_fix(sizes: dict[str, str], said: str) -> None:
    (one,) = refused(asking(**sizes), injection())
    assert said in one


@pytest.mark.parametrize(
    "sizes", [{"cpuLimit": "100m"}, {"cpuLimit": "8"}, {"cpuLimit": "8000m"}, {"startupSeconds": "900"}]
)
def test_the_bounds_themselves_are_allowed(sizes: dict[str, str]) -> None:
    assert sidecar_of(asking(**sizes), injection())


def test_a_size_of_another_type_is_no_pod() -> None:
    pod = bare(annotations={"delegation-sidecar.io/settings": "planner", ANNOTATIONS["cpuLimit"]: 1})
    assert refused(pod, injection())[0].startswith("rule malformed ")


@pytest.mark.parametrize("limits", [{"memory": "1Mi"}, {"memory": "5Gi"}, {"memory": "256Mi", "cpu": "9"}])
def test_who_writes_the_container_is_held_to_the_same_bounds(limits: dict[str, str]) -> None:
    pod = patched(bare(), inject(bare(), injection()).patch)
    pod["spec"]["initContainers"][0] = {**pod["spec"]["initContainers"][0], "resources": {"limits": limits}}
    assert all(one.startswith("rule size (layer container sidecar, resources.") for one in refused(pod, injection()))


def test_a_sidecar_without_its_limit_or_with_one_that_is_no_quantity_is_refused() -> None:
    pod = patched(bare(), inject(bare(), injection()).patch)
    own = pod["spec"]["initContainers"][0] = {**pod["spec"]["initContainers"][0]}
    for resources, said in (
        ({"limits": {"cpu": "1"}}, "resources.limits.memory): it is missing"),
        ({"limits": {"memory": True}}, "rule malformed "),
        ({"limits": {"memory": ["256Mi"]}}, "rule malformed "),
    ):
        own["resources"] = resources
        assert any(said in one for one in refused(pod, injection())), said
    own["resources"] = {"limits": {"memory": 268435456}, "requests": {"cpu": 0.05, "memory": "96Mi"}}
    assert inject(pod, injection()).patch == []


def test_a_misspelt_annotation_and_a_label_among_annotations_are_warned_of() -> None:
    names = {"delegation-sidecar.io/cpu-limits": "1", "delegation-sidecar.io/inject": "enabled"}
    pod = bare(annotations={"delegation-sidecar.io/settings": "planner", **names})
    misspelt, label = inject(pod, injection()).warnings
    assert misspelt.startswith("annotation delegation-sidecar.io/cpu-limits: it has no effect; known are ")
    assert label == "annotation delegation-sidecar.io/inject: it has no effect; it is a label"
    assert inject(asking(cpuLimit="1"), injection()).warnings == []


# --- sizes that the chart renders


def rendered(**changed: Any) -> bytes:
    return json.dumps({**json.loads(RENDERED), **changed}).encode()


BOUNDS = json.loads(RENDERED)["bounds"]
BAD: dict[str, dict[str, Any]] = {
    "no bounds": {"bounds": {}},
    "a bound upside down": {"bounds": {**BOUNDS, "cpuLimit": {"min": "2", "max": "1"}}},
    "a bound that is none": {"bounds": {**BOUNDS, "cpuLimit": {"min": "x", "max": "1"}}},
    "a namespace beyond the bounds": {"namespaces": {"agents": {"cpuLimit": "9"}}},
    "a namespace that starts for longer": {"namespaces": {"agents": {"startupSeconds": "9999"}}},
    "a bound too many": {"bounds": {**BOUNDS, "gpu": {"min": "1", "max": "2"}}},
    "a namespace of other sizes": {"namespaces": {"agents": {"gpu": "1"}}},
    "a default beyond the bounds": {"bounds": {**BOUNDS, "memoryLimit": {"min": "512Mi", "max": "1Gi"}}},
}


@pytest.mark.parametrize("changed", BAD.values(), ids=BAD)
def test_a_definition_that_contradicts_its_bounds_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        parse_injection(rendered(**changed))


QUANTITIES = {
    "1": "1", "0.5": "0.5", ".5": "0.5", "1.": "1", "100m": "0.1", "5n": "5E-9", "2k": "2000", "1M": "1000000",
    "1Ki": "1024", "1Gi": "1073741824", "1e3": "1000", "1E3": "1000", "1E": "1E+18", "1.5Gi": "1610612736",
}  # fmt: skip


@pytest.mark.parametrize(("text", "number"), QUANTITIES.items(), ids=QUANTITIES)
def test_a_quantity_is_read_as_kubernetes_reads_it(text: str, number: str) -> None:
    assert quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "+1", "-1", "1 ", "1K", "1kb", "1e", "e3", "1e999", "0x1", "१", "1,5", "m"])
def test_what_is_no_quantity_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        quantity(text)
