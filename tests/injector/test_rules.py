from __future__ import annotations

from typing import Any

import pytest

from sidecar.injector.rules import RULES, refusals
from tests.injector.pods import bare, injection


def agent(**members: Any) -> dict[str, Any]:
    return {"containers": [{"name": "agent", "image": "agent:1", **members}]}


def beside(kind: str, **members: Any) -> dict[str, Any]:
    return {**agent(), kind: [{"name": "other", "image": "other:1", **members}]}


CSI: dict[str, Any] = {"name": "own", "csi": {"driver": "csi.spiffe.io", "readOnly": True}}
CLAIMED: dict[str, Any] = {"name": "sidecar-workload-api", "mountPath": "/x"}

# id → the pod's spec, and the one rule and layer that refuse it
FORBIDDEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "the node's network": ({**agent(), "hostNetwork": True}, "host_namespace", "pod"),
    "the node's processes": ({**agent(), "hostPID": True}, "host_namespace", "pod"),
    "the node's memory": ({**agent(), "hostIPC": True}, "host_namespace", "pod"),
    "one process namespace": ({**agent(), "shareProcessNamespace": True}, "shared_process_namespace", "pod"),
    "our user, in the container": (agent(securityContext={"runAsUser": 2747}), "sidecar_uid", "container agent"),
    "our user, of the pod": ({**agent(), "securityContext": {"runAsUser": 2747}}, "sidecar_uid", "container agent"),
    "our user, at first": (
        beside("initContainers", securityContext={"runAsUser": 2747}),
        "sidecar_uid",
        "init container other",
    ),
    "a user that its image chooses": ({**agent(), "securityContext": {}}, "sidecar_uid", "container agent"),
    "a user that its image chooses, which is not root": (
        {**agent(securityContext={"runAsNonRoot": True}), "securityContext": None},
        "sidecar_uid",
        "container agent",
    ),
    "a user that its image chooses, at first": (
        {
            "initContainers": [{"name": "other", "image": "agent:1"}],
            **agent(securityContext={"runAsUser": 1000}),
            "securityContext": {"fsGroup": 1000},
        },
        "sidecar_uid",
        "init container other",
    ),
    "privileged": (agent(securityContext={"privileged": True}), "privileged", "container agent"),
    "a capability": (agent(securityContext={"capabilities": {"add": ["NET_ADMIN"]}}), "privileged", "container agent"),
    "a capability, otherwise": (
        beside("initContainers", securityContext={"capabilities": {"add": ["cap_net_raw"]}}),
        "privileged",
        "init container other",
    ),
    "all capabilities": (agent(securityContext={"capabilities": {"add": ["ALL"]}}), "privileged", "container agent"),
    "the Workload API, by another name": ({**agent(), "volumes": [CSI]}, "sidecar_volume", "volume own"),
    "a host path": (
        {**agent(), "volumes": [{"name": "run", "hostPath": {"path": "/run/spire"}}]},
        "sidecar_volume",
        "volume run",
    ),
    "the Workload API of another driver": (
        {**agent(), "volumes": [{"name": "own", "csi": {"driver": "spiffe.csi.cert-manager.io"}}]},
        "sidecar_volume",
        "volume own",
    ),
    "a host process": (
        agent(securityContext={"windowsOptions": {"hostProcess": True}}),
        "privileged",
        "container agent",
    ),
    "a pod of the node's processes": (
        {**agent(), "securityContext": {"runAsUser": 1000, "windowsOptions": {"hostProcess": True}}},
        "privileged",
        "container agent",
    ),
    "a capability that only looks harmless": (
        agent(securityContext={"capabilities": {"add": ["NET_BIND_\u017fERVICE"]}}),
        "privileged",
        "container agent",
    ),
    "our Workload API, as a device": (
        agent(volumeDevices=[{"name": "sidecar-workload-api", "devicePath": "/x"}]),
        "sidecar_volume",
        "container agent",
    ),
    "our user, of a debugger": (
        beside("ephemeralContainers", securityContext={"runAsUser": 2747}),
        "sidecar_uid",
        "ephemeral container other",
    ),
    "our Workload API, mounted": (agent(volumeMounts=[CLAIMED]), "sidecar_volume", "container agent"),
    "our Workload API, at first": (
        beside("initContainers", volumeMounts=[CLAIMED]),
        "sidecar_volume",
        "init container other",
    ),
    "our admin socket": (
        agent(volumeMounts=[{"name": "sidecar-run", "mountPath": "/x"}]),
        "sidecar_volume",
        "container agent",
    ),
    "our port for peers": (agent(ports=[{"containerPort": 7443}]), "port_clash", "container agent"),
    "our port for the agent": (agent(ports=[{"containerPort": 7080}]), "port_clash", "container agent"),
    "our port for probes": (
        beside("initContainers", ports=[{"containerPort": 7090}]),
        "port_clash",
        "init container other",
    ),
    "our name": ({"containers": [{"name": "sidecar", "image": "evil:1"}]}, "foreign_sidecar", "container sidecar"),
    "a debugger in our processes": (
        {**agent(), "ephemeralContainers": [{"name": "debug", "targetContainerName": "sidecar"}]},
        "shared_process_namespace",
        "ephemeral container debug",
    ),
}

