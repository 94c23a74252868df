"""A running pod that is resized or given a debugger: its sidecar keeps its size and its secrets."""

from __future__ import annotations

import copy
from typing import Any, Final

import pytest

from sidecar.injector.inject import RefusedError, inject, judge_change
from tests.injector.pods import acting, bare, classic, injection, patched

DEBUGGER: Final[dict[str, Any]] = {"name": "debug", "image": "x:1", "targetContainerName": "agent"}


def running(**annotations: str) -> dict[str, Any]:
    """Return a pod as it runs, with keys, a door and the handle."""
    said = {f"delegation-sidecar.io/{name}": value for name, value in annotations.items()}
    asked = bare({"securityContext": {"runAsUser": 1000, "fsGroup": 2747}}, annotations={SETTINGS: "planner", **said})
    return patched(asked, inject(asked, acting(door=True)).patch)


SETTINGS: Final = "delegation-sidecar.io/settings"
ASKING: Final = {"keys": "planner-keys", "door": "planner-tls", "workload-handle": "agent"}


def refused(pod: dict[str, Any], old: dict[str, Any]) -> set[str]:
    with pytest.raises(RefusedError) as error:
        judge_change(pod, old, acting(door=True), "agents")
    return {refusal.rule for refusal in error.value.refusals}


def mount(name: str) -> dict[str, Any]:
    return {"volumeMounts": [{"name": name, "mountPath": "/x"}]}


# a debugger's members → the rule that refuses it
HOLES: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "the sidecar's processes": ({"targetContainerName": "sidecar"}, "shared_process_namespace"),
    "the sidecar's user": ({"securityContext": {"runAsUser": 2747}}, "sidecar_uid"),
    "the sidecar's name": ({"name": "sidecar"}, "foreign_sidecar"),
    "privileges": ({"securityContext": {"privileged": True}}, "privileged"),
    "a capability": ({"securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}}, "privileged"),
    "the Workload API": (mount("sidecar-workload-api"), "sidecar_volume"),
    "the keys": (mount("sidecar-keys"), "sidecar_volume"),
    "the handle": (mount("sidecar-handle"), "workload_handle"),
    "the Secret of the keys": ({"envFrom": [{"secretRef": {"name": "planner-keys"}}]}, "keys"),
    "the Secret of the door": ({"envFrom": [{"secretRef": {"name": "planner-tls"}}]}, "door"),
}


@pytest.mark.parametrize(("members", "rule"), HOLES.values(), ids=HOLES)
def test_a_debugger_that_reaches_the_sidecar_is_refused(members: dict[str, Any], rule: str) -> None:
    old = running(**ASKING)
    pod = copy.deepcopy(old)
    pod["spec"]["ephemeralContainers"] = [{**DEBUGGER, **members}]
    assert refused(pod, old) == {rule}


def test_a_debugger_whose_image_chooses_its_user_is_refused_and_one_beside_the_agent_is_not() -> None:
    old = running(**ASKING)
    pod = copy.deepcopy(old)
    pod["spec"]["ephemeralContainers"] = [DEBUGGER]
    judge_change(pod, old, acting(door=True), "agents")
    del pod["spec"]["securityContext"]["runAsUser"]
    pod["spec"]["containers"][0]["securityContext"] = {}  # which runs already, and is not judged again
    assert refused(pod, old) == {"sidecar_uid"}


def test_a_resize_of_the_sidecar_beyond_the_bounds_is_refused_and_one_within_them_or_of_another_is_not() -> None:
    old = running()
    for resources, lawful in (
        ({"limits": {"memory": "512Mi"}, "requests": {"cpu": "1", "memory": "128Mi"}}, True),
        ({"limits": {"memory": "5Gi"}, "requests": {"cpu": "1"}}, False),
        ({"limits": {"memory": "16Mi"}, "requests": {"cpu": "1"}}, False),
        ({"limits": {"memory": "512Mi"}, "requests": {"cpu": "1m"}}, False),
        ({"requests": {"cpu": "1"}}, False),
    ):
        pod = copy.deepcopy(old)
        pod["spec"]["initContainers"][0]["resources"] = resources
        if lawful:
            judge_change(pod, old, acting(door=True), "agents")
        else:
            assert refused(pod, old) == {"size"}, resources
        pod["spec"]["containers"][0]["resources"] = {"limits": {"memory": "64Gi"}}
        judge_change(pod, pod, acting(door=True), "agents")  # the sidecar stays as it is


def test_a_classic_sidecar_is_resized_within_the_bounds_too_and_a_pod_without_one_is_not_judged() -> None:
    asked = bare()
    old = patched(asked, inject(asked, classic()).patch)
    pod = copy.deepcopy(old)
    pod["spec"]["containers"][0]["resources"] = {"limits": {"memory": "5Gi"}}
    with pytest.raises(RefusedError, match="rule size "):
        judge_change(pod, old, classic())
    judge_change(bare(), bare(), injection())


def test_what_is_no_pod_is_refused() -> None:
    with pytest.raises(RefusedError, match="rule malformed "):
        judge_change({"spec": []}, bare(), injection())
