from __future__ import annotations

import copy
from typing import Any

import pytest

from sidecar.injector.inject import RefusedError, inject
from sidecar.injector.injection import Injection
from tests.injector.pods import OUTBOUND, bare, classic, injection, patched, statically

BOTH = pytest.mark.parametrize("definition", [injection(), classic()], ids=["native", "classic"])

# Parts that a patch has to create first, or must not overwrite
SHAPES: dict[str, dict[str, Any]] = {
    "nothing there": {},
    "nulls": {"initContainers": None, "volumes": None},
    "empty lists": {"initContainers": [], "volumes": []},
    "some there": {
        "initContainers": [{"name": "migrate", "image": "agent:1"}],
        "volumes": [{"name": "cache", "emptyDir": {}}],
    },
    "sixty containers": {"containers": [{"name": f"agent-{number}", "image": "agent:1"} for number in range(60)]},
}


def rules_of(pod: dict[str, Any], definition: Injection) -> list[str]:
    with pytest.raises(RefusedError) as refused:
        inject(pod, definition)
    return [refusal.rule for refusal in refused.value.refusals]


@BOTH
@pytest.mark.parametrize("spec", SHAPES.values(), ids=SHAPES)
def test_a_pod_gets_the_chart_s_sidecar_first_and_its_volumes(spec: dict[str, Any], definition: Injection) -> None:
    before = bare(spec)
    after = patched(before, inject(before, definition).patch)
    own = after["spec"][definition.goes_into]
    assert own[0] == definition.container
    env = [OUTBOUND]  # which the agent of `bare` has already
    assert own[1:] == [{**one, "env": env} for one in before["spec"].get(definition.goes_into) or ()]
    kept = before["spec"].get("volumes") or []
    assert after["spec"]["volumes"] == kept + definition.volumes_for("planner")


@BOTH
def test_every_other_container_is_told_where_to_call_before_its_own_variables(definition: Injection) -> None:
    own = [{"name": "CRM", "value": "$(SIDECAR_OUTBOUND_URL)/crm"}]
    elsewhere = [{"name": "SIDECAR_OUTBOUND_URL", "value": "http://127.0.0.1:9"}]
    agents = {"agent": own, "plain": None, "empty": [], "other": elsewhere}
    containers = [{"name": name, "image": "agent:1", "env": env} for name, env in agents.items()]
    pod = bare({"initContainers": [{"name": "migrate", "image": "agent:1"}], "containers": containers})
    after = patched(pod, inject(pod, definition).patch)["spec"]
    found = {one["name"]: one["env"] for one in (*after["initContainers"], *after["containers"])}
    assert found.pop("sidecar") == definition.container["env"]
    assert found == {
        "migrate": [OUTBOUND],
        "agent": [OUTBOUND, *own],
        "plain": [OUTBOUND],
        "empty": [OUTBOUND],
        "other": elsewhere,
    }


@BOTH
@pytest.mark.parametrize("spec", SHAPES.values(), ids=SHAPES)
def test_the_same_pod_again_is_left_as_it_is(spec: dict[str, Any], definition: Injection) -> None:
    once = patched(bare(spec), inject(bare(spec), definition).patch)
    assert inject(once, definition).patch == []


