from __future__ import annotations

from typing import Any, Final

import pytest

from sidecar.identity.workload_settings import WorkloadAddress, WorkloadApiSettings, parse_address

UNIX: Final = "unix:///run/agent.sock"
ADDRESSES = {
    "unix:///run/agent.sock": WorkloadAddress(path="/run/agent.sock"),
    "unix:/run/agent.sock": WorkloadAddress(path="/run/agent.sock"),
    "tcp://127.0.0.1:8081": WorkloadAddress(host="127.0.0.1", port=8081),
    "tcp://[::1]:8081": WorkloadAddress(host="::1", port=8081),
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_is_a_socket_or_an_ip_address_with_a_port(text: str) -> None:
    assert parse_address(text) == ADDRESSES[text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/run/agent.sock",
        "unix://",
        "unix:///",
        "unix:relative",
        "unix://host/run/agent.sock",
        "unix:///run/agent.sock?x",
        "unix:///run/agent.sock#x",
        "tcp://localhost:8081",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:99999",
        "tcp://127.0.0.1:8081/x",
        "tcp://u@127.0.0.1:8081",
        "http://127.0.0.1:8081",
    ],
)
def test_anything_else_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="a Workload API address must be"):
        parse_address(text)


@pytest.mark.parametrize(
    "settings",
    [
        {"address": UNIX, "py_spiffe": True},
        {"address": UNIX, "hint": "internal"},
        {"address": "tcp://127.0.0.1:8081"},
        {"address": UNIX, "min_backoff_s": 1.0, "max_backoff_s": 1.0},
    ],
)
def test_settings_that_agree_are_taken(settings: dict[str, Any]) -> None:
    made = WorkloadApiSettings(**settings)
    assert {name: getattr(made, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"address": "tcp://127.0.0.1:8081", "py_spiffe": True}, "^workload_api: .*; write unix"),
        ({"address": UNIX, "py_spiffe": True, "hint": "internal"}, "^hint: .*; set spiffe_id"),
        ({"address": UNIX, "min_backoff_s": 1.1, "max_backoff_s": 1.0}, "back-off"),
        ({"address": UNIX, "min_backoff_s": 0.0}, "back-off"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        WorkloadApiSettings(**settings)
