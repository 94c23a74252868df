"""``python -m benchmarks.run``: measures the sidecar beside its peers, and writes the results."""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.axes import ALL, COMPARED
from benchmarks.before import prepare
from benchmarks.growth import GROWTH
from benchmarks.machine import cores, described
from benchmarks.measure import MeasureError, measure
from benchmarks.native import BuildError, http2_missing
from benchmarks.peers import binaries
from benchmarks.peers.all import all_peers
from benchmarks.peers.peer import Peer
from benchmarks.peers.sidecar_settings import BEFORE
from benchmarks.report import write_report
from benchmarks.results import Results, Taking, read, write
from benchmarks.rig import Rig, rig
from benchmarks.sample import Sample
from benchmarks.scenarios import Scenario
from benchmarks.smoke import SMOKE, judged, needed
from benchmarks.tables import BASE, ENVOY, table_of
from sidecar_dev.processes import ProcessError

SMOKE_PEERS = "sidecar,aiohttp"
BEFORE_PEERS = ",".join(("direct", "envoy-jwt", "agentgateway", *BEFORE, *BEFORE.values()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark. Exit codes: 0 measured, 1 no measurement or a broken limit of ``--smoke``, 2 usage."""
    arguments = _with_defaults(_parser().parse_args(argv))
    if arguments.again is not None:
        _say_written(write_report(read(arguments.again), arguments.again.parent))
        return 0
    scenarios, missing = _possible(_scenarios(arguments))
    if missing:
        _say(f"without the scenarios of HTTP/2: {missing['HTTP/2, in all peers']}")
    if missing and not scenarios:
        return 1
    if not scenarios:
        _say(f"no such scenario; there are {', '.join(one.name for one in (*ALL, *GROWTH))}")
        return 2
    binaries.given.update(dict(text.split("=", 1) for text in arguments.binary))
    try:
        if arguments.before is not None:
            binaries.given.update(prepare(arguments.before, (arguments.out or Path("build")) / "before"))
        peers, absent = _peers(arguments.peers)
        missing |= absent
        if all(peer.name != BASE for peer in peers):
            _say(f"nothing can be compared: {missing.get('HAProxy', 'the base is not there')}")
            return 1
        results = _run(peers, missing, scenarios, arguments)
    except (BuildError, ProcessError, MeasureError) as error:
        _say(str(error))
        return 1
    _tell(results, scenarios)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write(results, arguments.out / "results.json")
        _say_written([arguments.out / "results.json", *write_report(results, arguments.out)])
    return _gates(results) if arguments.smoke else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME,…", help="these scenarios or axes; may be given again")
    parser.add_argument("--growth", action="store_true", help="how cost grows with the work, instead of the scenarios")
    parser.add_argument("--all", action="store_true", help="the scenarios, and how cost grows")
    parser.add_argument("--smoke", action="store_true", help="a few short ones, with wide limits: for CI")
    parser.add_argument("--peers", metavar="NAME,…", help="only these, and the base")
    parser.add_argument("--binary", action="append", default=[], metavar="NAME=PATH", help="where a peer's program is")
    parser.add_argument(
        "--before", metavar="REF", help="beside the sidecar of this commit: the agents' rows, or --only"
    )
    parser.add_argument("--seconds", type=float, help="of each window (default 2; with --before 1.5)")
    parser.add_argument("--rounds", type=int, help="of each scenario (default 5; with --before 7)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write raw data and report there")
    parser.add_argument("--again", type=Path, metavar="RESULTS.JSON", help="write the report of an earlier run again")
    return parser


def _with_defaults(arguments: argparse.Namespace) -> argparse.Namespace:
    """Set the defaults of missing options: seven short rounds to compare versions, else five longer ones."""
    compares = arguments.before is not None
    arguments.seconds = arguments.seconds or (1.5 if compares else 2.0)
    arguments.rounds = arguments.rounds or (7 if compares else 5)
    arguments.needed_only = arguments.smoke and arguments.peers is None
    if arguments.peers is None and (compares or arguments.smoke):
        arguments.peers = BEFORE_PEERS if compares else SMOKE_PEERS
    return arguments


def _scenarios(arguments: argparse.Namespace) -> list[Scenario]:
    if arguments.only:
        wanted = {name for names in arguments.only for name in names.split(",")}
        return [one for one in (*ALL, *GROWTH) if {one.name, one.axis} & wanted]
    if arguments.before is not None:
        return [one for one in ALL if one.name in COMPARED]
    if arguments.smoke:
        return [one for one in ALL if one.name in SMOKE]
    if arguments.growth:
        return [*GROWTH]
    return [*ALL, *GROWTH] if arguments.all else [*ALL]


def _possible(scenarios: list[Scenario]) -> tuple[list[Scenario], dict[str, str]]:
    """Return the scenarios that can run here, and the reason why those of HTTP/2 cannot."""
    why = http2_missing() if any(one.streams for one in scenarios) else None
    if why is None:
        return scenarios, {}
    return [one for one in scenarios if not one.streams], {"HTTP/2, in all peers": why}


def _peers(wanted: str | None) -> tuple[list[Peer], dict[str, str]]:
    """Return the peers that take part, and the reasons why others do not."""
    names = None if wanted is None else {BASE, *wanted.split(",")}
    found, missing = [], {}
    for peer in all_peers():
        if names is not None and peer.name not in names:
            continue
        why = peer.missing()
        if why is None:
            found.append(peer)
        else:
            missing[peer.title] = why
            _say(f"without {peer.title}: {why}")
    return found, missing


def _run(
    peers: Sequence[Peer], missing: dict[str, str], scenarios: Sequence[Scenario], arguments: argparse.Namespace
) -> Results:
    bound = cores()
    caveats = [caveat for caveat in (bound.caveat,) if caveat is not None]
    versions = [Taking(name=one.name, title=one.title, version=one.version(), does_not=one.does_not) for one in peers]
    with rig(peers, frozenset(one.role for one in scenarios)) as running:
        for name, why in running.absent.items():
            _say(f"without {name}: it did not start: {why}")
        peers = [peer for peer in peers if peer.name not in running.absent]
        missing = {**missing, **{name: f"it did not start: {why}" for name, why in running.absent.items()}}
        takes_part = needed if arguments.needed_only else _everybody
        samples = _measure_all(
            running, peers, scenarios, rounds=arguments.rounds, seconds=arguments.seconds, takes_part=takes_part
        )
    return Results(
        made_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=arguments.seconds,
        rounds=max((sample.round + 1 for sample in samples), default=0),
        machine=described() | ({"before": arguments.before} if arguments.before else {}),
        caveats=tuple(caveats),
        peers=tuple(one for one in versions if one.name not in running.absent),
        missing=missing,
        samples=tuple(samples),
    )


def _everybody(_scenario: str, _peer: str) -> bool:
    return True


def _measure_all(
    running: Rig,
    peers: Sequence[Peer],
    scenarios: Sequence[Scenario],
    *,
    rounds: int,
    seconds: float,
    takes_part: Callable[[str, str], bool] = _everybody,
) -> list[Sample]:
    """Return the samples of all rounds, or of those before Ctrl-C: a long run that ends early is not lost.

    The order is reversed each round, so that no peer always follows the same one.
    """
    samples: list[Sample] = []
    windows = [
        (number, scenario, peer)
        for number in range(rounds)
        for scenario in scenarios
        for peer in (peers if number % 2 == 0 else reversed(peers))
        if scenario.suits(peer) and takes_part(scenario.name, peer.name)
    ]
    began = time.monotonic()
    try:
        for done, (number, scenario, peer) in enumerate(windows):
            minutes = (time.monotonic() - began) / max(done, 1) * (len(windows) - done) / 60
            try:
                sample = measure(running, peer, scenario, seconds=seconds, number=number)
            except MeasureError as error:
                _say(str(error))  # measure the others; this cell stays empty
                continue
            samples.append(sample)
            name = f"{scenario.name:17} {peer.name:21}"
            print(f"round {number + 1}, {minutes:3.0f} min left  {name} {sample.told}", flush=True)
    except KeyboardInterrupt:
        _say("interrupted: the report is of what was measured until now")
    return samples


def _tell(results: Results, scenarios: Sequence[Scenario]) -> None:
    print("\n" + "\n".join(f"{name}: {value}" for name, value in results.machine.items()))
    for scenario in scenarios:
        table = table_of(results.samples, scenario, [peer.name for peer in results.peers])
        print(f"\n{scenario.name}: {scenario.title} ({table.unit})")
        if table.refusal is not None:
            print(f"  no ratios: {table.refusal}")
        for row in table.rows:
            figure = "-" if row.figure is None else f"{row.figure.middle:.1f}"
            ratio = (
                ""
                if row.ratio is None
                else f"x {row.ratio.middle:.2f} ({row.ratio.lowest:.2f} to {row.ratio.highest:.2f})"
            )
            others = ((ENVOY, row.ratio_to_envoy), ("before", row.ratio_to_before))
            remarks = [*(f"x {one.middle:.2f} of {name}" for name, one in others if one), *row.remarks]
            print(f"  {row.peer:21} {figure:>10}   {ratio:24} {'; '.join(remarks)}")


def _gates(results: Results) -> int:
    verdicts = judged(results)
    print()
    for verdict in verdicts:
        print(verdict)
    return 0 if all(verdict.kept for verdict in verdicts) else 1


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr)


def _say_written(paths: Sequence[Path]) -> None:
    print("\nwritten: " + ", ".join(map(str, paths)))


if __name__ == "__main__":
    sys.exit(main())
