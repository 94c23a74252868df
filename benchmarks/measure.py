"""Measures one window of load on one peer."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.axes import TOKEN_LIFE_S
from benchmarks.credentials import credentials, of_plan
from benchmarks.crowd import said
from benchmarks.engines import native_share, requests_by_engine
from benchmarks.machine import core_times, forget_peak, memory_mib, user_and_kernel
from benchmarks.peers.peer import Peer, Role
from benchmarks.peers.sidecar_settings import MCP_PATH
from benchmarks.rig import Rig
from benchmarks.sample import Sample
from benchmarks.scenarios import Scenario
from benchmarks.schedule import planned, tokens_of
from benchmarks.world import AGENT, SERVER_NAME, STRANGER, leaves, write_identity

_WARMUP_S: Final = 0.3
_CROWD_PATIENCE_S: Final = 60.0
_PATIENCE_S: Final = 120.0
_ROTATE_EVERY_S: Final = 2.5  # files are checked every 2 s
_REMEMBERED: Final = 8192  # the most tokens that the sidecar caches: each is sent once before the window
_REST_S: Final = 3.0  # for the last started peer: processes return memory of the start within two seconds
_SETTLE_S: Final = 0.5  # of the schedule before the window, beyond the longest answer, to reach a steady state
_SLOW_READ_MS: Final = 20  # after each read of up to 64 KB: about 3 MB/s


class MeasureError(Exception):
    """The load could not be generated. The text gives the reason."""


def measure(rig: Rig, peer: Peer, scenario: Scenario, *, seconds: float, number: int) -> Sample:
    """Load the peer for ``seconds`` in round ``number``.

    Raises:
        MeasureError: the connections could not be opened.
    """
    role = peer.roles[scenario.role]
    processes = [(name, pid) for name in (*role.counted, *role.beside) for pid in rig.tree(name)]
    pids = [pid for name, pid in processes if name in role.counted]
    forget_peak(pids)
    seen: dict[str, Any] = {}
    if scenario.measure == "memory" and not scenario.connections and number == 0:
        time.sleep(_REST_S)
    rss = memory_mib(pids)
    if scenario.measure == "memory":
        if scenario.connections:
            rss = _held(rig, peer, scenario, role, pids)
    elif scenario.measure == "rotation":
        seen = _while_rotating(rig, peer, scenario, role, [*_window(scenario, max(seconds, 8.0)), *_clocks(processes)])
    else:
        before = user_and_kernel(pids)
        flood: dict[str, Any] = {}
        with _beside(rig, role, scenario, flood):
            window = _plan(rig, scenario, role, seconds, number) if scenario.mix else _window(scenario, seconds)
            seen = _loaded(rig, peer, scenario, role, [*window, *_clocks(processes)], number)
        seen.update(flood)
        user, kernel = (now - then for now, then in zip(user_and_kernel(pids), before, strict=True))
        seen["kernel_share"] = kernel / (user + kernel) if user + kernel else None
        rss = memory_mib(pids)
    if seen:
        seen |= cpu_by_process(seen["cpu_each_s"], [name for name, _ in processes], role.counted)
    return Sample(
        scenario.name, peer.name, number, scenario.expects(peer), seen, rss, memory_mib(pids, "VmHWM")
    )  # fmt: skip


def cpu_by_process(used: Sequence[float], names: Sequence[str], counted: Sequence[str]) -> dict[str, Any]:
    """Return the CPU time of each process with its workers, and of those counted. ``names`` are in ``used``'s order."""
    each: dict[str, float] = {}
    for name, seconds in zip(names, used, strict=True):
        each[name] = each.get(name, 0) + seconds
    return {"cpu_s": sum(each[name] for name in counted), "cpu_of": each}


