"""Listening Unix sockets: replaces one left behind by a killed process, and removes its own at the end."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path


def bind(path: Path, *, mode: int, what: str) -> socket.socket:
    """Bind a socket at ``path`` with the permissions ``mode``; replace a socket without a listener.

    Raises:
        OSError: the path is no socket, another process listens there, or the directory is not writable. The text begins
            with ``what``, the name of the socket.
    """
    _clear(path, what)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)  # noqa: FBT003 - the call's own signature
        os.fchmod(listening.fileno(), mode)  # before the socket has a name, so that nobody else can connect in between
        listening.bind(str(path))
        path.chmod(mode)  # bind applied the process's umask
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"{what} {path}: {os.strerror(error.errno or 0)}") from None
    return listening


def inode(path: Path) -> tuple[int, int] | None:
    """Return device and inode number of a path; None: there is no file, or it is not accessible."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def remove(path: Path, ours: tuple[int, int] | None) -> None:
    """Remove the socket if it is still ``ours``, as ``inode`` returned after ``bind``."""
    if ours is not None and inode(path) == ours:
        path.unlink(missing_ok=True)


def _clear(path: Path, what: str) -> None:
    """Remove a socket that has no listener; do nothing if the path is free.

    Raises:
        OSError: EADDRINUSE, the path is no socket, or a process listens there.
    """
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EADDRINUSE, f"{what} {path}: something else is there")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # noqa: FBT003 - the same
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:  # its accept queue is full, so a process listens
            pass
    raise OSError(errno.EADDRINUSE, f"{what} {path}: another process listens there")
