"""``python -m benchmarks.pods``: the memory of many sidecars on one node, each beside its own agent.

Runs ``--pods`` real processes of one kind at a time, each with its own settings and ports, without and with a few idle
connections each. Like containers of one image on a node, they share the pages of files. So the table has three numbers:
resident (shared pages count in each process), proportional (each shared page is divided among its processes: the cost
for the node), and anonymous (pages of no file).
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.credentials import credentials
from benchmarks.machine import described, shared_memory
from benchmarks.native import BuildError
from benchmarks.peers import authbridge, binaries, envoy, haproxy, sidecar
from benchmarks.peers.peer import Part, Peer, Role
from benchmarks.rig import Rig, rig
from benchmarks.scenarios import SCENARIOS
from benchmarks.world import CALLER, SERVER_NAME, World
from sidecar_dev.processes import ProcessError

_AT_ONCE: Final = 10  # starting at the same time
_REQUEST: Final = next(one for one in SCENARIOS if one.name == "memory-100")
_PUBLISHED: Final = (
    ("AuthBridge, proxy-sidecar", "15 to 30 MB", "published: `docs/authbridge/deployment-guide.md` of rossoctl/cortex"),
    ("AuthBridge with Envoy", "150 to 200 MB", "published: the same page"),
    (
        "AuthBridge, proxy-sidecar",
        "24 MiB at rest, 86 MiB with 1,000 connections",
        "reported to us, not measured by us; we have no source to show",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of sidecar. ``most``: processes at a time. ``node``: programs that a node needs once; not counted."""

    peer: Peer
    pod: Callable[[World, str], Part]
    most: int | None = None
    node: Callable[[World], Part] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """MiB of each process of one kind, at rest or with connections."""

    title: str
    connections: int  # of each process
    resident: tuple[float, ...]
    proportional: tuple[float, ...]
    anonymous: tuple[float, ...]


def kinds() -> list[Kind]:
    """Return each kind that can be started many times."""
    return [
        Kind(peer=sidecar.sidecar(), pod=sidecar.pod),
        Kind(peer=sidecar.native(), pod=sidecar.native_pod),
        Kind(peer=envoy.plain(), pod=envoy.pod),
        Kind(peer=envoy.with_jwt(cache=True), pod=envoy.jwt_pod),
        Kind(peer=authbridge.lite(), pod=authbridge.pod, most=1, node=authbridge.workload_api),
        Kind(peer=haproxy.plain(), pod=haproxy.pod),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a table. Exit codes: 0 measured, 1 the measurement failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pods", description=__doc__)
    parser.add_argument("--pods", type=int, default=20, help="of each kind (default %(default)s)")
    parser.add_argument("--connections", type=int, default=10, help="idle, of each pod (default %(default)s)")
    parser.add_argument("--peers", metavar="NAME,…", help="only these")
    parser.add_argument("--binary", action="append", default=[], metavar="NAME=PATH", help="where a program is")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write pods.json and pods.md there")
    arguments = parser.parse_args(argv)
    binaries.given.update(dict(text.split("=", 1) for text in arguments.binary))
    wanted = None if arguments.peers is None else arguments.peers.split(",")
    found: list[Memory] = []
    missing: dict[str, str] = {}
    try:
        with rig((), frozenset()) as running:
            for kind in kinds():
                if wanted is not None and kind.peer.name not in wanted:
                    continue
                why = kind.peer.missing()
                if why is not None:
                    missing[kind.peer.title] = why
                    continue
                found += _measured(running, kind, min(arguments.pods, kind.most or arguments.pods), arguments)
    except (BuildError, ProcessError) as error:
        print(f"pods: {error}", file=sys.stderr)
        return 1
    made_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    page = told(found, missing, made_at=made_at, machine=described())
    print(page)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "pods.md").write_text(page)
        data = {"made_at": made_at, "machine": described(), "memory": [asdict(one) for one in found]}
        (arguments.out / "pods.json").write_text(json.dumps(data, indent=1))
    return 0


