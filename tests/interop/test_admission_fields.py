"""Every field of the injected container in a real API server: the policy refuses one changed, missing or added.

The fields are those of a pod that the injector made, and those that this API server knows besides. Only dry runs.
"""

from __future__ import annotations

import copy
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from sidecar.injector.inject import inject
from tests.injector.pods import patched
from tests.interop import helm, kube
from tests.interop.engine import require
from tests.interop.helm import injection_of, render
from tests.interop.hostile import pod
from tests.interop.kube import Api, Object, apply, kubectl, namespace, version, wait_for

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

Way = tuple[Any, ...]
_TLS: Final = {"certManager": {"enabled": False}, "secretName": "tls", "caBundle": "-----BEGIN CERTIFICATE-----"}
_ASKING: Final = {f"delegation-sidecar.io/{name}": "own" for name in ("keys", "door")}
DEFINITIONS: Final[dict[str, tuple[Object, Object]]] = {  # values of the chart, annotations of the pod
    "plain": ({}, {}),
    "classic": ({"sidecar": {"mode": "classic"}}, {}),
    "everything": (
        {
            "sidecar": {
                "platform": "ceiling",
                "ports": {"plain": 7444, "door": 8443},
                "workers": 2,
                "extraEnv": [{"name": "ODD", "value": 'it\'s "a" <b>\\'}],
            },
            "injector": {"allowKeys": True, "allowWorkloadHandle": True},
        },
        {**_ASKING, "delegation-sidecar.io/workload-handle": "agent"},
    ),
}

# What a pod may choose: bounds hold a size, and the repository holds the image
OPEN: Final = {("image",), ("resources",), ("startupProbe", "failureThreshold")}
# Other values that the API server admits, by the last name of the place
ANOTHER: Final = {
    "imagePullPolicy": "Never",
    "protocol": "UDP",
    "scheme": "HTTPS",
    "terminationMessagePolicy": "File",
    "fieldPath": "metadata.uid",
    "type": "Unconfined",
}
# The API server admits one value alone, or refuses the other one beside its neighbours
ONE_VALUE: Final = {"apiVersion", "privileged", "restartPolicy", "successThreshold"}


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace under one policy, with a pod that the injector made for it; ``kind`` is the sidecar's list."""

    api: Api
    namespace: str
    made: Object
    kind: str

    @property
    def own(self) -> Object:
        own: Object = self.made["spec"][self.kind][0]
        return own

    def judge(self, own: Object) -> str:
        """Return the verdict on the pod with the sidecar ``own``: same, admitted, policy or invalid."""
        asked = copy.deepcopy(self.made)
        asked["spec"][self.kind][0] = own
        found, said = self.api.try_pod(asked, self.namespace)
        if found is not None:
            return "same" if found["spec"][self.kind][0] == self.own else "admitted"
        if "sidecar policy: rule foreign_sidecar (" in said or "sidecar policy: rule no_sidecar (" in said:
            return "policy"
        assert "is invalid: " in said or "strict decoding error" in said, said
        return "invalid"


