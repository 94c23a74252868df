from __future__ import annotations

import copy
import json
from typing import Any, Final

import pytest

from delegation_core.errors import ConfigError
from sidecar.injector.inject import RefusedError, inject
from sidecar.injector.injection import Injection, parse_injection
from sidecar.injector.rules import Refusal
from tests.injector.pods import OUTBOUND, RENDERED, acting, bare, classic, injection, patched

SETTINGS: Final = "delegation-sidecar.io/settings"
KEYS: Final = "delegation-sidecar.io/keys"
HANDLE: Final = "delegation-sidecar.io/workload-handle"
DOOR: Final = "delegation-sidecar.io/door"
AGENT_MOUNT: Final = {"name": "sidecar-handle", "mountPath": "/run/sidecar-handle", "readOnly": True}
OTHER: Final[dict[str, Any]] = {"name": "other", "image": "agent:1"}


def asking(spec: dict[str, Any] | None = None, **annotations: str) -> dict[str, Any]:
    """Return a pod whose volumes have a group, with these annotations; ``keys``, ``handle`` and ``door`` are ours."""
    names = {"keys": KEYS, "handle": HANDLE, "door": DOOR, "settings": SETTINGS}
    said = {names[name]: value for name, value in {"settings": "planner", **annotations}.items()}
    return bare({"securityContext": {"runAsUser": 1000, "fsGroup": 2747}, **(spec or {})}, annotations=said)


def refusals_of(pod: dict[str, Any], definition: Injection | None = None) -> list[Refusal]:
    with pytest.raises(RefusedError) as refused:
        inject(pod, definition or acting())
    return refused.value.refusals


def done(pod: dict[str, Any], definition: Injection | None = None) -> dict[str, Any]:
    """Return the pod's spec after the injection, which is complete: the same pod again is left as it is."""
    definition = definition or acting()
    after = patched(pod, inject(pod, definition).patch)
    assert inject(copy.deepcopy(after), definition).patch == []
    spec: dict[str, Any] = after["spec"]
    return spec


def mounted(container: dict[str, Any]) -> list[str]:
    return [mount["name"] for mount in container.get("volumeMounts", ())]


# --- nothing unless asked for


def test_a_pod_that_asks_for_nothing_gets_what_it_got_before() -> None:
    plain = done(asking())
    assert plain["initContainers"] == [acting(keys=False, handle=False).container]
    assert plain["volumes"] == acting(keys=False, handle=False).volumes_for("planner")
    assert plain["containers"] == bare()["spec"]["containers"]


@pytest.mark.parametrize(
    ("annotation", "rule", "value"),
    [("keys", "keys", "allowKeys"), ("handle", "workload_handle", "allowWorkloadHandle")],
)
def test_a_platform_that_allows_neither_refuses_both_with_the_value(annotation: str, rule: str, value: str) -> None:
    pod = asking(keys="agent") if annotation == "keys" else asking(handle="agent")
    (refusal,) = refusals_of(pod, injection())
    assert (refusal.rule, refusal.layer) == (rule, "annotation")
    assert f"injector.{value}" in refusal.fix
    assert done(pod, acting(keys=annotation == "keys", handle=annotation == "handle"))


def test_volumes_of_these_names_are_anybody_s_where_the_platform_allows_neither() -> None:
    names = ("sidecar-keys", "sidecar-handle")
    agent = {
        "name": "agent",
        "image": "agent:1",
        "volumeMounts": [{"name": one, "mountPath": f"/{one}"} for one in names],
    }
    own = {"containers": [agent], "volumes": [{"name": one, "emptyDir": {}} for one in names]}
    assert done(asking(own), injection())["volumes"][:2] == own["volumes"]


# --- keys


