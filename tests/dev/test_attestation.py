from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from sidecar_dev.attestation import AttestationError, Peer, attest

# Connects, prints its process id, and obeys: "fork" leaves a child with the socket and ends.
CLIENT = """
import os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
order = sys.stdin.readline().strip()
if order == "fork" and os.fork() == 0:
    sys.stdin.close()
    os.close(1)
    connection.recv(1)
"""


class KernelWords:
    """A connection whose credentials a test chooses."""

    def __init__(self, pid: int, *, pidfd_of: int | None = None) -> None:
        self._pid = pid
        self._pidfd_of = pidfd_of

    def getsockopt(self, level: int, option: int, size: int = 0) -> bytes | int:
        if option == socket.SO_PEERCRED:
            return struct.pack("3i", self._pid, 1000, 1000)
        if self._pidfd_of is None:
            raise OSError(92, "Protocol not available")
        return os.pidfd_open(self._pidfd_of)


def attested(words: KernelWords) -> Peer:
    return attest(cast("socket.socket", words))


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        yield listening


@pytest.fixture
def client(listener: socket.socket) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-I", "-S", "-c", CLIENT, listener.getsockname()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as process:
        yield process
        if process.stdin and not process.stdin.closed:
            process.stdin.close()


def ended_pid() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
        return process.pid


def tell(process: subprocess.Popen[str], order: str) -> None:
    assert process.stdin
    process.stdin.write(order + "\n")
    process.stdin.close()


def test_the_peer_is_the_process_that_connected(listener: socket.socket, client: subprocess.Popen[str]) -> None:
    connection, _ = listener.accept()
    with connection:
        peer = attest(connection)
    assert (peer.pid, peer.uid) == (client.pid, os.getuid())
    assert peer.path == Path(sys.executable).resolve()
    assert peer.alive
    peer.close()


def test_a_child_that_inherited_the_connection_does_not_keep_its_parents_identity_alive(
    listener: socket.socket, client: subprocess.Popen[str]
) -> None:
    connection, _ = listener.accept()
    peer = attest(connection)
    tell(client, "fork")
    client.wait()
    assert not peer.alive
    peer.close()
    with pytest.raises(AttestationError, match="ended"):  # the child still holds the other end
        attest(connection)
    connection.close()


@pytest.mark.parametrize("pid", [0, -1])
def test_of_a_process_in_another_pid_namespace_only_user_and_socket_are_known(pid: int) -> None:
    peer = attest(cast("socket.socket", KernelWords(pid)), socket_path=Path("/run/s"))
    assert (peer.foreign, peer.pid, peer.uid, peer.path, peer.socket_path) == (True, 0, 1000, None, Path("/run/s"))
    assert peer.alive
    peer.close()
    assert not peer.alive


def test_an_older_kernel_is_asked_for_the_process_by_its_id() -> None:
    peer = attested(KernelWords(os.getpid()))
    assert peer.alive
    peer.close()


def test_on_an_older_kernel_a_process_that_ended_is_nobody() -> None:
    with pytest.raises(AttestationError, match="ended"):
        attested(KernelWords(ended_pid()))


def test_a_peer_that_was_let_go_counts_as_ended() -> None:
    peer = attested(KernelWords(os.getpid(), pidfd_of=os.getpid()))
    peer.close()
    peer.close()
    assert not peer.alive


def test_the_kernels_own_descriptor_counts_and_not_whoever_has_the_id_now() -> None:
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(AttestationError, match="ended"):
            attested(KernelWords(os.getpid(), pidfd_of=ended.pid))


def test_an_executable_that_cannot_be_read_is_no_path() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, not yet collected: /proc still lists it
    with pytest.raises(AttestationError, match="ended"):
        attested(KernelWords(process.pid))
    process.wait()