@contextmanager
def _beside(rig: Rig, role: Role, scenario: Scenario, seen: dict[str, Any]) -> Iterator[None]:
    """Run disturbers beside the load: an attacking peer, started a second earlier, or a flood, already connected.

    ``seen`` gets the number of the flood's connections that were closed and opened again.

    Raises:
        MeasureError: they did not start.
    """
    if not scenario.beside:
        yield
        return
    hostile = scenario.beside == "hostile"
    command = _hostile(rig, role) if hostile else _crowd(rig, role, scenario)
    with subprocess.Popen(
        rig.cores.bound(command, proxy=False), stdin=subprocess.PIPE, stdout=None if hostile else subprocess.PIPE
    ) as others:
        try:
            if others.stdout is not None and not select.select([others.stdout], [], [], _CROWD_PATIENCE_S)[0]:
                raise MeasureError(f"{scenario.name}: not all {scenario.crowd} connections could be opened")
            time.sleep(1.0)
            if others.poll() is not None:
                raise MeasureError(f"{scenario.name}: who should be beside it did not start")
            yield
            if not hostile:
                seen["reopened"] = int(others.communicate(timeout=_CROWD_PATIENCE_S)[0].split()[-1])
        finally:
            others.terminate()


def _hostile(rig: Rig, role: Role) -> list[str]:
    world, identity = rig.world, rig.world.identities[STRANGER]
    command = [sys.executable, "-m", "benchmarks.hostile", "--connect", world.at(role.port), "--name", SERVER_NAME]
    command += ["--certificate", str(identity.certificate), "--key", str(identity.key)]
    return [*command, "--authority", str(world.bundle)]


def _crowd(rig: Rig, role: Role, scenario: Scenario) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.crowd", "--connect", rig.world.at(role.port)]
    return [*command, "--count", str(scenario.crowd), "--says", said(scenario.beside).hex()]