@pytest.fixture(scope="module", params=DEFINITIONS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    require(helm.missing() or kube.missing())
    values, annotations = DEFINITIONS[request.param]
    found = render({**values, "injector": {**values.get("injector", {}), "tls": _TLS}}, kube=version())
    name = f"sidecar-test-fields-{secrets.token_hex(3)}"
    policy, binding = found.one("ValidatingAdmissionPolicy"), found.one("ValidatingAdmissionPolicyBinding")
    for one in (policy, binding):  # beside that of other tests
        one["metadata"]["name"] = name
    selector = {"matchLabels": {"kubernetes.io/metadata.name": name}}
    policy["spec"]["matchConstraints"]["namespaceSelector"] = selector
    binding["spec"]["policyName"] = name
    spec = {
        "automountServiceAccountToken": False,
        "securityContext": {"fsGroup": 2747},
        "volumes": [{"name": "own", "emptyDir": {}}],
    }
    asked, definition, api = pod(spec, annotations=annotations), injection_of(found), Api()
    try:
        apply(*namespace(name), policy, binding)
        wait_for(lambda: api.try_pod(asked, name)[1], lambda said: "rule no_sidecar" in said)
        yield Place(api, name, patched(asked, inject(asked, definition).patch), definition.goes_into)
    finally:
        kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", name, "--ignore-not-found")
        kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")
        api.close()


def places(value: Any, way: Way = ()) -> Iterator[Way]:
    """Return every place in a container, each object and list too, without what a pod may choose."""
    if way in OPEN:
        return
    if way:
        yield way
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield from places(one, (*way, name))


def at(document: Any, way: Way) -> Any:
    for part in way:
        document = document[part]
    return document


def another(way: Way, value: Any) -> Any:
    """Return another value for a place, of the same type: a list with an item more, an object with other members."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, list):
        return [*value, another((*way, len(value)), value[0])]
    if isinstance(value, dict):
        return {name: one if isinstance(one, dict) else another((*way, name), one) for name, one in value.items()}
    if way[0] == "volumeMounts" and way[-1] == "name":
        return "own"  # a volume that the pod has
    return ANOTHER.get(way[-1], f"{value}x")


def test_the_pod_that_the_injector_made_is_admitted_and_what_it_may_choose(place: Place) -> None:
    own = place.own
    assert place.judge(own) == "same"
    probe = own["startupProbe"]
    chosen: dict[str, Object] = {
        "image": {"image": f"{own['image'].rpartition(':')[0]}:next"},
        "a pull each time": {"imagePullPolicy": "Always"},
        "resources": {"resources": {"limits": {"memory": "512Mi"}, "requests": {"cpu": "60m", "memory": "128Mi"}}},
        "startupProbe": {"startupProbe": {**probe, "failureThreshold": probe["failureThreshold"] + 1}},
    }
    assert {name: place.judge({**own, **members}) for name, members in chosen.items()} == dict.fromkeys(
        chosen, "admitted"
    )


def test_the_policy_refuses_a_sidecar_that_differs_in_one_field(place: Place) -> None:
    for way in places(place.own):
        fake = copy.deepcopy(place.own)
        if isinstance(at(fake, way), dict):
            continue  # by its members
        at(fake, way[:-1])[way[-1]] = another(way, at(fake, way))
        verdict = place.judge(fake)
        assert verdict == "policy" or (verdict == "invalid" and way[-1] in ONE_VALUE), (way, verdict)


def test_the_policy_refuses_a_sidecar_that_lacks_one_field_or_the_api_server_fills_it_in(place: Place) -> None:
    for way in places(place.own):
        fake = copy.deepcopy(place.own)
        at(fake, way[:-1]).pop(way[-1])
        assert place.judge(fake) in ("policy", "invalid", "same"), way


def unset(value: Object, schema: Object, known: Object, way: Way = ()) -> Iterator[tuple[Way, Any]]:
    """Return the fields of a schema that the container does not set, each with a value of its type."""
    for name, member in resolve(schema, known).get("properties", {}).items():
        whole = resolve(member, known)
        if name not in value:
            yield (*way, name), example(whole, known)
        elif isinstance(value[name], dict):
            yield from unset(value[name], whole, known, (*way, name))
        elif isinstance(value[name], list) and isinstance(value[name][0], dict):
            for number, item in enumerate(value[name]):
                yield from unset(item, whole["items"], known, (*way, name, number))


def resolve(schema: Object, known: Object) -> Object:
    for one in [schema, *schema.get("allOf", ())]:
        if "$ref" in one:
            found: Object = known[one["$ref"].rpartition("/")[2]]
            return found
    return schema


def example(schema: Object, known: Object) -> Any:
    """Return a value of a type: of an object all that it requires, else its first member."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "array":
        return [example(resolve(schema["items"], known), known)]
    if kind == "object":
        members = schema.get("properties", {})
        names = schema.get("required") or list(members)[:1]
        return {name: example(resolve(members[name], known), known) for name in names} or {"x": "x"}
    return {"boolean": True, "integer": 1, "number": 1}.get(str(kind), "1")


# Values that the API server admits, for fields whose types allow more
LAWFUL: Final[dict[str, Any]] = {
    "envFrom": [{"configMapRef": {"name": "own"}}],
    "hostIP": "192.0.2.1",
    "mountPropagation": "HostToContainer",
    "recursiveReadOnly": "Disabled",
    "procMount": "Unmasked",
    "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}],
    "appArmorProfile": {"type": "Unconfined"},
    "seLinuxOptions": {"type": "spc_t"},
    "windowsOptions": {"runAsUserName": "x"},
    "add": ["NET_BIND_SERVICE"],
    "postStart": {"exec": {"command": ["sh"]}},
}


def test_the_policy_refuses_a_sidecar_with_one_field_more_of_all_that_this_kubernetes_knows(place: Place) -> None:
    document = json.loads(kubectl("get", "--raw", "/openapi/v3/api/v1").stdout)
    known = document["components"]["schemas"]
    container = known["io.k8s.api.core.v1.Container"]
    verdicts = {}
    for way, value in unset(place.own, container, known):
        if way[:1] in OPEN:
            continue
        fake = copy.deepcopy(place.own)
        at(fake, way[:-1])[way[-1]] = LAWFUL.get(way[-1], value)
        verdicts[way] = place.judge(fake)
    assert {way for way, verdict in verdicts.items() if verdict == "admitted"} == set()
    refused = {way[-1] for way, verdict in verdicts.items() if verdict == "policy"}
    assert refused >= {
        "command",
        "hostPort",
        "hostIP",
        "httpHeaders",
        "initialDelaySeconds",
        "mountPropagation",
        "subPath",
    }
