from __future__ import annotations

import argparse
import socket

import pytest

from delegation_core.errors import ConfigError
from sidecar_dev.user_issuer import add_arguments, loopback_listener, run


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "10.0.0.1:80", "[fe80::1]:0", "[::ffff:0.0.0.0]:0"],
)
def test_any_address_but_loopback_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="loopback only"):
        loopback_listener(address)


@pytest.mark.parametrize("address", ["", "127.0.0.1", "localhost:0", "127.0.0.1:x", "127.0.0.1:", ":0", "1:2:3"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="not an address"):
        loopback_listener(address)


@pytest.mark.parametrize("address", ["127.0.0.1:65536", "127.0.0.1:-1"])
def test_what_is_no_port_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="not a port"):
        loopback_listener(address)


def test_a_port_in_use_is_refused() -> None:
    with loopback_listener("127.0.0.1:0") as taken, pytest.raises(ConfigError, match="cannot bind"):
        loopback_listener(f"127.0.0.1:{taken.getsockname()[1]}")


@pytest.mark.parametrize(("address", "family"), [("127.0.0.1:0", socket.AF_INET), ("[::1]:0", socket.AF_INET6)])
def test_loopback_is_either_of_the_two_families(address: str, family: int) -> None:
    with loopback_listener(address) as listener:
        assert listener.family == family


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (["--user", "alice", "--client", "front", "--listen", "0.0.0.0:0"], ["--listen"]),
        (["--user", "", "--client", "front"], ["--user"]),
        (["--user", "a", "--user", "a:x", "--client", "front"], ["--user"]),
        (["--user", "a\n", "--client", "é", "--life", "0"], ["--user", "--client", "--life"]),
        (["--user", "alice", "--client", "front", "--life", "86401"], ["--life"]),
        (["--user", "a", "--client", "f", "--issuer", "https://login:7300"], ["--issuer"]),
        (["--user", "a", "--client", "f", "--workload-api", "unix:///s"], ["--issuer"]),
        (["--user", "a", "--client", "f", "--workload-api", "unix:///s", "--issuer", "http://login:1"], ["--issuer"]),
        (["--user", "a", "--client", "f", "--workload-api", "s", "--issuer", "https://login:1"], ["--workload-api"]),
    ],
    ids=[
        *("not loopback", "empty user", "doubled user", "all at once", "too long a life"),
        *("a name without https", "https without a name", "a name in the clear", "no Workload API"),
    ],
)
def test_unusable_arguments_are_told_with_exit_code_2(
    capsys: pytest.CaptureFixture[str], options: list[str], fields: list[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args(options)) == 2
    said = capsys.readouterr().err
    assert all(f"{field}: " in said for field in fields)
