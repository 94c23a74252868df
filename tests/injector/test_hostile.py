"""Pods that try to lose the sidecar or fake it: after any change, a pod is refused or has exactly ours."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, Final

import pytest

from sidecar.injector.inject import RefusedError, inject
from sidecar.injector.injection import Injection
from sidecar.injector.metrics import InjectorMetrics
from sidecar.injector.review import ReviewError
from sidecar.injector.webhook import Webhook
from sidecar.observe.access_log import AccessLog
from sidecar.observe.metrics import Metrics
from tests.counting import growth
from tests.fakes.sink import FakeSink
from tests.injector.pods import OUTBOUND, bare, classic, injection, patched, review, statically

# --- one fact of the sidecar changed

OWN: Final = injection().container
ADDED: dict[str, Any] = {
    "command": ["sleep", "infinity"],
    "workingDir": "/tmp",
    "envFrom": [{"configMapRef": {"name": "own"}}],
    "lifecycle": {"postStart": {"exec": {"command": ["sh"]}}},
    "volumeDevices": [{"name": "x", "devicePath": "/dev/x"}],
    "stdin": True,
    "tty": True,
    "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}],
    "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [2]}}],
    "unknown": 1,
}


def leaves(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return every place in a document, each object and list too."""
    if way:
        yield way
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*way, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, (*way, number))


def at(document: Any, way: tuple[Any, ...]) -> Any:
    for part in way:
        document = document[part]
    return document


def name_of(way: tuple[Any, ...]) -> str:
    return str(PurePosixPath(*map(str, way)))


SIZE: Final = {("resources", "limits"), ("resources", "requests"), ("resources",)}  # may be chosen, within bounds
PLACES: Final = [way for way in leaves(dict(OWN)) if way[:2] not in SIZE and way[:1] not in SIZE and way != ("name",)]


def refused(pod: dict[str, Any], definition: Injection) -> set[str]:
    with pytest.raises(RefusedError) as error:
        inject(pod, definition)
    return {refusal.rule for refusal in error.value.refusals}


@pytest.mark.parametrize("way", PLACES, ids=name_of)
def test_a_sidecar_that_differs_in_one_field_is_refused(way: tuple[Any, ...]) -> None:
    pod = statically()
    own = pod["spec"]["initContainers"][0]
    parent, value = at(own, way[:-1]), at(own, way)
    if isinstance(value, bool):
        parent[way[-1]] = not value
    elif isinstance(value, int):
        parent[way[-1]] = value + 1
    elif isinstance(value, str):
        parent[way[-1]] = f"{value}x"
    elif isinstance(value, list):
        value.append(copy.deepcopy(value[0]))
    else:
        value["more"] = "x"
    assert refused(pod, injection()) == {"foreign_sidecar"}


@pytest.mark.parametrize("way", PLACES, ids=name_of)
def test_a_sidecar_that_lacks_one_field_is_refused(way: tuple[Any, ...]) -> None:
    pod = statically()
    parent = at(pod["spec"]["initContainers"][0], way[:-1])
    parent.pop(way[-1])
    assert refused(pod, injection()) == {"foreign_sidecar"}


@pytest.mark.parametrize("way", PLACES, ids=name_of)
def test_a_sidecar_with_a_number_for_a_truth_is_refused(way: tuple[Any, ...]) -> None:
    """In Python True == 1, and 7090 == 7090.0."""
    pod = statically()
    own = pod["spec"]["initContainers"][0]
    value = at(own, way)
    if isinstance(value, int):
        at(own, way[:-1])[way[-1]] = int(value) if isinstance(value, bool) else float(value)
        assert refused(pod, injection()) & {"foreign_sidecar", "malformed"}


@pytest.mark.parametrize("name", ADDED)
def test_a_sidecar_with_one_field_more_is_refused(name: str) -> None:
    assert "foreign_sidecar" in refused(statically(**{name: ADDED[name]}), injection())


@pytest.mark.parametrize("variable", ["LD_PRELOAD", "PYTHONPATH", "PYTHONSTARTUP", "SIDECAR__INBOUND__LISTEN", "PATH"])
def test_a_sidecar_with_one_variable_more_is_refused(variable: str) -> None:
    env = [*OWN["env"], {"name": variable, "value": "/agent"}]
    assert refused(statically(env=env), injection()) == {"foreign_sidecar"}


