from __future__ import annotations

import socket

import pytest

from sidecar_dev.reach import EVERY, addresses, open_ports

pytestmark = pytest.mark.integration


def test_an_open_port_is_found_and_a_closed_one_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert open_ports(["127.0.0.1"], [port - 1, port]) >= {port}
    assert open_ports(["127.0.0.1"], [port]) == frozenset()


def test_what_listens_on_one_address_only_is_found_there() -> None:
    with socket.create_server(("127.0.0.2", 0)) as listener:
        port = listener.getsockname()[1]
        assert open_ports(["127.0.0.3", "127.0.0.2"], [port]) == {port}
        assert open_ports(["127.0.0.3"], [port]) == frozenset()


def test_every_port_is_every_port() -> None:
    assert (EVERY[0], EVERY[-1]) == (1, 65535)


def test_a_host_has_addresses() -> None:
    assert addresses("localhost") == ["127.0.0.1"]
