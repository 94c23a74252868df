"""Peer of a Unix socket, as the kernel reports it.

The credentials are those of the process that called ``connect``. Its user id is the strong part. Its process id is
only valid while that process lives: ids are reused, and a child that inherited the socket still has its dead parent's.
So a pidfd holds the process, and each decision checks that it still runs.

A process in another container has no process id here and cannot be held. Its user id and the socket that it connected
to are known; if each workload has a socket of its own, the socket identifies it.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from pathlib import Path
from typing import Final

_SO_PEERPIDFD: Final = 77  # Linux 6.5; the socket module does not name it yet
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid


class AttestationError(Exception):
    """The process at the other end cannot be identified."""


class Peer:
    """The process that opened a connection: ``pid``, ``uid`` and the ``path`` of its executable, None if unreadable.

    ``socket_path`` is our socket that it connected to. A process of another pid namespace has the ``pid`` 0 and a
    ``pidfd`` of None. Any other is held by a file descriptor until it is closed.
    """

    def __init__(
        self, *, pid: int, uid: int, path: Path | None, pidfd: int | None, socket_path: Path | None = None
    ) -> None:
        self.pid = pid
        self.uid = uid
        self.path = path
        self.socket_path = socket_path
        self._pidfd = pidfd
        self._closed = False

    def __repr__(self) -> str:
        return f"Peer(pid={self.pid}, uid={self.uid}, path={str(self.path)!r}, socket={str(self.socket_path)!r})"

    @property
    def foreign(self) -> bool:
        """True in another pid namespace: we can neither inspect such a process nor tell it from its successor."""
        return self.pid == 0

    @property
    def alive(self) -> bool:
        """True while the process itself runs: a pidfd polls readable once it has ended. For a foreign process, true
        while its connection lasts.
        """
        if self._closed:
            return False
        if self._pidfd is None:
            return True
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Release the process: from now on it counts as ended."""
        if self._pidfd is not None and not self._closed:
            os.close(self._pidfd)
        self._closed = True


def attest(connection: socket.socket, *, socket_path: Path | None = None) -> Peer:
    """Ask the kernel which process opened this connection to ``socket_path``.

    Raises:
        AttestationError: the process has ended.
    """
    pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if pid <= 0:
        return Peer(pid=0, uid=uid, path=None, pidfd=None, socket_path=socket_path)
    # In this order: descriptor, facts, liveness. So the facts belong to the process of the descriptor.
    pidfd = _pidfd_of(connection, pid)
    peer = Peer(pid=pid, uid=uid, path=_executable(pid), pidfd=pidfd, socket_path=socket_path)
    if not peer.alive:
        peer.close()
        raise AttestationError("the process has ended")
    return peer


def _pidfd_of(connection: socket.socket, pid: int) -> int:
    try:
        return connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:  # a kernel before 6.5, or the process is gone, which the next call detects too
        pass
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        raise AttestationError("the process has ended") from error


def _executable(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/exe").readlink()
    except OSError:  # another user's process
        return None
