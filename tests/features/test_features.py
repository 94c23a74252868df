"""The list of features: each is made once, when it is first asked for, and fits the journeys."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from delegation_core.operation import RouteProtocol
from sidecar.assembly.setup import features_of
from sidecar.features import FEATURES, SESSION_KEY_BYTES, Features
from sidecar.proxy.journeys.feature import InboundProtocol, OutboundProtocol
from sidecar.proxy.journeys.journey import OnDemand

PROTOCOLS = ("mcp", "a2a", "grpc")
ROOT = Path(__file__).parents[2]
PACKAGES = sorted(file.parent.name for file in (ROOT / "sidecar" / "features").glob("*/__init__.py"))
# Each part of a feature, and the folder of its files; "" is the package itself.
PARTS = {"Settings": "", "Decisions": "core/delegation_core/", "Forwarding": "", "Page": "docs/"}
# How files of decisions begin, where it is not with the name of their package.
STEMS = {"logins": "login", "observing": "observe", "operations": "operation", "transaction_tokens": "txn_token"}


def parts_of(package: str) -> dict[str, list[str]]:
    """Return the files that a package's docstring lists for each part of the feature."""
    text = import_module(f"sidecar.features.{package}").__doc__ or ""
    found = re.findall(r"^(\w+): ((?:``[^`]+``,?\s*)+)", text, re.MULTILINE)
    return {part: re.findall(r"``([^`]+)``", files) for part, files in found}


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


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_lists_the_files_of_its_feature(package: str) -> None:
    parts = parts_of(package)
    forgotten = f"list the files of the feature in the docstring of sidecar/features/{package}/__init__.py"
    assert [*parts] == [*PARTS], forgotten
    for part, files in parts.items():
        assert all(file.startswith(PARTS[part]) for file in files), part
        own = ROOT / "sidecar" / "features" / package
        assert [file for file in files if not ((ROOT if "/" in file else own) / file).is_file()] == [], part
    stem = STEMS.get(package, package)
    assert "settings.py" in parts["Settings"], forgotten
    decisions = {str(file.relative_to(ROOT)) for file in (ROOT / PARTS["Decisions"]).glob(f"{stem}*.py")}
    assert decisions - {*parts["Decisions"]} == set(), forgotten


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_of_a_feature_names_its_package(package: str) -> None:
    (page,) = parts_of(package)["Page"]
    text = (ROOT / page).read_text(encoding="utf-8")
    assert f"sidecar/features/{package}/" in text, f"link to sidecar/features/{package}/__init__.py in {page}"


def test_each_feature_of_the_list_is_in_a_package_that_lists_its_files() -> None:
    assert {module.split(".")[2] for module in FEATURES.values()} <= {*PACKAGES}