def test_a_sidecar_of_another_size_is_lawful_within_the_bounds_and_one_with_a_device_is_not() -> None:
    other = {"limits": {"memory": "128Mi", "cpu": "8"}, "requests": {"cpu": "4"}}
    assert inject(statically(resources=other), injection()).patch[0]["path"].startswith("/metadata/")
    for wrong in ({"memory": "127Mi", "cpu": "1"}, {"memory": "5Gi", "cpu": "1"}, {"memory": "1Gi", "cpu": "9"}, {}):
        assert refused(statically(resources={"limits": wrong}), injection()) == {"size"}, wrong
    device = {**OWN["resources"], "claims": [{"name": "gpu"}]}
    assert refused(statically(resources=device), injection()) == {"foreign_sidecar"}
    device = {"limits": {"memory": "256Mi", "gpu.example/large": "1"}, "requests": {"gpu.example/large": "1"}}
    assert refused(statically(resources=device), injection()) == {"foreign_sidecar"}
    wanted = injection(container={**OWN, "resources": {"limits": {"gpu.example/large": "1"}}})
    assert inject(statically(resources=device), wanted).patch[0]["path"].startswith("/metadata/")


def test_a_sidecar_whose_image_is_always_pulled_is_lawful_and_one_whose_never_is_not() -> None:
    """The AlwaysPullImages admission changes every container between the two calls."""
    assert inject(statically(imagePullPolicy="Always"), injection()).patch[0]["path"].startswith("/metadata/")
    assert refused(statically(imagePullPolicy="Never"), injection()) == {"foreign_sidecar"}
    always = injection(container={**OWN, "imagePullPolicy": "Always"})
    assert refused(statically(imagePullPolicy="IfNotPresent"), always) == {"foreign_sidecar"}


LISTS: Final = ("initContainers", "containers", "ephemeralContainers")


@pytest.mark.parametrize("kind", LISTS)
def test_a_second_container_with_the_sidecar_s_name_is_refused(kind: str) -> None:
    pod = statically()
    pod["spec"].setdefault(kind, []).append(copy.deepcopy(dict(OWN)))
    assert "foreign_sidecar" in refused(pod, injection())


@pytest.mark.parametrize("volume", injection().volumes, ids=lambda volume: volume["name"])
def test_a_second_volume_of_one_name_is_refused(volume: dict[str, Any]) -> None:
    again = injection().volumes_for("planner")
    pod = statically({"volumes": [one for one in again if one["name"] == volume["name"]]})
    assert refused(pod, injection()) == {"sidecar_volume"}


# --- one place of a lawful pod replaced

RICH: Final = bare(
    {
        "initContainers": [
            {"name": "migrate", "image": "agent:1", "restartPolicy": "Always", "ports": [{"containerPort": 9}]}
        ],
        "containers": [
            {
                "name": "agent",
                "image": "agent:1",
                "env": [{"name": "A", "value": "b"}],
                "ports": [{"containerPort": 8080, "hostPort": 80}],
                "securityContext": {"runAsUser": 1000, "privileged": False, "capabilities": {"add": []}},
                "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
                "volumeDevices": [{"name": "disk", "devicePath": "/dev/x"}],
                "readinessProbe": {"httpGet": {"port": 8080}},
            }
        ],
        "ephemeralContainers": [{"name": "debug", "targetContainerName": "agent"}],
        "volumes": [{"name": "cache", "csi": {"driver": "x.example"}}, {"name": "disk", "hostPath": None}],
        "securityContext": {"runAsUser": 1000, "windowsOptions": {"hostProcess": False}},
        "hostNetwork": False,
        "shareProcessNamespace": False,
    },
    labels={"app": "planner"},
)


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


OTHERS: dict[str, Any] = {
    "null": None,
    "a list": [],
    "a list of nothing": [None],
    "an object": {},
    "a text": "x",
    "our name": "sidecar",
    "unicode": "s\u0456decar~1/\u202e\ud800",
    "true": True,
    "a number": 7,
    "our user": 2747,
    "our port": 7443,
    "a fraction": 0.5,
    "a huge number": 10**30,
    "a huge text": "x" * 20_000,
    "deep": deep(60),
}


