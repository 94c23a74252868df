from __future__ import annotations

import json
from typing import Any

import pytest

from delegation_core.errors import ConfigError
from sidecar.injector.injection import parse_injection
from tests.injector.pods import RENDERED, classic, injection


def test_what_the_chart_renders_is_taken() -> None:
    found = injection()
    assert (found.goes_into, found.name, found.uid, found.driver) == (
        "initContainers",
        "sidecar",
        2747,
        "csi.spiffe.io",
    )
    assert found.ports == {7443, 7080, 7090}
    assert not found.opt_out
    assert classic().goes_into == "containers"


def test_another_definition_has_another_digest() -> None:
    assert injection().digest != injection(optOut=True).digest


def test_settings_are_filled_in_and_the_definition_stays() -> None:
    found = injection()
    names = [volume["configMap"]["name"] for volume in found.volumes_for("planner") if "configMap" in volume]
    assert names == ["planner"]
    assert found.volumes_for("settings") == list(found.volumes)


VOLUMES = json.loads(RENDERED)["volumes"]
API = next(number for number, volume in enumerate(VOLUMES) if "csi" in volume)
SETTINGS = next(number for number, volume in enumerate(VOLUMES) if "configMap" in volume)


def edited(*path: str | int, **members: object) -> dict[str, Any]:
    """Return what the chart renders without the member at ``path``, and with these members."""
    document: dict[str, Any] = json.loads(RENDERED)
    at: Any = document
    for step in path[:-1]:
        at = at[step]
    if path:
        del at[path[-1]]
    return {**document, **members}


BAD: dict[str, tuple[object, str]] = {
    "no object": ([], "not an object"),
    "empty": ({}, "members other than"),
    "no container": (edited("container"), "members other than"),
    "another member": (edited(more=1), "members other than"),
    "another mode": (edited(mode="both"), "neither native nor classic"),
    "a variable without its value": (edited(agentEnv=[{"name": "A"}]), "agentEnv is not a list of {name, value}"),
    "a variable from elsewhere": (edited(agentEnv=[{"name": "A", "valueFrom": {}}]), "agentEnv is not a list"),
    "variables that are not a list": (edited(agentEnv={}), "agentEnv is not a list"),
    "ports of another type": (edited(ports=["7443"]), "not a list of integers"),
    "ports that are not a list": (edited(ports={}), "not a list of integers"),
    "a nameless container": (edited("container", "name"), "container.name"),
    "a container without user": (edited("container", "securityContext", "runAsUser"), "runAsUser is missing"),
    "a container without probe": (edited("container", "readinessProbe", "httpGet", "port"), "httpGet.port"),
    "a container without a time to start": (edited("container", "startupProbe", "failureThreshold"), "startupProbe"),
    "no volumes": (edited(volumes=[]), "the Workload API"),
    "no volume of the Workload API": (edited("volumes", API), "the Workload API"),
    "no settings": (edited("volumes", SETTINGS), "none is the ConfigMap"),
    "settings from elsewhere": (edited("volumes", SETTINGS, "configMap"), "none is the ConfigMap"),
    "a ConfigMap of another name": (edited("volumes", SETTINGS, "name"), "none is the ConfigMap"),
}


@pytest.mark.parametrize(("document", "why"), BAD.values(), ids=BAD)
def test_anything_else_is_refused(document: object, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_injection(json.dumps(document).encode())


def test_two_members_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError):
        parse_injection(RENDERED.replace(b'"mode"', b'"mode": "classic", "mode"', 1))
