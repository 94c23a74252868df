from __future__ import annotations

import pytest

from sidecar.identity.workload_client import (
    WorkloadAddress,
    parse_address,
)

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
    with pytest.raises(ValueError, match="a Workload API address is"):
        parse_address(text)