def test_the_keys_are_mounted_in_the_sidecar_and_in_no_other_container() -> None:
    spec = done(asking({"containers": [{"name": "agent", "image": "agent:1"}, OTHER]}, keys="planner-keys"))
    (volume,) = [one for one in spec["volumes"] if "secret" in one]
    assert volume == {"name": "sidecar-keys", "secret": {"secretName": "planner-keys", "defaultMode": 0o440}}
    assert mounted(spec["initContainers"][0])[-1] == "sidecar-keys"
    assert [mounted(one) for one in spec["containers"]] == [[], []]
    assert "sidecar-handle" not in {one["name"] for one in spec["volumes"]}


def test_a_pod_without_a_group_could_not_read_them_and_is_refused() -> None:
    (refusal,) = refusals_of(asking({"securityContext": {"fsGroup": None}}, keys="planner-keys"))
    assert (refusal.rule, refusal.layer) == ("keys", "pod")
    assert "securityContext.fsGroup" in refusal.fix
    assert done(asking({"securityContext": {"fsGroup": 1000}}, keys="planner-keys"))


SECRET_VOLUME: Final = {"name": "own", "secret": {"secretName": "planner-keys"}}
PROJECTED: Final = {"name": "own", "projected": {"sources": [{"configMap": {}}, {"secret": {"name": "planner-keys"}}]}}
VARIABLE: Final = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "planner-keys", "key": "openai"}}}

# Other ways to the Secret, and the layer that is refused
READERS: dict[str, tuple[dict[str, Any], str]] = {
    "a volume": ({"volumes": [SECRET_VOLUME]}, "volume own"),
    "a projected volume": ({"volumes": [PROJECTED]}, "volume own"),
    "a variable": ({"containers": [{**OTHER, "env": [{"name": "A", "value": "x"}, VARIABLE]}]}, "container other"),
    "variables": (
        {"containers": [{**OTHER, "envFrom": [{"secretRef": {"name": "planner-keys"}}]}]},
        "container other",
    ),
    "a variable at first": ({"initContainers": [{**OTHER, "env": [VARIABLE]}]}, "init container other"),
}


@pytest.mark.parametrize(("spec", "layer"), READERS.values(), ids=READERS)
def test_no_other_container_reads_the_same_secret(spec: dict[str, Any], layer: str) -> None:
    (refusal,) = refusals_of(asking(spec, keys="planner-keys"))
    assert (refusal.rule, refusal.layer) == ("keys", layer)
    assert done(asking(spec, keys="other-keys"))


def test_the_sidecar_s_volume_of_keys_is_in_no_other_container() -> None:
    agent = {**OTHER, "volumeMounts": [{"name": "sidecar-keys", "mountPath": "/keys"}]}
    (refusal,) = refusals_of(asking({"containers": [agent]}, keys="planner-keys"))
    assert (refusal.rule, refusal.layer) == ("sidecar_volume", "container other")


@pytest.mark.parametrize("name", ["", "UPPER", "../up", "a b"])
def test_an_annotation_that_names_no_secret_is_refused(name: str) -> None:
    (refusal,) = refusals_of(asking(keys=name))
    assert (refusal.rule, refusal.layer) == ("keys", "annotation")


def test_two_secrets_are_one_too_many() -> None:
    definition = acting(handle=False)
    volumes = definition.volumes_for("planner", keys="writer-keys")
    (refusal,) = refusals_of(asking({"volumes": volumes}, keys="planner-keys"), definition)
    assert (refusal.rule, "two Secrets" in refusal.wrong) == ("keys", True)
    assert done(asking({"volumes": volumes}, keys="writer-keys"), definition)


@pytest.mark.parametrize(
    "changed", [{"secretName": "planner-keys"}, {"secretName": "planner-keys", "defaultMode": 288, "optional": True}]
)
def test_keys_that_are_mounted_otherwise_are_refused(changed: dict[str, Any]) -> None:
    volume = {"name": "sidecar-keys", "secret": changed}
    assert [one.rule for one in refusals_of(asking({"volumes": [volume]}, keys="planner-keys"))] == ["sidecar_volume"]
    as_ours = {"name": "sidecar-keys", "secret": {"secretName": "planner-keys", "defaultMode": 288}}
    assert done(asking({"volumes": [as_ours]}, keys="planner-keys"))