def injected(definition: Injection) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a pod with its sidecar, and that container; both may be changed."""
    pod = copy.deepcopy(patched(bare(), inject(bare(), definition).patch))
    return pod, pod["spec"][definition.goes_into][0]


@BOTH
@pytest.mark.parametrize(
    ("names", "rules"),
    [
        (["kube-api-access-x"], []),
        (["other-x"], ["foreign_sidecar"]),
        (["kube-api-access-x", "kube-api-access-x"], ["foreign_sidecar"]),
    ],
    ids=["kubernetes", "another name", "twice"],
)
def test_a_token_is_kubernetes_own_by_its_name_once(names: list[str], rules: list[str], definition: Injection) -> None:
    pod, own = injected(definition)
    mount = {"name": names[0], "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True}
    own["volumeMounts"] = [*own["volumeMounts"], mount]
    tokens = [{"name": name, "projected": {"sources": [{"serviceAccountToken": {}}]}} for name in names]
    pod["spec"]["volumes"] = [*pod["spec"]["volumes"], *tokens]
    if rules:
        assert rules_of(pod, definition) == rules
    else:
        assert inject(pod, definition).patch == []


@BOTH
def test_the_sidecar_and_its_volumes_are_there_once(definition: Injection) -> None:
    pod, own = injected(definition)
    pod["spec"][definition.goes_into].append(copy.deepcopy(own))
    assert rules_of(pod, definition) == ["foreign_sidecar"] * 2
    pod, _ = injected(definition)
    volume = copy.deepcopy(next(one for one in pod["spec"]["volumes"] if "emptyDir" in one))
    pod["spec"]["volumes"].append(volume)
    assert rules_of(pod, definition) == ["sidecar_volume"]
    volume["name"] = "another"
    assert inject(pod, definition).patch == []


@BOTH
def test_an_image_may_always_be_pulled_and_no_other_policy_is_taken(definition: Injection) -> None:
    pod, own = injected(definition)
    own["imagePullPolicy"] = "Always"
    assert inject(pod, definition).patch == []
    own["imagePullPolicy"] = "Never"
    assert rules_of(pod, definition) == ["foreign_sidecar"]


@BOTH
def test_what_kubernetes_adds_between_the_two_times_is_no_change(definition: Injection) -> None:
    once = patched(bare(), inject(bare(), definition).patch)
    own = once["spec"][definition.goes_into][0] = copy.deepcopy(once["spec"][definition.goes_into][0])
    token = {
        "name": "kube-api-access-x",
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        "readOnly": True,
    }
    own["volumeMounts"].append(token)
    sources: list[dict[str, Any]] = [{"serviceAccountToken": {}}, {"configMap": {}}, {"downwardAPI": {}}]
    once["spec"]["volumes"].append({"name": "kube-api-access-x", "projected": {"sources": sources}})
    own["resources"]["limits"]["cpu"] = "1"
    own["resizePolicy"] = [{"resourceName": name, "restartPolicy": "NotRequired"} for name in ("cpu", "memory")]
    assert inject(once, definition).patch == []
    for other in ({"mountPath": "/opt/sidecar/app"}, {"readOnly": False}, {"subPath": "x"}, {"name": "own"}):
        own["volumeMounts"][-1] = {**token, **other}
        assert rules_of(once, definition) == ["foreign_sidecar"]
    own["volumeMounts"][-1] = token
    for source in ({"secret": {"name": "x"}}, {"serviceAccountToken": {"audience": "https://other.example"}}):
        sources.append(source)
        assert rules_of(once, definition) == ["foreign_sidecar"]
        assert sources.pop() == source
        assert inject(once, definition).patch == []
    once["spec"]["volumes"][-1] = {"name": "kube-api-access-x", "emptyDir": {}}
    assert rules_of(once, definition) == ["foreign_sidecar"]


def test_the_sidecar_is_put_before_whoever_would_start_without_it() -> None:
    pod = statically({"initContainers": [{"name": "migrate", "image": "agent:1"}]})
    pod["spec"]["initContainers"].reverse()
    after = patched(pod, inject(pod, injection()).patch)
    assert [container["name"] for container in after["spec"]["initContainers"]] == ["sidecar", "migrate"]
    assert inject(after, injection()).patch == []


def test_a_pod_that_does_without_is_left_alone_where_it_may() -> None:
    pod = bare(labels={"delegation-sidecar.io/inject": "disabled"}, annotations=None)
    assert inject(pod, injection(optOut=True)).patch == []
    faked = statically()
    faked["metadata"]["labels"] = {"delegation-sidecar.io/inject": "disabled"}
    assert set(rules_of(faked, injection(optOut=True))) == {"foreign_sidecar", "sidecar_volume"}


def test_annotations_are_made_or_added_to() -> None:
    lone = bare(annotations=None)
    lone["spec"]["volumes"] = injection().volumes_for("planner")
    assert patched(lone, inject(lone, injection()).patch)["metadata"]["annotations"] == {
        "delegation-sidecar.io/status": f"injected {injection().digest}",
        "kubectl.kubernetes.io/default-container": "agent",
    }
    chosen = bare()
    chosen["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] = "other"
    after = patched(chosen, inject(chosen, injection()).patch)["metadata"]["annotations"]
    assert after["kubectl.kubernetes.io/default-container"] == "other"
    assert after["delegation-sidecar.io/settings"] == "planner"


def test_a_marker_that_is_faked_buys_nothing() -> None:
    faked = bare()
    faked["metadata"]["annotations"]["delegation-sidecar.io/status"] = f"injected {injection().digest}"
    after = patched(faked, inject(faked, injection()).patch)
    assert after["spec"]["initContainers"] == [injection().container]


def changed(**members: Any) -> dict[str, Any]:
    return {**injection().container, **members}


# A container with our name that is almost ours
FAKES: dict[str, dict[str, Any]] = {
    "a name alone": {"name": "sidecar", "image": "evil:1"},
    "another image": changed(image="evil:1"),
    "another command": changed(command=["sleep", "infinity"]),
    "other arguments": changed(args=["run", "--config=/tmp/own.yaml"]),
    "another variable": changed(env=[*injection().container["env"], {"name": "SIDECAR__INBOUND__LISTEN", "value": ""}]),
    "another user": changed(securityContext={**injection().container["securityContext"], "runAsUser": 1000}),
    "another mount": changed(volumeMounts=[*injection().container["volumeMounts"], {"name": "x", "mountPath": "/opt"}]),
    "no probes": {key: value for key, value in injection().container.items() if "Probe" not in key},
    "one that is not restarted": {k: v for k, v in injection().container.items() if k != "restartPolicy"},
    "a hook": changed(lifecycle={"postStart": {"exec": {"command": ["sh"]}}}),
}


@pytest.mark.parametrize("fake", FAKES.values(), ids=FAKES)
def test_a_fake_sidecar_is_refused(fake: dict[str, Any]) -> None:
    pod = bare({"initContainers": [fake], "volumes": injection().volumes_for("planner")})
    assert "foreign_sidecar" in rules_of(pod, injection())


def test_the_sidecar_in_the_wrong_list_is_refused() -> None:
    pod = bare()
    pod["spec"]["containers"].append(dict(classic().container))
    assert "foreign_sidecar" in rules_of(pod, injection())


@pytest.mark.parametrize("volume", injection().volumes, ids=lambda volume: volume["name"])
def test_a_volume_with_our_name_that_is_another_is_refused(volume: dict[str, Any]) -> None:
    assert "sidecar_volume" in rules_of(bare({"volumes": [{"name": volume["name"], "emptyDir": {}}]}), injection())


def test_a_pod_that_a_chart_rendered_with_the_library_is_left_alone() -> None:
    static = bare({"initContainers": [dict(injection().container)], "volumes": injection().volumes_for("planner")})
    after = patched(static, inject(static, injection()).patch)
    assert after["spec"] == static["spec"]


@pytest.mark.parametrize("name", [None, "", "../up", "UPPER", "a b", "x" * 254])
def test_a_pod_whose_settings_nobody_named_is_refused(name: str | None) -> None:
    annotations = {} if name is None else {"delegation-sidecar.io/settings": name}
    assert rules_of(bare(annotations=annotations), injection()) == ["no_settings"]


def test_two_names_of_settings_are_one_too_many() -> None:
    assert rules_of(bare({"volumes": injection().volumes_for("writer")}), injection()) == ["no_settings"]


# Members of a type other than Kubernetes'
MALFORMED: dict[str, dict[str, Any]] = {
    "no spec": {**bare(), "spec": None},
    "no containers": bare({"containers": []}),
    "no metadata": {**bare({"volumes": injection().volumes_for("x")}), "metadata": None},
    "metadata a list": {**bare(), "metadata": []},
    "spec a text": {**bare(), "spec": "x"},
    "containers an object": bare({"containers": {"name": "agent"}}),
    "a container a number": bare({"containers": [1]}),
    "a user a text": bare({"securityContext": {"runAsUser": "2747"}}),
    "a flag a text": bare({"hostNetwork": "true"}),
    "a port a text": bare({"containers": [{"name": "agent", "ports": [{"containerPort": "7443"}]}]}),
    "capabilities an object": bare({"containers": [{"name": "a", "securityContext": {"capabilities": {"add": {}}}}]}),
}


@pytest.mark.parametrize("pod", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_pod_is_refused(pod: dict[str, Any]) -> None:
    assert rules_of(pod, injection()) == ["malformed"]


@pytest.mark.parametrize("kind", ["httpGet", "tcpSocket", "grpc"])
def test_a_probe_that_cannot_reach_an_agent_on_loopback_is_warned_of(kind: str) -> None:
    agent: dict[str, Any] = {"name": "agent", "image": "agent:1", "readinessProbe": {kind: {"port": 8080}}}
    (warning,) = inject(bare({"containers": [agent]}), injection()).warnings
    assert warning.startswith("container agent: readinessProbe ")
    agent["readinessProbe"] = {"httpGet": {"port": 7090, "path": "/healthz"}}  # the sidecar relays the probe
    assert inject(bare({"containers": [agent]}), injection()).warnings == []
    agent["readinessProbe"] = {"exec": {"command": ["true"]}}
    assert inject(bare({"containers": [agent]}), injection()).warnings == []
