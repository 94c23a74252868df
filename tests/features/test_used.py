"""The features that settings use: each by the setting that needs it, and none by settings of plain HTTP."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sidecar.assembly.setup import features_of
from sidecar.features import FEATURES

PLAIN: dict[str, Any] = {"protocol": "http", "resource": None, "token": "exchange"}


def settings(
    *,
    inbound: dict[str, Any] | None = None,
    outbound: dict[str, Any] | None = None,
    outside: tuple[object, ...] = (),
    tunnels: tuple[object, ...] = (),
    entry: object = None,
    observe_until: int = 0,
) -> Any:
    return SimpleNamespace(
        inbound_routes=SimpleNamespace(routes=(SimpleNamespace(**PLAIN | (inbound or {})),)),
        outbound_routes=SimpleNamespace(
            routes=(SimpleNamespace(**PLAIN | (outbound or {})),), outside=outside, tunnels=tunnels
        ),
        entry=entry,
        observe_until=observe_until,
    )


USES: dict[str, dict[str, Any]] = {
    "mcp": {"inbound": {"protocol": "mcp"}},
    "a2a": {"outbound": {"protocol": "a2a"}},
    "grpc": {"inbound": {"protocol": "grpc"}},
    "metadata": {"inbound": {"resource": object()}},
    "outside": {"outside": (object(),)},
    "logins": {"entry": object()},
    "user_logins": {"outbound": {"token": "login"}},
    "observing": {"observe_until": 1},
}


def test_settings_of_plain_http_use_none() -> None:
    assert features_of(settings()) == frozenset()


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_is_used_by_the_setting_that_needs_it(name: str) -> None:
    assert features_of(settings(**USES[name])) == {name}


def test_a_tunnel_leaves_the_mesh_too() -> None:
    assert features_of(settings(tunnels=(object(),))) == {"outside"}
