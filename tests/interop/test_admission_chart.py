"""Every object of the chart in a real API server: strictly, and every pod as *restricted*. Only dry runs."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from sidecar.injector.inject import inject
from sidecar.injector.injection import parse_injection
from tests.injector.pods import patched
from tests.interop import helm, kube
from tests.interop.engine import require
from tests.interop.helm import MATRIX, Rendered, pods, render
from tests.interop.hostile import pod
from tests.interop.kube import Api, apply, kubectl, namespace, version
from tests.interop.values import random_values

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

PLAIN: Final = f"sidecar-test-chart-{secrets.token_hex(3)}"  # an earlier run's may still be terminating
FOREIGN: Final = ("cert-manager.io", "spire.spiffe.io", "monitoring.coreos.com")
EVERY = pytest.mark.parametrize("values", MATRIX, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    require(helm.missing() or kube.missing())
    api = Api()
    apply(*namespace(PLAIN, **{"pod-security.kubernetes.io/enforce": "restricted"}))
    yield api
    kubectl("delete", "namespace", PLAIN, "--ignore-not-found", "--wait=false")
    api.close()


def take_strictly(api: Api, found: Rendered) -> None:
    """Send every object as a strict dry run; every pod, also of a template, through Pod Security *restricted*."""
    for one in found.objects:
        if one["apiVersion"].split("/")[0] in FOREIGN or one["kind"] == "Pod":
            continue
        if "namespace" in one["metadata"]:
            one["metadata"]["namespace"] = PLAIN
        else:
            one["metadata"]["name"] += ".try"
        made, said = api.try_object(one)
        assert (made is not None, said) == (True, ""), (one["kind"], said)
    for name, spec in pods(found):
        alike = {**spec, "serviceAccountName": "default", "priorityClassName": None}
        asked = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "made-"}, "spec": alike}
        made, said = api.try_pod(asked, PLAIN)
        assert (made is not None, said) == (True, ""), (name, said)


@EVERY
def test_the_api_server_takes_every_object_strictly_and_every_pod_as_restricted(api: Api, values: Path) -> None:
    take_strictly(api, render(values, kube=version()))


@pytest.mark.parametrize("seed", range(int(os.environ.get("CHART_SEEDS", "25"))))
def test_the_api_server_takes_what_random_values_make(api: Api, seed: int) -> None:
    found = render(random_values(seed), kube=version())
    take_strictly(api, found)
    definitions = [one for one in found.of("ConfigMap") if "injection.json" in one["data"]]
    for definition in definitions:  # and the pod that it injects
        document = definition["data"]["injection.json"].encode()
        asked = pod()
        made, said = api.try_pod(patched(asked, inject(asked, parse_injection(document)).patch), PLAIN)
        assert (made is not None, said) == (True, ""), said


def test_an_object_with_an_unknown_field_is_not_taken(api: Api) -> None:
    deployment = render().one("Deployment")
    deployment["metadata"]["namespace"] = PLAIN
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Never"
    assert "imagePullPolice" in api.try_object(deployment)[1]
