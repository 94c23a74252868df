"""One window of load on one peer → what was seen."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.histogram import Histogram, percentile
from benchmarks.peers.peer import INBOUND, Peer
from benchmarks.rig import Rig
from benchmarks.scenarios import REUSED_TOKENS, Scenario
from benchmarks.world import SERVER_NAME, STRANGER

_WARMUP_S: Final = 0.3
_PATIENCE_S: Final = 90.0


class MeasureError(Exception):
    """The load could not be made. The text says why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one window showed. ``seen`` is all that the load generator said."""

    scenario: str
    peer: str
    seen: dict[str, Any]

    @property
    def cpu_us(self) -> float | None:
        """CPU time of the proxy per request, in microseconds; None if nothing was answered."""
        requests = self.seen["requests"]
        return self.seen["cpu_s"] / requests * 1e6 if requests else None

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return float(self.seen["requests"] / self.seen["seconds"])

    @property
    def latency(self) -> Histogram:
        """From when a request was due until its answer was there."""
        return [(bucket, count) for bucket, count in self.seen["latency"]]

    def errors(self, expected: int) -> dict[str, int]:
        """What was not answered as expected, by status or by how the connection was lost."""
        statuses = {status: count for status, count in self.seen["statuses"].items() if int(status) != expected}
        return statuses | {f"lost: {how}": count for how, count in self.seen["lost"].items() if count}

    def told(self, expected: int) -> str:
        """One line for people."""
        cpu = self.cpu_us
        text = f"{cpu:8.1f} us" if cpu is not None else "       - us"
        text += f" {self.per_second:9.0f}/s  p50 {percentile(self.latency, 0.5):6.0f} us"
        text += f"  p99 {percentile(self.latency, 0.99):7.0f} us"
        errors = self.errors(expected)
        if errors:
            text += f"  errors {errors}"
        if self.seen["late"]:
            text += f"  late {self.seen['late']}"
        return text


def measure(rig: Rig, peer: Peer, scenario: Scenario, *, seconds: float, number: int) -> Sample:
    """Load the peer for ``seconds``. ``number`` is that of the round: new tokens are new in each."""
    command = [*_target(rig, peer, scenario), *_load(rig, scenario, seconds), *scenario.options]
    command += ["--pids", ",".join(map(str, rig.pids(peer)))]
    if scenario.token != "none":
        command += ["--tokens", str(_tokens(rig, scenario, number))]
    done = subprocess.run(
        rig.cores.bound(command, proxy=False),
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S + seconds,
        check=False,
    )
    if done.returncode != 0:
        raise MeasureError(f"{scenario.name} on {peer.name}: {done.stderr.strip()}")
    return Sample(scenario.name, peer.name, json.loads(done.stdout))


def _target(rig: Rig, peer: Peer, scenario: Scenario) -> list[str]:
    world = rig.world
    command = [str(rig.programs.load), "--connect", world.at(f"{peer.name}-{scenario.role}")]
    if scenario.role == INBOUND:
        identity = world.identities[scenario.identity]
        command += ["--certificate", str(identity.certificate), "--key", str(identity.key)]
        command += ["--authority", str(world.bundle), "--name", SERVER_NAME]
    return command


def _load(rig: Rig, scenario: Scenario, seconds: float) -> list[str]:
    request = rig.world.folder / f"{scenario.name}.request"
    request.write_text(scenario.head(), newline="")
    command = ["--request", str(request), "--connections", str(scenario.connections)]
    command += ["--seconds", str(seconds), "--warmup", str(_WARMUP_S)]
    if scenario.rate:
        command += ["--rate", str(scenario.rate)]
    if scenario.body:
        command += ["--body", str(scenario.body)]
    if scenario.fresh_connections:
        command += ["--fresh"]
    return command


def _tokens(rig: Rig, scenario: Scenario, number: int) -> Any:
    """The tokens of a scenario, made once, and anew each round where each may be used only once."""
    path = rig.world.folder / f"{scenario.name}-{number if scenario.fresh_tokens else 0}.tokens"
    if path.exists():
        return path
    count = 60_000 if scenario.fresh_tokens else REUSED_TOKENS
    changes: dict[str, object] = {"act": {"sub": STRANGER}} if scenario.token == "stranger" else {}
    return rig.world.token_file(path.name, rig.world.tokens(count, **changes))
