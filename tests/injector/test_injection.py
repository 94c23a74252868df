from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.errors import ConfigError
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


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in json.loads(RENDERED).items() if key != name}


BAD: dict[str, object] = {
    "no object": [],
    "empty": {},
    "no container": without("container"),
    "another member": {**json.loads(RENDERED), "more": 1},
    "another mode": {**json.loads(RENDERED), "mode": "both"},
    "ports of another type": {**json.loads(RENDERED), "ports": ["7443"]},
    "a nameless container": {**json.loads(RENDERED), "container": {"securityContext": {"runAsUser": 1}}},
    "a container without user": {**json.loads(RENDERED), "container": {"name": "sidecar"}},
    "a container without probe": {
        **json.loads(RENDERED),
        "container": {"name": "sidecar", "securityContext": {"runAsUser": 1}},
    },
    "no volumes": {**json.loads(RENDERED), "volumes": []},
    "no settings": {**json.loads(RENDERED), "volumes": json.loads(RENDERED)["volumes"][:1]},
}


@pytest.mark.parametrize("document", BAD.values(), ids=BAD)
def test_anything_else_is_refused(document: object) -> None:
    with pytest.raises(ConfigError):
        parse_injection(json.dumps(document).encode())


def test_two_members_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError):
        parse_injection(RENDERED.replace(b'"mode"', b'"mode": "classic", "mode"', 1))
