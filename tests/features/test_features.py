"""The list of features: each is made once, when it is first asked for, and fits the journeys."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from sidecar.assembly.setup import features_of
from sidecar.delegation.operation import RouteProtocol
from sidecar.features import FEATURES, SESSION_KEY_BYTES, Features
from sidecar.proxy.journeys.feature import InboundProtocol, OutboundProtocol
from sidecar.proxy.journeys.journey import OnDemand

PROTOCOLS = ("mcp", "a2a", "grpc")


def features() -> Features:
    return Features(session_key=bytes(SESSION_KEY_BYTES))


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_is_made_once_and_not_before_it_is_asked_for(name: str) -> None:
    all_of_one = features()
    assert all_of_one.used(name) is None
    made = all_of_one.of(name)
    assert all_of_one.of(name) is made is all_of_one.used(name)


def test_each_protocol_of_routes_is_a_feature_and_each_feature_is_loaded_where_settings_use_it() -> None:
    missing = {*get_args(RouteProtocol)} - {"http"} - FEATURES.keys()
    assert not missing, f"add the modules of these protocols to FEATURES in sidecar/features/__init__.py: {missing}"
    loaded = {*get_args(RouteProtocol), *re.findall(r'"(\w+)"', inspect.getsource(features_of))}
    never = FEATURES.keys() - loaded
    assert not never, f"features_of in sidecar/assembly/setup.py must say which settings use {sorted(never)}"


def test_a_name_that_is_no_feature_says_where_to_add_it() -> None:
    with pytest.raises(LookupError, match="no feature moon: add its module to FEATURES"):
        features().of("moon")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_has_both_sides(name: str) -> None:
    side: Any = SimpleNamespace(forwarder=SimpleNamespace(pool=None), tasks=None, origins=None)
    feature = features().of(name)
    inbound: InboundProtocol = feature.inbound(side)
    outbound: OutboundProtocol = feature.outbound(side)
    for one in (inbound, outbound):
        operation = one.new_operation()
        assert (operation.key, operation.grpc, operation.allow) == ("other", False, None)


def test_the_list_of_features_imports_none_of_them() -> None:
    loaded = "import sys, sidecar.features; print([name for name in sys.modules if name.startswith('sidecar.')])"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['sidecar.features']"


def test_what_is_made_on_demand_is_made_once() -> None:
    made: list[str] = []

    def make(name: str) -> int:
        made.append(name)
        return len(made)

    parts = OnDemand(make)
    assert (parts["a"], parts["a"], parts["b"]) == (1, 1, 2)
    assert made == ["a", "b"]
