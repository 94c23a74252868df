"""``sidecar healthcheck``: queries the local probe listener, as a container's health check.

With ``--connect`` it checks an agent's container, which has no probe listener, by a connection to the agent's port.

A container that shares another container's network loses it when that one is killed: its processes stay in a namespace
with loopback alone, where they appear healthy. ``--restart-without-network`` detects this and ends the container's
first process, so that the engine's restart policy starts the container again in the new network.

The check runs every few seconds, so it imports almost nothing of this package: the address comes from an option, the
environment or one member of the settings, and the request uses a plain socket. ``sidecar check`` validates settings.
"""

from __future__ import annotations

import argparse
import fcntl
import ipaddress
import os
import re
import signal
import socket
import struct
import sys
import time
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from delegation_core.console.examples import add_examples

DEFAULT_PROBE: Final = "127.0.0.1:7090"
TIMEOUT_S: Final = 3.0
_BETWEEN_S: Final = 0.2
_VARIABLE: Final = "SIDECAR__PROBE__LISTEN"
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - addresses of the probe listener
_MAX_BYTES: Final = 65_536
_SIOCGIFCONF: Final = 0x8912  # netdevice(7): the interfaces that have an IPv4 address
_IFREQ: Final = struct.Struct("16s4x4s16x")  # interface name, then a sockaddr_in: family and port, address, padding
_MAX_INTERFACES: Final = 256
_IPV6_ADDRESSES: Final = Path("/proc/self/net/if_inet6")


def add_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the options of the command. ``default`` is the settings file that names the probe."""
    add_examples(
        parser,
        "sidecar healthcheck --probe 127.0.0.1:7090",
        "sidecar healthcheck --config sidecar.yaml --wait 30",
        "sidecar healthcheck --connect 127.0.0.1:8080 --restart-without-network",
    )
    parser.add_argument("--probe", metavar="HOST:PORT", help="the probe listener (default: from the settings)")
    parser.add_argument(
        "--config", default=default, metavar="FILE", help="the settings that name it (default %(default)s)"
    )
    parser.add_argument("--live", action="store_true", help="check only that it is alive, ready or not")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="S", help="retry for this many seconds until healthy"
    )
    parser.add_argument(
        "--connect",
        metavar="HOST:PORT",
        help="for an agent's container: check that this port accepts connections instead",
    )
    parser.add_argument(
        "--restart-without-network",
        action="store_true",
        help="end the container's first process if its network has only loopback left, so that it is restarted",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the check. Exit codes: 0 healthy, 1 unhealthy, or no answer."""
    if arguments.restart_without_network and not network_addresses():
        print("the network has only loopback left: ending this container's first process", file=sys.stderr)  # noqa: T201
        os.kill(1, signal.SIGTERM)
        return 1
    if arguments.connect is not None:
        wrong = _connect(arguments.connect)
        if wrong:
            print(wrong, file=sys.stderr)  # noqa: T201 - the command's own output
        return 1 if wrong else 0
    address = arguments.probe or probe_of(os.environ, Path(arguments.config))
    path = "/livez" if arguments.live else "/readyz"
    give_up_at = time.monotonic() + arguments.wait
    while (wrong := _wrong_at(address, path)) and time.monotonic() < give_up_at:
        time.sleep(_BETWEEN_S)
    if wrong:
        print(wrong, file=sys.stderr)  # noqa: T201 - the command's own output
    return 1 if wrong else 0


def network_addresses() -> list[str]:
    """Return the addresses of this network namespace, without loopback and link-local ones."""
    return [*_ipv4_addresses(), *_ipv6_addresses()]


def _ipv4_addresses() -> Iterator[str]:
    request = array("B", bytes(_MAX_INTERFACES * _IFREQ.size))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        ifconf = struct.pack("iP", len(request), request.buffer_info()[0])
        used, _ = struct.unpack("iP", fcntl.ioctl(any_socket.fileno(), _SIOCGIFCONF, ifconf))
    for _, address in _IFREQ.iter_unpack(request.tobytes()[: used - used % _IFREQ.size]):
        found = ipaddress.IPv4Address(address)
        if not (found.is_loopback or found.is_link_local):
            yield str(found)


def _ipv6_addresses() -> Iterator[str]:
    try:
        lines = _IPV6_ADDRESSES.read_text().splitlines()
    except OSError:  # no IPv6 here
        return
    for line in lines:
        found = ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))
        if not (found.is_loopback or found.is_link_local):
            yield str(found)


def _connect(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        return f"{address} accepts no connection: {error}"
    return ""


def _wrong_at(address: str, path: str) -> str:
    """Query the probe; return the error as text for the operator, empty if the status is 200."""
    try:
        status, lines = ask(address, path)
    except (OSError, ValueError) as error:
        return f"no answer from {address}: {error}"
    return "" if status == 200 else "\n".join(lines) or f"status {status}"


def probe_of(environ: Mapping[str, str], config: Path) -> str:
    """Return the probe listener's address for a client on this machine, from the environment or the settings."""
    listen = environ.get(_VARIABLE) or _from_file(config) or DEFAULT_PROBE
    host, _, port = listen.rpartition(":")
    return f"{_WILDCARDS.get(host, host)}:{port}"


def ask(address: str, path: str) -> tuple[int, list[str]]:
    """Send a GET request and return the status and the body's lines.

    Raises:
        OSError: no connection, or no answer in time.
        ValueError: the address is invalid, or the answer is not HTTP.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while len(answer) < _MAX_BYTES and (received := connection.recv(_MAX_BYTES)):
            answer += received
    status = _STATUS.match(answer)
    if status is None:
        raise ValueError("the answer is not HTTP")
    return int(status[1]), answer.partition(b"\r\n\r\n")[2].decode(errors="replace").splitlines()


def _from_file(config: Path) -> str | None:
    import yaml

    try:
        document = yaml.load(config.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        return str(document["probe"]["listen"])
    except (
        OSError,
        yaml.YAMLError,
        ValueError,
        TypeError,
        KeyError,
    ):  # missing, not written yet, or not a settings file
        return None
