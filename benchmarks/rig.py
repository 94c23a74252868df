"""All peers up at once, each on its own port, the proxies on one core and everything else on another."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import Cores, cores, process_tree
from benchmarks.native import Programs, build
from benchmarks.peers.peer import Launch, Peer
from benchmarks.world import TOOL, World, make_world
from sidecar.dev.processes import Processes, free_ports, listens

_EXTRA_PORTS = ("agent", "tool", "issuer", "sidecar-probe")


@dataclass(frozen=True, slots=True)
class Rig:
    """Everything that runs while something is measured."""

    world: World
    programs: Programs
    cores: Cores
    processes: Processes

    def pids(self, peer: Peer) -> list[int]:
        """The peer's processes: itself and its workers."""
        return process_tree(self.processes.pid(peer.name))


@contextlib.contextmanager
def rig(peers: Sequence[Peer]) -> Iterator[Rig]:
    """Start backends and peers; stop them at the end.

    Raises:
        BuildError: load generator or backend cannot be built.
        ProcessError: a peer does not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    processes = Processes(folder)
    try:
        programs = build(folder / "bin")
        names = [*_EXTRA_PORTS, *(f"{peer.name}-{role}" for peer in peers for role in sorted(peer.roles))]
        world = make_world(folder, dict(zip(names, free_ports(len(names)), strict=True)))
        made = Rig(world, programs, cores(), processes)
        _start_backends(made)
        for peer in peers:
            start(made, peer.name, peer.launch(world), proxy=True)
        for peer in peers:
            for role in peer.roles:
                wait_for_port(made, peer.name, world.ports[f"{peer.name}-{role}"])
        yield made
    finally:
        processes.stop()
        shutil.rmtree(folder, ignore_errors=True)


def start(on: Rig, name: str, launch: Launch, *, proxy: bool) -> None:
    """Start a program on the core of the proxies, or on that of all others."""
    on.processes.start(name, on.cores.bound(launch.command, proxy=proxy), launch.environment)


def wait_for_port(on: Rig, name: str, port: int) -> None:
    """Wait until the program listens there."""
    on.processes.wait_for(name, lambda: listens(port))


def _start_backends(on: Rig) -> None:
    world, backend = on.world, str(on.programs.backend)
    tool = world.identities[TOOL]
    commands = {
        "agent": [backend, "--port", str(world.ports["agent"])],
        "issuer": [backend, "--port", str(world.ports["issuer"]), "--file", str(world.jwks)],
        "tool": [
            *(backend, "--port", str(world.ports["tool"])),
            *("--certificate", str(tool.certificate), "--key", str(tool.key), "--authority", str(world.bundle)),
        ],
    }
    for name, command in commands.items():
        start(on, name, Launch(command), proxy=False)
        wait_for_port(on, name, world.ports[name])