# --- a door's certificate


def test_the_door_s_certificate_is_mounted_in_the_sidecar_of_a_pod_that_names_it_and_in_no_other_container() -> None:
    definition = acting(door=True)
    spec = done(asking({"containers": [{"name": "agent", "image": "agent:1"}, OTHER]}, door="front-tls"), definition)
    (volume,) = [one for one in spec["volumes"] if "secret" in one]
    assert volume == {"name": "sidecar-door", "secret": {"secretName": "front-tls", "defaultMode": 0o440}}
    assert spec["initContainers"][0]["volumeMounts"][-1] == {
        "name": "sidecar-door", "mountPath": "/etc/sidecar/door", "readOnly": True
    }  # fmt: skip
    assert [mounted(one) for one in spec["containers"]] == [[], []]
    without = done(asking(), definition)
    assert "sidecar-door" not in {one["name"] for one in without["volumes"]}
    assert "sidecar-door" not in mounted(without["initContainers"][0])


def test_a_pod_may_have_keys_and_a_door_of_two_secrets_or_of_one() -> None:
    for keys, door in (("planner-keys", "front-tls"), ("front", "front")):
        spec = done(asking(keys=keys, door=door), acting(door=True))
        secrets = {one["name"]: one["secret"]["secretName"] for one in spec["volumes"] if "secret" in one}
        assert secrets == {"sidecar-keys": keys, "sidecar-door": door}


# what a pod with the annotation `door` has besides → the layer that is refused, and what the refusal says
DOORS_REFUSED: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "no Secret's name": ({}, "No Name", "annotation", "names no Secret"),
    "no group": ({"securityContext": {"fsGroup": None}}, "front-tls", "pod", "cannot read the Secret of its door"),
    "a second reader": (
        {"volumes": [{"name": "own", "secret": {"secretName": "front-tls"}}]},
        "front-tls",
        "volume own",
        "the Secret of the sidecar's door",
    ),
    "two Secrets": (
        {"volumes": [{"name": "sidecar-door", "secret": {"secretName": "other", "defaultMode": 288}}]},
        "front-tls",
        "annotation",
        "two Secrets",
    ),
}


@pytest.mark.parametrize(("spec", "named", "layer", "said"), DOORS_REFUSED.values(), ids=DOORS_REFUSED)
def test_a_door_s_secret_is_held_to_the_rules_of_keys(spec: dict[str, Any], named: str, layer: str, said: str) -> None:
    (refusal,) = refusals_of(asking(spec, door=named), acting(door=True))
    assert (refusal.rule, refusal.layer, said in refusal.wrong) == ("door", layer, True)
    assert done(asking(door="front-tls"), acting(door=True))


def test_a_platform_without_a_port_for_doors_refuses_the_annotation_with_the_value() -> None:
    (refusal,) = refusals_of(asking(door="front-tls"), acting())
    assert (refusal.rule, refusal.layer) == ("door", "annotation")
    assert "sidecar.ports.door" in refusal.fix


# --- the workload handle


def test_the_agent_s_container_gets_the_handle_s_directory_read_only_and_no_other_gets_it() -> None:
    cache = [{"name": "cache", "mountPath": "/cache"}]
    own = {"name": "agent", "image": "agent:1", "env": [OUTBOUND], "volumeMounts": cache}
    pod = asking({"containers": [OTHER, own], "volumes": [{"name": "cache", "emptyDir": {}}]}, handle="agent")
    spec = done(pod)
    assert spec["containers"] == [
        {**OTHER, "env": [OUTBOUND]},
        {**own, "volumeMounts": [*own["volumeMounts"], AGENT_MOUNT]},
    ]
    (volume,) = [one for one in spec["volumes"] if one["name"] == "sidecar-handle"]
    assert volume["emptyDir"]["medium"] == "Memory"  # a handle is on no disk
    assert spec["initContainers"][0]["volumeMounts"][-1] == {
        "name": "sidecar-handle",
        "mountPath": "/run/sidecar-handle",
    }
    assert "sidecar-keys" not in mounted(spec["initContainers"][0])


