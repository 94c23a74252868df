"""The health check of a container: red whenever the probe is, or gives no answer."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar import healthcheck
from sidecar.cli import main
from sidecar.healthcheck import DEFAULT_PROBE, network_addresses, probe_of

READY = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nready\n"
LACKING = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 25\r\n\r\nno identity yet\nno keys\n\n"


@contextmanager
def probe(answer: bytes, asked: list[bytes] | None = None) -> Iterator[str]:
    """Serve one answer of a probe listener to one caller."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                received = connection.recv(4096)
                if asked is not None:
                    asked.append(received)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_ready_sidecar_is_well() -> None:
    with probe(READY) as address:
        assert main(["healthcheck", "--probe", address]) == 0


def test_one_that_is_not_ready_is_not_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    with probe(LACKING) as address:
        assert main(["healthcheck", "--probe", address]) == 1
    assert "no identity yet\nno keys" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 ", b"\x16\x03\x01"])
def test_what_speaks_no_http_is_not_well(answer: bytes) -> None:
    with probe(answer) as address:
        assert main(["healthcheck", "--probe", address]) == 1


@pytest.mark.parametrize("address", [None, "nonsense", "127.0.0.1:nonsense"])
def test_where_nobody_listens_it_is_not_well(address: str | None) -> None:
    assert main(["healthcheck", "--probe", address or free_address()]) == 1


@pytest.mark.parametrize(("options", "path"), [((), b"GET /readyz "), (("--live",), b"GET /livez ")])
def test_it_asks_whether_it_is_ready_or_only_whether_it_lives(options: tuple[str, ...], path: bytes) -> None:
    asked: list[bytes] = []
    with probe(READY, asked) as address:
        main(["healthcheck", "--probe", address, *options])
    assert asked[0].startswith(path)


@pytest.mark.parametrize(
    ("environ", "text", "address"),
    [
        ({}, None, DEFAULT_PROBE),
        ({}, "inbound: {}\n", DEFAULT_PROBE),
        ({}, "probe: 7\n", DEFAULT_PROBE),
        ({}, "[", DEFAULT_PROBE),
        ({}, "probe: {listen: 127.0.0.1:9000}\n", "127.0.0.1:9000"),
        ({}, "probe:\n  # where Prometheus looks\n  listen: 0.0.0.0:9000\n", "127.0.0.1:9000"),
        ({}, "probe: {listen: '[::]:9000'}\n", "[::1]:9000"),
        ({"SIDECAR__PROBE__LISTEN": "0.0.0.0:9001"}, "probe: {listen: 127.0.0.1:9000}\n", "127.0.0.1:9001"),
    ],
)
def test_the_probe_is_where_environment_and_settings_say(
    environ: dict[str, str], text: str | None, address: str, tmp_path: Path
) -> None:
    config = tmp_path / "sidecar.yaml"
    if text is not None:
        config.write_text(text)
    assert probe_of(environ, config) == address


def test_it_loads_little() -> None:
    """It runs every few seconds beside every agent."""
    code = (
        "import sys, sidecar.cli, sidecar.healthcheck; print(*{'asyncio', 'ssl', 'pydantic', 'yaml'} & {*sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert loaded.stdout.split() == []


def test_a_wait_ends_when_all_is_well_and_says_what_is_wrong_when_it_never_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with probe(LACKING) as unwell, probe(READY) as well:
        assert main(["healthcheck", "--probe", well, "--wait", "30"]) == 0
        monkeypatch.setattr(healthcheck, "TIMEOUT_S", 0.2)  # it answers once, and then never
        assert main(["healthcheck", "--probe", unwell, "--wait", "0.01"]) == 1
    assert main(["healthcheck", "--probe", free_address(), "--wait", "0.3"]) == 1
    assert "no answer from" in capsys.readouterr().err


# --- a container that shares another's network


def test_an_agent_that_takes_connections_is_well() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert main(["healthcheck", "--connect", f"127.0.0.1:{listener.getsockname()[1]}"]) == 0


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:no", None])
def test_one_that_takes_none_is_not_and_it_says_where(address: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    address = address or free_address()
    assert main(["healthcheck", "--connect", address]) == 1
    assert f"{address} accepts no connection" in capsys.readouterr().err


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Record signals instead of sending them: the first process here is not ours."""
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr("os.kill", lambda pid, number: signals.append((pid, number)))
    return signals


@pytest.mark.parametrize("left", [True, False], ids=["with-a-network", "with-loopback-alone"])
def test_only_without_a_network_the_first_process_is_ended(
    left: bool, monkeypatch: pytest.MonkeyPatch, told: list[tuple[int, int]]
) -> None:
    monkeypatch.setattr("sidecar.healthcheck.network_addresses", lambda: ["10.0.0.5"] if left else [])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = ["healthcheck", "--restart-without-network", "--connect", f"127.0.0.1:{listener.getsockname()[1]}"]
        assert main(command) == (0 if left else 1)
    assert told == ([] if left else [(1, signal.SIGTERM)])


@pytest.mark.parametrize(
    ("commands", "addresses"),
    [
        pytest.param("true", [], id="nothing-up"),
        pytest.param("ip link set lo up", [], id="loopback-alone"),
        pytest.param(
            "ip link set lo up; ip link add e0 type veth peer name e1; ip link set e0 up; ip link set e1 up",
            [],
            id="link-local-alone",
        ),
        pytest.param("ip link add e0 type veth peer name e1; ip addr add 10.9.8.7/24 dev e0", ["10.9.8.7"], id="ipv4"),
        pytest.param(
            "ip link add e0 type veth peer name e1; ip addr add fd00::7/64 dev e0 nodad", ["fd00::7"], id="ipv6"
        ),
    ],
)
def test_the_addresses_of_a_real_network_namespace(commands: str, addresses: list[str]) -> None:
    script = "import json; from sidecar.healthcheck import network_addresses; print(json.dumps(network_addresses()))"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-ec", f'{commands}; exec "$0" -c "$1"', sys.executable, script],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and any(sign in done.stderr for sign in ("unshare:", "RTNETLINK", "ip: not found")):
        pytest.skip(f"no namespace with such a network can be made here: {done.stderr.strip()}")
    assert json.loads(done.stdout) == addresses


def test_this_machine_has_addresses_or_none_and_loopback_is_not_among_them() -> None:
    assert not {"127.0.0.1", "::1"} & set(network_addresses())
