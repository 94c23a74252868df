"""``python -m benchmarks.run``: measure the sidecar beside its peers, and write what was seen."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.machine import described
from benchmarks.measure import MeasureError, measure
from benchmarks.native import BuildError
from benchmarks.peers import binaries
from benchmarks.peers.all import all_peers
from benchmarks.peers.peer import Peer
from benchmarks.ratios import ratios, refusal, spread
from benchmarks.rig import Rig, rig
from benchmarks.sample import Sample
from benchmarks.scenarios import SCENARIOS, Scenario
from sidecar.dev.processes import ProcessError

BASE = "haproxy"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 measured, 1 nothing could be measured, 2 usage."""
    arguments = _parser().parse_args(argv)
    scenarios = [one for one in SCENARIOS if not arguments.only or one.name in arguments.only]
    if not scenarios:
        print(f"no such scenario; there are {', '.join(one.name for one in SCENARIOS)}", file=sys.stderr)
        return 2
    binaries.given.update(text.split("=", 1) for text in arguments.binary)
    peers = _peers(arguments.peers)
    try:
        with rig(peers, frozenset(one.role for one in scenarios)) as running:
            samples = _measure_all(running, peers, scenarios, rounds=arguments.rounds, seconds=arguments.seconds)
    except (BuildError, ProcessError, MeasureError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    _tell(samples, scenarios, peers)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--only", action="append", metavar="SCENARIO", help="this one; may be given again")
    parser.add_argument("--peers", metavar="NAME,…", help="only these, and the base")
    parser.add_argument("--binary", action="append", default=[], metavar="NAME=PATH", help="where a peer's program is")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each window (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of each scenario (default %(default)s)")
    return parser


def _peers(wanted: str | None) -> list[Peer]:
    names = None if wanted is None else {BASE, *wanted.split(",")}
    found = []
    for peer in all_peers():
        why = peer.missing()
        if why is not None:
            print(f"bench: without {peer.title}: {why}", file=sys.stderr)
        elif names is None or peer.name in names:
            found.append(peer)
    return found


def _measure_all(
    running: Rig, peers: Sequence[Peer], scenarios: Sequence[Scenario], *, rounds: int, seconds: float
) -> list[list[Sample]]:
    """The samples of each round. The order is reversed each round, so that nobody always comes after the same."""
    samples: list[list[Sample]] = []
    for number in range(rounds):
        order = list(peers) if number % 2 == 0 else list(reversed(peers))
        samples.append([])
        for scenario in scenarios:
            for peer in order:
                if scenario.suits(peer):
                    sample = measure(running, peer, scenario, seconds=seconds, number=number)
                    samples[-1].append(sample)
                    print(f"round {number + 1}  {scenario.name:14} {peer.name:17} {sample.told}", flush=True)
    return samples


def _tell(samples: Sequence[Sequence[Sample]], scenarios: Sequence[Scenario], peers: Sequence[Peer]) -> None:
    print("\n" + "\n".join(f"{name}: {value}" for name, value in described().items()))
    for scenario in scenarios:
        base = _column(samples, scenario, BASE)
        why = refusal(base)
        print(f"\n{scenario.name}: {scenario.title}")
        if why is not None:
            print(f"  no ratios: {why}")
        for peer in peers:
            values = spread([value for value in _column(samples, scenario, peer.name) if value is not None])
            ratio = spread(ratios(_column(samples, scenario, peer.name), base))
            if values is None or ratio is None:
                continue
            text = f"  {peer.title:24} {values.middle:8.1f} us"
            text += f"   x {ratio.middle:.2f} ({ratio.lowest:.2f} to {ratio.highest:.2f})" if why is None else ""
            print(text)


def _column(samples: Sequence[Sequence[Sample]], scenario: Scenario, peer: str) -> list[float | None]:
    return [
        next((one.cpu_us for one in row if (one.scenario, one.peer) == (scenario.name, peer)), None) for row in samples
    ]


if __name__ == "__main__":
    sys.exit(main())