# The same with one fact changed
ALLOWED: dict[str, dict[str, Any]] = {
    "nothing special": agent(),
    "what is false": {**agent(), "hostNetwork": False, "hostPID": None, "shareProcessNamespace": False},
    "another user": agent(securityContext={"runAsUser": 2748}),
    "our user of the pod, and another of the container": {
        **agent(securityContext={"runAsUser": 1000}),
        "securityContext": {"runAsUser": 2747},
    },
    "a user of the container, and none of the pod": {
        **agent(securityContext={"runAsUser": 1000}),
        "securityContext": None,
    },
    "not privileged": agent(securityContext={"privileged": False, "capabilities": {"drop": ["ALL"]}}),
    "the capability of restricted": agent(securityContext={"capabilities": {"add": ["NET_BIND_SERVICE"]}}),
    "another driver": {**agent(), "volumes": [{"name": "own", "csi": {"driver": "secrets-store.csi.k8s.io"}}]},
    "an empty folder": {**agent(), "volumes": [{"name": "run", "emptyDir": {}}]},
    "its own volume": agent(volumeMounts=[{"name": "run", "mountPath": "/x"}]),
    "its own port": agent(ports=[{"containerPort": 8080}]),
    "a debugger of the agent": {**agent(), "ephemeralContainers": [{"name": "debug", "targetContainerName": "agent"}]},
}


@pytest.mark.parametrize(("spec", "rule", "layer"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_what_is_forbidden_is_refused_by_rule_and_layer(spec: dict[str, Any], rule: str, layer: str) -> None:
    assert [(found.rule, found.layer) for found in refusals(bare(spec), injection())] == [(rule, layer)]


@pytest.mark.parametrize("spec", ALLOWED.values(), ids=ALLOWED)
def test_what_is_lawful_is_not(spec: dict[str, Any]) -> None:
    assert list(refusals(bare(spec), injection())) == []


@pytest.mark.parametrize("value", ["disabled", "false", ""])
def test_a_pod_does_without_only_where_the_platform_lets_it(value: str) -> None:
    pod = bare(labels={"delegation-sidecar.io/inject": value})
    assert [found.rule for found in refusals(pod, injection())] == ["opt_out"]
    asked = [found.rule for found in refusals(pod, injection(optOut=True))]
    assert asked == ([] if value == "disabled" else ["opt_out"])
    assert list(refusals(bare(labels={"delegation-sidecar.io/inject": "enabled"}), injection())) == []


# Forbidden even for a pod that opts out: it would pass for a pod with a sidecar
WITHOUT: dict[str, tuple[dict[str, Any], str]] = {
    "our name": (beside("initContainers", name="sidecar"), "foreign_sidecar"),
    "our name, later": (beside("ephemeralContainers", name="sidecar"), "foreign_sidecar"),
    "the Workload API": ({**agent(), "volumes": [CSI]}, "sidecar_volume"),
    "the Workload API, by our name": (
        {**agent(), "volumes": [{**CSI, "name": "sidecar-workload-api"}]},
        "sidecar_volume",
    ),
    "a host path": ({**agent(), "volumes": [{"name": "run", "hostPath": {"path": "/run"}}]}, "sidecar_volume"),
    "the node's network": ({**agent(), "hostNetwork": True}, "host_namespace"),
    "privileged": (agent(securityContext={"privileged": True}), "privileged"),
}


@pytest.mark.parametrize(("spec", "rule"), WITHOUT.values(), ids=WITHOUT)
def test_a_pod_that_may_do_without_may_not_pass_for_one(spec: dict[str, Any], rule: str) -> None:
    pod = bare(spec, labels={"delegation-sidecar.io/inject": "disabled"})
    assert [found.rule for found in refusals(pod, injection(optOut=True))] == [rule]
    # there is no sidecar beside it
    lawful = agent(ports=[{"containerPort": 7443}], securityContext={"runAsUser": 2747})
    pod = bare({**lawful, "shareProcessNamespace": True}, labels={"delegation-sidecar.io/inject": "disabled"})
    assert list(refusals(pod, injection(optOut=True))) == []


def test_the_mirror_of_a_static_pod_is_refused() -> None:
    """Its node has started it already from a file; a sidecar in the mirror would not exist."""
    pod = bare(annotations={"kubernetes.io/config.mirror": "0", "delegation-sidecar.io/settings": "planner"})
    assert [found.rule for found in refusals(pod, injection())] == ["static_pod"]


def test_an_apparmor_annotation_for_the_sidecar_is_refused_and_one_for_the_agent_is_not() -> None:
    def rules_for(name: str) -> list[str]:
        annotation = f"container.apparmor.security.beta.kubernetes.io/{name}"
        return [found.rule for found in refusals(bare(annotations={annotation: "unconfined"}), injection())]

    assert rules_for("sidecar") == ["foreign_sidecar"]
    assert rules_for("agent") == []


def test_a_name_in_a_message_is_no_longer_than_a_name_may_be_and_nothing_in_it_acts() -> None:
    evil = "\x1b[2J\u202e" + "x" * 5000
    (found,) = refusals(bare({"containers": [{"name": evil, "securityContext": {"privileged": True}}]}), injection())
    assert len(found.layer) < 120
    assert found.layer.isprintable()


def test_every_reason_is_told_not_the_first_one_alone() -> None:
    spec = {**agent(securityContext={"runAsUser": 2747, "privileged": True}), "hostNetwork": True}
    assert {found.rule for found in refusals(bare(spec), injection())} == {
        "host_namespace",
        "sidecar_uid",
        "privileged",
    }


def test_every_rule_that_is_used_is_counted() -> None:
    assert {rule for _, rule, _ in FORBIDDEN.values()} < set(RULES)


def test_a_refusal_says_rule_layer_and_fix() -> None:
    (found,) = refusals(bare({**agent(), "hostNetwork": True}), injection())
    assert str(found) == "rule host_namespace (layer pod): hostNetwork shares the node's namespace; leave it out"