def sound(pod: dict[str, Any], definition: Injection) -> None:
    """Check the properties of every admitted pod, independently of the rules' code."""
    spec = pod["spec"]
    containers = [one for kind in LISTS for one in (spec.get(kind) or [])]
    assert [one for one in containers if one.get("name") == "sidecar"] == [definition.container]
    assert spec[definition.goes_into][0] == definition.container
    beside = [one for one in containers if one.get("name") != "sidecar"]
    assert beside
    own_names = {volume["name"] for volume in definition.volumes}
    settings = next(
        volume["configMap"]["name"] for volume in spec["volumes"] if volume.get("name") == "sidecar-settings"
    )
    assert [volume for volume in spec["volumes"] if volume.get("name") in own_names] == definition.volumes_for(settings)
    for one in beside:
        context = one.get("securityContext") or {}
        assert context.get("runAsUser") != 2747
        assert not context.get("privileged")
        assert one.get("targetContainerName") != "sidecar"
        assert not own_names & {mount.get("name") for mount in one.get("volumeMounts") or []}
    for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        assert spec.get(name) in (None, False)
    for volume in spec["volumes"]:
        assert volume.get("hostPath") is None
        assert (volume.get("csi") or {}).get("driver") != "csi.spiffe.io" or volume.get(
            "name"
        ) == "sidecar-workload-api"


def webhook(definition: Injection) -> Webhook:
    counts = Metrics()
    log = AccessLog(FakeSink(), run="0" * 16, metrics=counts)
    return Webhook(definition, log=log, metrics=InjectorMetrics(counts))


QUESTION: Final = review(RICH)
EVERYWHERE: Final = list(leaves(QUESTION))


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize(
    "definition", [injection(), classic(), injection(optOut=True)], ids=["native", "classic", "out"]
)
async def test_a_question_with_any_place_made_something_else_is_refused_or_gets_exactly_the_sidecar(
    other: Any, definition: Injection
) -> None:
    asked = webhook(definition)
    allowed = 0
    for way in EVERYWHERE:
        question = copy.deepcopy(QUESTION)
        at(question, way[:-1])[way[-1]] = other
        try:
            answer = json.loads(asked.answer(json.dumps(question).encode()))
        except ReviewError:
            continue  # 400: the API server treats it as a failed call
        assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
        response = answer["response"]
        assert response["uid"] == question["request"]["uid"]
        if response["allowed"]:
            allowed += 1
            patch = json.loads(base64.b64decode(response["patch"]))
            made = patched(question["request"]["object"], patch)
            sound(made, definition)
            assert inject(made, definition).patch == []
        else:
            assert response["status"]["code"] in (400, 403)
            assert len(response["status"]["message"]) < 3000
    assert allowed > 0 or not isinstance(other, str | type(None)) or other == OTHERS["unicode"]
    await asked._log.close()


async def test_a_pod_of_thousands_of_wrongs_has_a_short_answer() -> None:
    asked = webhook(injection())
    evil = [
        {"name": "sidecar", "securityContext": {"privileged": True}, "livenessProbe": {"grpc": {}}, "env": [OUTBOUND]}
    ] * 5000
    for pod in (
        bare({"containers": evil}),
        bare({"containers": [{**one, "name": "a", "securityContext": None} for one in evil]}),
    ):
        assert len(asked.answer(json.dumps(review(pod)).encode())) < 12_000
    await asked._log.close()


_TOKEN: Final = {"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True}
_PLAIN: Final = {"name": "agent", "image": "agent:1"}
MANY: dict[str, Callable[[int], dict[str, Any]]] = {
    "tokens and volumes": lambda count: statically(
        {"volumes": [{}] * 3 * count},
        volumeMounts=[*OWN["volumeMounts"], *[{"name": "kube-api-access-x", **_TOKEN}] * count],
    ),
    "sidecars": lambda count: bare({"initContainers": [{"name": "sidecar"}] * count}),
    "volumes of ours": lambda count: bare({"volumes": [{"name": "sidecar-run"}] * count}),
    "mounts of ours": lambda count: bare(
        {"containers": [{**_PLAIN, "volumeMounts": [{"name": "sidecar-run"}] * count}]}
    ),
    "privileges": lambda count: bare({"containers": [{**_PLAIN, "securityContext": {"privileged": True}}] * count}),
}


@pytest.mark.parametrize("pod", MANY.values(), ids=MANY)
def test_a_pod_of_twice_as_many_wrongs_takes_no_more_than_twice_the_work(pod: Callable[[int], dict[str, Any]]) -> None:
    def refusal_of(count: int) -> Callable[[], object]:
        made, definition = pod(count), injection()
        return lambda: refused(made, definition)

    assert growth(refusal_of, 200) < 2.2