def test_an_agent_that_begins_as_an_init_container_gets_it_behind_the_sidecar() -> None:
    spec = done(asking({"initContainers": [OTHER, {**OTHER, "name": "early"}]}, handle="early"))
    assert [one["name"] for one in spec["initContainers"]] == ["sidecar", "other", "early"]
    assert spec["initContainers"][2]["volumeMounts"] == [AGENT_MOUNT]
    assert mounted(spec["initContainers"][1]) == []


def test_a_classic_sidecar_shares_it_as_well() -> None:
    document = json.loads(RENDERED)
    document["container"]["volumeMounts"].append({"name": "sidecar-handle", "mountPath": "/run/sidecar-handle"})
    document["volumes"].append({"name": "sidecar-handle", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    del document["container"]["restartPolicy"]
    definition = parse_injection(json.dumps({**document, "mode": "classic"}).encode())
    spec = done(asking(handle="agent"), definition)
    assert [one["name"] for one in spec["containers"]] == ["sidecar", "agent"]
    assert spec["containers"][1]["volumeMounts"] == [AGENT_MOUNT]
    assert refusals_of(asking(handle="agent"), classic())


@pytest.mark.parametrize("name", ["", "sidecar", "nobody"])
def test_an_annotation_that_names_no_container_is_refused(name: str) -> None:
    (refusal,) = refusals_of(asking(handle=name))
    assert (refusal.rule, refusal.layer) == ("workload_handle", "annotation")


def test_a_second_container_with_the_handle_is_refused() -> None:
    volumes = acting().volumes_for("planner", handle=True)
    having = [{**OTHER, "name": name, "volumeMounts": [AGENT_MOUNT]} for name in ("agent", "other")]
    for said in ({"handle": "agent"}, {}):
        (refusal,) = refusals_of(asking({"containers": having, "volumes": volumes}, **said))
        assert (refusal.rule, refusal.layer) == ("workload_handle", "container other")
    assert done(asking({"containers": [having[0], OTHER], "volumes": volumes}))


@pytest.mark.parametrize("changed", [{"readOnly": False}, {"mountPath": "/elsewhere"}, {"subPath": "x"}])
def test_a_mount_that_is_almost_the_agent_s_is_refused(changed: dict[str, Any]) -> None:
    for mounts, refused in (([{**AGENT_MOUNT, **changed}], True), ([AGENT_MOUNT] * 2, True), ([AGENT_MOUNT], False)):
        pod = asking({"containers": [{"name": "agent", "image": "agent:1", "volumeMounts": mounts}]}, handle="agent")
        assert [one.rule for one in refusals_of(pod)] == ["workload_handle"] if refused else done(pod)


def test_a_pod_that_a_chart_rendered_with_the_library_needs_no_annotation() -> None:
    whole = acting()
    agent = {"name": "agent", "image": "agent:1", "env": [OUTBOUND], "volumeMounts": [AGENT_MOUNT]}
    spec = {
        "initContainers": [dict(whole.container)],
        "containers": [agent],
        "volumes": whole.volumes_for("planner", keys="planner-keys", handle=True),
    }
    after = done(asking(spec))
    assert {key: after[key] for key in spec} == spec
    lacking = {**spec, "volumes": whole.volumes_for("planner", keys="planner-keys")}
    assert "foreign_sidecar" in [one.rule for one in refusals_of(asking({**lacking, "containers": [OTHER]}))]


# --- the definition


@pytest.mark.parametrize("name", ["sidecar-keys", "sidecar-handle", "sidecar-door"])
def test_a_definition_whose_container_does_not_mount_them_is_refused(name: str) -> None:
    document = json.loads(RENDERED)
    volumes = [dict(one) for one in acting(door=True).volumes if one["name"] == name]
    with pytest.raises(ConfigError, match=name):
        parse_injection(json.dumps({**document, "volumes": [*document["volumes"], *volumes]}).encode())