def _loaded(rig: Rig, peer: Peer, scenario: Scenario, role: Role, options: list[str], number: int) -> dict[str, Any]:
    command = [*_command(rig, scenario, role, number), *options]
    probes = [rig.world.at(f"{name}-probe") for name in role.counted if scenario.mix and name.startswith("sidecar")]
    with subprocess.Popen(
        rig.cores.bound(command, proxy=False), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as load:
        assert load.stdout is not None  # noqa: S101 - for the type checker
        try:
            if scenario.mix and select.select([load.stdout], [], [], _PATIENCE_S)[0]:
                load.stdout.readline()  # "warm": the schedule runs, and the window comes later
            before, core = requests_by_engine(probes), core_times(rig.cores.proxy)
            report, errors = load.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            load.kill()
            raise MeasureError(f"{scenario.name} on {peer.name}: no end after {_PATIENCE_S:.0f} s") from None
    if load.returncode != 0:
        raise MeasureError(f"{scenario.name} on {peer.name}: {errors.strip()}")
    idle, whole = (now - then for now, then in zip(core_times(rig.cores.proxy), core, strict=True))
    seen: dict[str, Any] = json.loads(report)
    seen["core_free"] = idle / whole if whole else None
    seen["native_share"] = native_share(before, requests_by_engine(probes))
    return seen


def _while_rotating(rig: Rig, peer: Peer, scenario: Scenario, role: Role, options: list[str]) -> dict[str, Any]:
    """Load the peer while the files of its identity are replaced repeatedly."""
    done = threading.Event()
    world = rig.world

    def rotate() -> None:
        while not done.wait(_ROTATE_EVERY_S):
            write_identity(world.authority, AGENT, world.folder)

    rotating = threading.Thread(target=rotate)
    rotating.start()
    try:
        seen = _loaded(rig, peer, scenario, role, options, 0)
    finally:
        done.set()
        rotating.join()
    log = (world.folder / f"{peer.name}.log").read_text(errors="replace")
    return {**seen, "rotations": log.count('"event":"identity.rotated"')}


def _held(rig: Rig, peer: Peer, scenario: Scenario, role: Role, pids: list[int]) -> float:
    """Measure memory while this many connections are open, each after one request."""
    how = "--unended" if scenario.unended else "--hold"
    command = rig.cores.bound([*_command(rig, scenario, role, 0), how], proxy=False)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
        assert load.stdout is not None  # noqa: S101 - for the type checker
        if load.stdout.readline().strip() != "held":
            load.kill()
            raise MeasureError(f"{scenario.name} on {peer.name}: the connections could not be opened")
        rss = memory_mib(pids)
        load.communicate()
    return rss


def _command(rig: Rig, scenario: Scenario, role: Role, number: int) -> list[str]:
    world = rig.world
    over_http2 = scenario.streams > 0 and role.http2
    slots = scenario.connections * (1 if over_http2 else max(1, scenario.streams))
    command = [str(rig.programs.h2_load if over_http2 else rig.programs.load), "--connect", world.at(role.port)]
    command += ["--connections", str(slots)]
    command += _requests(rig, scenario, role, number)
    if role.mtls:
        identity = world.identities[scenario.identity]
        command += ["--certificate", str(identity.certificate), "--key", str(identity.key)]
        command += ["--authority", str(world.bundle), "--name", SERVER_NAME]
        if scenario.leaves:
            command += ["--leaves", str(leaves(world, scenario.identity, scenario.leaves))]
    if over_http2:
        command += ["--streams", str(scenario.streams)]
    if scenario.resumes:
        command += ["--resume"]
    return command


def _requests(rig: Rig, scenario: Scenario, role: Role, number: int) -> list[str]:
    world = rig.world
    host = SERVER_NAME if role.mtls else world.at(role.port)
    if not scenario.mix:
        request = world.folder / f"{scenario.name}{role.prefix.replace('/', '-')}.request"
        request.write_text(scenario.head(host, role.prefix), newline="")
        body = ["--body", str(scenario.body)] if scenario.body else []
        return ["--request", str(request), *body, "--tokens", str(credentials(rig, scenario, role, number))]
    options = []
    for at, call in enumerate((*scenario.mix, *(call.at_once() for call in scenario.mix))):
        request = world.folder / f"plan-{at}.request"
        request.write_text(call.text(host, role.mcp_prefix if call.path == MCP_PATH else role.prefix), newline="")
        options += ["--request", str(request), "--body", str(call.body)]
    return options


def _plan(rig: Rig, scenario: Scenario, role: Role, seconds: float, number: int) -> list[str]:
    """Write the plan of a window, the same for each peer in a round, and its tokens."""
    settle = _SETTLE_S + max(call.lasts_s for call in scenario.mix)
    calls = int(scenario.rate * (settle + seconds + 2.0))
    weights = [call.weight for call in scenario.mix]
    plan = planned(weights, users=scenario.users, cold=scenario.cold, calls=calls, seed=number)
    path = rig.world.folder / "plan"
    path.write_text(plan.text)
    tokens = of_plan(rig, role, tokens_of(plan), life_s=TOKEN_LIFE_S)
    options = ["--tokens", str(tokens), "--plan", str(path), "--plan-warm", str(plan.warm)]
    return [*options, "--seconds", str(seconds), "--warmup", str(settle), "--rate", str(scenario.rate)]


def _window(scenario: Scenario, seconds: float) -> list[str]:
    if scenario.requests:
        return ["--requests", str(scenario.requests)]
    options = ["--seconds", str(max(seconds, scenario.least_s)), "--warmup", str(_WARMUP_S)]
    if scenario.rate:
        options += ["--rate", str(scenario.rate)]
    if scenario.tokens:
        options += ["--warm-requests", str(min(scenario.tokens, _REMEMBERED))]
    if scenario.fresh_connections:
        options += ["--fresh"]
    if scenario.measure == "events":
        options += ["--events"]
    if scenario.measure == "slow":
        options += ["--pause-ms", str(_SLOW_READ_MS)]
    return options


def _clocks(processes: Sequence[tuple[str, int]]) -> list[str]:
    return ["--pids", ",".join(str(pid) for _, pid in processes)]
