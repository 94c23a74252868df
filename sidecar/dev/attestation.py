"""Who is at the other end of a Unix socket, as the kernel tells it.

The credentials are those of the process that called ``connect``. Its user id is the strong part. Its process id is
only good while that process lives: ids are used again, and a child that inherited the socket goes on speaking under
its dead parent's. So the process is held by a pidfd, and asked again whether it lives whenever its facts decide.
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
    """The process at the other end cannot be told."""


class Peer:
    """The process that opened a connection: ``pid``, ``uid`` and the ``path`` of its executable, None if unreadable.

    It holds a file descriptor until it is closed.
    """

    def __init__(self, *, pid: int, uid: int, path: Path | None, pidfd: int) -> None:
        self.pid = pid
        self.uid = uid
        self.path = path
        self._pidfd = pidfd

    def __repr__(self) -> str:
        return f"Peer(pid={self.pid}, uid={self.uid}, path={str(self.path)!r})"

    @property
    def alive(self) -> bool:
        """Whether the process itself still runs. A pidfd polls readable once it has ended."""
        if self._pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Let go of the process: from now on it counts as ended."""
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)


def attest(connection: socket.socket) -> Peer:
    """Ask the kernel who opened this connection.

    Raises:
        AttestationError: the process is of another pid namespace (its id is 0 here), or has ended.
    """
    pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if pid <= 0:
        raise AttestationError("the process has no id in this pid namespace")
    # First the descriptor, then the facts, then "does it still live": so the facts are of the process it stands for.
    pidfd = _pidfd_of(connection, pid)
    peer = Peer(pid=pid, uid=uid, path=_executable(pid), pidfd=pidfd)
    if not peer.alive:
        peer.close()
        raise AttestationError("the process has ended")
    return peer


def _pidfd_of(connection: socket.socket, pid: int) -> int:
    try:
        return connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:  # a kernel before 6.5; or a process that is gone, which the next call tells too
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