def _measured(running: Rig, kind: Kind, pods: int, arguments: argparse.Namespace) -> list[Memory]:
    world = running.world
    names = [f"{kind.peer.name}-pod-{number}" for number in range(pods)]
    node = [] if kind.node is None else [kind.node(world)]
    running.start(node)
    for first in range(0, pods, _AT_ONCE):
        running.start([kind.pod(world, name) for name in names[first : first + _AT_ONCE]])
    at_rest = _memory(running, kind, names, 0)
    with ExitStack() as held:
        for name in names:
            held.enter_context(_holding(running, name, arguments.connections))
        busy = _memory(running, kind, names, arguments.connections)
    running.processes.stop(*names, *(part.name for part in node))
    return [at_rest, busy]


def _memory(running: Rig, kind: Kind, names: Sequence[str], connections: int) -> Memory:
    each = [shared_memory(running.tree(name)) for name in names]
    resident, proportional, anonymous = zip(*each, strict=True)
    return Memory(
        title=kind.peer.title,
        connections=connections,
        resident=resident,
        proportional=proportional,
        anonymous=anonymous,
    )


class _holding:  # noqa: N801 - used like a function
    """Idle connections to one pod, each after one request, until the block ends."""

    def __init__(self, running: Rig, name: str, connections: int) -> None:
        world, identity = running.world, running.world.identities[CALLER]
        request = world.folder / "pods.request"
        request.write_text(_REQUEST.head(SERVER_NAME), newline="")
        tokens = credentials(running, _REQUEST, Role(port="agent-inbound", counted=()), 0)
        self._command = [str(running.programs.load), "--connect", world.at(f"{name}-inbound")]
        self._command += ["--request", str(request), "--connections", str(connections), "--tokens", str(tokens)]
        self._command += ["--certificate", str(identity.certificate), "--key", str(identity.key)]
        self._command += ["--authority", str(world.bundle), "--name", SERVER_NAME, "--hold"]
        self._name = name

    def __enter__(self) -> None:
        self._load = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._load.stdout is not None  # noqa: S101 - for the type checker
        if self._load.stdout.readline().strip() != "held":
            self._load.kill()
            raise ProcessError(f"{self._name}: the connections could not be opened")

    def __exit__(self, *_error: object) -> None:
        self._load.communicate()


def told(found: Sequence[Memory], missing: dict[str, str], *, made_at: str, machine: dict[str, str]) -> str:
    """Return the page: MiB of one pod, and of a hundred."""
    lines = ["# Memory of pods on one node", "", f"- made at: {made_at}"]
    lines += [f"- {name}: {value}" for name, value in machine.items()]
    lines += ["", "MiB of one process: the median, with the least and the most. *Proportional* divides a page of a"]
    lines += ["file among the processes that share it: the sum over all pods is what the node pays. *100 pods* is that"]
    lines += ["sum where 100 ran. Where fewer ran, it is computed: 100 times the anonymous memory (of no file), and"]
    lines += ["the pages of files once.", ""]
    heading = ("sidecar", "processes", "connections each", "resident", "proportional", "anonymous", "100 pods")
    lines += [f"| {' | '.join(heading)} |", "| --- " * len(heading) + "|"]
    for one in found:
        cells = (_spread(one.resident), _spread(one.proportional), _spread(one.anonymous))
        row = (one.title, str(len(one.resident)), str(one.connections), *cells, f"{of_a_hundred(one):,.0f}")
        lines.append(f"| {' | '.join(row)} |")
    lines += ["", *(f"- Without {name}: {why}" for name, why in missing.items())]
    lines += [
        "",
        "Figures that were not measured in this run:",
        "",
        "| sidecar | memory | source |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {' | '.join(row)} |" for row in _PUBLISHED]
    return "\n".join(lines) + "\n"


def of_a_hundred(memory: Memory) -> float:
    """Return the MiB of 100 pods: measured, or extrapolated by anonymous memory, with shared pages counted once."""
    if len(memory.proportional) == 100:
        return sum(memory.proportional)
    shared = median(memory.resident) - median(memory.anonymous)
    return 100 * median(memory.anonymous) + shared


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    sys.exit(main())
