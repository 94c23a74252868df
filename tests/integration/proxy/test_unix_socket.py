from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.proxy.listening import unix_socket

pytestmark = pytest.mark.integration


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:  # a socket's path is short
        yield Path(folder) / "s.sock"


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_a_socket_has_its_mode_whatever_the_umask_is(path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        with unix_socket.bind(path, mode=mode, what="it"):
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(before)


def test_one_that_nobody_listens_at_is_replaced_and_another_process_s_is_not(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with unix_socket.bind(path, mode=0o600, what="it") as ours:
        ours.listen()
        with pytest.raises(OSError, match=r"it .*another process listens there"):
            unix_socket.bind(path, mode=0o600, what="it")


def test_a_file_in_its_place_is_left_alone(path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(OSError, match="something else is there"):
        unix_socket.bind(path, mode=0o600, what="it")
    assert path.read_text() == "mine"


def test_only_our_own_is_removed(path: Path) -> None:
    with unix_socket.bind(path, mode=0o600, what="it"):
        ours = unix_socket.inode(path)
        unix_socket.remove(path, None)
        unix_socket.remove(path, (0, 0))
        assert path.exists()
        unix_socket.remove(path, ours)
        assert not path.exists()
    assert unix_socket.inode(path) is None
