"""All peers running at once, each on its own ports, the proxies on one core and everything else on another."""

from __future__ import annotations

import contextlib
import resource
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.machine import Cores, cores, process_tree
from benchmarks.native import Programs, build
from benchmarks.peers.peer import OVER_HTTP2, Part, Peer
from benchmarks.world import TOOL, World, make_world
from sidecar_dev.processes import ProcessError, Processes, answers, listens


@dataclass(frozen=True, slots=True)
class Rig:
    """Everything that runs during a measurement."""

    world: World
    programs: Programs
    cores: Cores
    processes: Processes
    absent: dict[str, str] = field(default_factory=dict)  # peers that could not be started, by name, with the reason

    def tree(self, name: str) -> list[int]:
        """Return a process and its workers."""
        return process_tree(self.processes.pid(name))

    def start(self, parts: Sequence[Part]) -> None:
        """Start these programs, and wait until each listens on its ports."""
        for part in parts:
            command = self.cores.bound(part.command, proxy=part.proxy)
            self.processes.start(part.name, command, part.environment)
        for part in parts:
            for name in part.listens:
                port = self.world.port(name)
                self.processes.wait_for(part.name, partial(listens, port))
            if part.ready is not None:
                self.processes.wait_for(part.name, partial(answers, part.ready))


@contextlib.contextmanager
def rig(peers: Sequence[Peer], roles: frozenset[str]) -> Iterator[Rig]:
    """Start backends, and the peers for these roles; stop them at the end. A peer that does not start is absent.

    Raises:
        BuildError: load generator or backend cannot be built.
        ProcessError: a backend does not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the same for all, as in a container
    processes = Processes(folder)
    try:
        http2 = bool(roles & OVER_HTTP2)
        running = Rig(make_world(folder), build(folder / "bin", http2=http2), cores(), processes)
        running.start(_backends(running, http2=http2))
        for peer in peers:
            try:
                running.start(peer.parts(running.world, roles & peer.roles.keys()))
            except (ProcessError, OSError) as error:  # the others are still compared
                running.absent[peer.name] = " ".join(str(error).split())[:300]
        yield running
    finally:
        processes.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _backends(on: Rig, *, http2: bool) -> list[Part]:
    """Return the backends: agent (plain), tool (mTLS), issuer of keys and, with ``http2``, an agent with HTTP/2."""
    tls = on.world.identities[TOOL]
    with_tls = ["--certificate", str(tls.certificate), "--key", str(tls.key), "--authority", str(on.world.bundle)]
    options = {"agent": [], "tool": with_tls, "issuer": ["--file", str(on.world.jwks)]}
    programs = {name: [str(on.programs.backend), *more] for name, more in options.items()}
    if http2:
        programs["agent-h2c"] = [str(on.programs.h2_backend)]
    return [
        Part(
            name=name,
            command=[program, "--port", str(on.world.port(name)), *more],
            listens=(name,),
            proxy=False,
        )
        for name, (program, *more) in programs.items()
    ]
