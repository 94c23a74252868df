from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar_dev.attestation import Peer

MakePeer = Callable[..., Peer]


@pytest.fixture
def make_peer() -> Iterator[MakePeer]:
    """Make peers that live as long as this process, with the facts that a test chooses."""
    made: list[Peer] = []

    def make(
        *, pid: int = 4711, uid: int = 1000, path: str | None = "/usr/bin/agent", socket: str | None = None
    ) -> Peer:
        peer = Peer(
            pid=pid,
            uid=uid,
            path=Path(path) if path else None,
            pidfd=os.pidfd_open(os.getpid()) if pid else None,
            socket_path=Path(socket) if socket else None,
        )
        made.append(peer)
        return peer

    yield make
    for peer in made:
        peer.close()


@pytest.fixture
def peer(make_peer: MakePeer) -> Peer:
    return make_peer()
