"""Listening Unix sockets: bound under a name that may be left from a killed process, and removed at the end."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path


def bind(path: Path, *, mode: int, what: str) -> socket.socket:
    """Bind a socket that only those can connect to whom ``mode`` lets. One that nobody listens at is replaced.

    Raises:
        OSError: something else is there, another process listens there, or the directory is not ours to write. The
            text begins with ``what`` it is.
    """
    _clear(path, what)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)  # noqa: FBT003 - the call's own signature
        os.fchmod(listening.fileno(), mode)  # before it has a name, so that others can never connect
        listening.bind(str(path))
        path.chmod(mode)  # the process's umask has taken bits away
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"{what} {path}: {os.strerror(error.errno or 0)}") from None
    return listening


def inode(path: Path) -> tuple[int, int] | None:
    """Return what identifies the file behind a name; None if there is none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def remove(path: Path, ours: tuple[int, int] | None) -> None:
    """Remove the socket if it is still ``ours``."""
    if ours is not None and inode(path) == ours:
        path.unlink(missing_ok=True)


def _clear(path: Path, what: str) -> None:
    """Remove a socket without a listener.

    Raises:
        OSError: EADDRINUSE, it is not a socket, or a process listens.
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
        except BlockingIOError:  # its queue is full, so a process listens
            pass
    raise OSError(errno.EADDRINUSE, f"{what} {path}: another process listens there")
